"""Backend without computation: it builds networks only for the names, shapes and types of their
parameters.

This is enough to convert checkpoints without a framework. The environment variable
``MINDYOLO_EXT_BACKEND=shapes`` selects it. It implements what constructors use; running a network
is an error.
"""

"""A backend that computes nothing: it builds the networks only for the names, shapes and types of
their parameters.

Converting checkpoints needs no more than that, and so no framework. The environment variable
``MINDYOLO_EXT_BACKEND=shapes`` chooses it. It has what constructors use; running a network is an
error.
"""

"""A backend that computes nothing: the same networks, built to learn how their parameters are
called, shaped and typed.

Conversion of checkpoints asks for no more, and so needs no framework. The environment variable
``MINDYOLO_EXT_BACKEND=shapes`` chooses it. It has what constructors use; running a network here is
an error.
"""

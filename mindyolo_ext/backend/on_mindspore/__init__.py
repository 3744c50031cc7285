"""MindSpore backend: each module implements the module of the same name in ``backend``."""

"""The backend on PyTorch: each module serves the module of the same name in ``backend``."""

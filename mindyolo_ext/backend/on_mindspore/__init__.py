"""The backend on MindSpore: each module serves the module of the same name in ``backend``."""

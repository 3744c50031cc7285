"""Errors of the conversion bridge; each message says which file, what came and what was wanted."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, converted or written."""


class UnsafeCheckpointError(CheckpointError):
    """A file that names something a checkpoint of weights has no business with. Nothing of it
    was run.
    """

"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindyolo_ext.errors import CheckpointError

UNFINISHED = ".*.tmp.*"  # pattern of the files that a killed process leaves


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write; at the end it is flushed to the disk and takes the place of
    ``path``. If the block fails nothing of it stays, and neither does ``path`` change.

    Raises: CheckpointError if the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error})") from error


def _umask() -> int:
    """The process's file mode mask (there is no way to read it but to set it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

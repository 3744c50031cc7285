"""Share cache files between processes. Uses the standard library only."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # does not exist on Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)
_PATIENCE = 900.0  # seconds to wait for another process that writes the same file
_PAUSE = 0.1


def cache_folder(name: str) -> Path | None:
    """Return the folder ``name`` in the user's cache folder, None without a home folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # as in the XDG specification
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "mindyolo_ext" / name if os.path.isabs(base) else None


@contextlib.contextmanager
def alone(place: Path, what: object) -> Iterator[bool]:
    """Keep other processes from writing the same file; after ``_PATIENCE`` continue anyway.

    Args:
        place: path of the file.
        what: name for the message about another process.

    Yields: False if the file cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(place.with_name(place.name + ".lock"), flags, 0o666)
    except OSError as error:
        logger.debug("%s: nothing can be kept here (%s)", place, error)
        yield False
        return
    try:
        deadline = time.monotonic() + _PATIENCE
        is_told = False
        while not _lock(handle) and time.monotonic() < deadline:
            if not is_told:
                logger.info("%s: waiting for another process that reads it", what)
            is_told = True
            time.sleep(_PAUSE)
        yield True
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file; return False if another process has it. Always True without locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True

"""Files that appear whole or not at all."""

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindyolo_ext.errors import UserError, WriteError

UNFINISHED = ".*.tmp.*"  # pattern of the files that a killed process leaves
_ATTEMPTS = 5
_OPEN_FILES = Path("/proc/self/fd")


@contextmanager
def replacing(path: Path, *, named: bool = True) -> Iterator[Path]:
    """A file to write; at the end it is flushed to the disk and takes the place of ``path``. If
    the block fails nothing of it stays, and neither does ``path`` change.

    Args:
        named: give the file a name beside ``path`` that ends as ``path`` does, for programs that go
            by the suffix. Otherwise it has no name of its own where the file system can do that, so
            that nothing of it stays even if the process is killed.

    Raises: WriteError if the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = None if named else _open_unnamed(path.parent)
        with _named(path) if handle is None else _unnamed(path, handle) as unfinished:
            yield unfinished
        _sync(path.parent)
    except UserError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises: WriteError if the disk refuses."""
    with replacing(path, named=False) as unfinished:
        unfinished.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all; parts of file names that are no UTF-8 keep their
    bytes.

    Raises: WriteError if the disk refuses.
    """
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


@contextmanager
def _named(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its place at the end."""
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
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _unnamed(path: Path, handle: int) -> Iterator[Path]:
    """The file without a name behind ``handle``, which is closed at the end."""
    try:
        yield _file_of(handle)
        for _ in range(_ATTEMPTS):
            os.fchmod(handle, 0o666 & ~_umask())
            _sync(_file_of(handle))
            if _take_place(handle, path):
                return
            copy = os.open(path.parent, os.O_TMPFILE | os.O_RDWR)
            shutil.copyfile(_file_of(handle), _file_of(copy))
            os.close(handle)
            handle = copy
        raise FileNotFoundError(errno.ENOENT, "another program deletes it before it is in place")
    finally:
        os.close(handle)


def _take_place(handle: int, path: Path) -> bool:
    """Let the file replace ``path``. A link cannot do that, so it has a name for a moment; False
    if another program deleted it in this moment, after which it cannot be linked again.
    """
    name = path.with_name(f".{path.stem}.{secrets.token_hex(6)}.tmp{path.suffix}")
    # src_dir_fd has no effect on an absolute path, but without it Python would link the link
    os.link(_file_of(handle), name, src_dir_fd=handle, follow_symlinks=True)
    try:
        os.replace(name, path)
    except FileNotFoundError:
        return False
    finally:
        name.unlink(missing_ok=True)
    return True


def _open_unnamed(folder: Path) -> int | None:
    """A file of ``folder`` without a name, None where the system has no such thing."""
    if not hasattr(os, "O_TMPFILE") or not _OPEN_FILES.is_dir():
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            return None
        raise


def _file_of(handle: int) -> Path:
    """A path that opens the file behind ``handle``."""
    return _OPEN_FILES / str(handle)


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

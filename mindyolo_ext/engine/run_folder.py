"""Lock the folder of a run for one process at a time, and keep it free of half-written files.

The lock is that of the operating system (``flock``) on a file in the folder, so it ends with the
process in any case. On file systems without such locks the file names the process that created it,
and is valid as long as that process lives.
"""

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindyolo_ext.atomic import UNFINISHED
from mindyolo_ext.errors import ExistingFileError, WriteError

try:
    import fcntl
except ImportError:  # not available on Windows
    fcntl = None

LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of ``folder``, which is created if it is missing.

    Half-written files of killed processes in it and in ``weights`` are deleted; no other process
    can be writing there. If the folder was created and is still empty, it is removed at the end.

    Raises: ExistingFileError if another run is active there; WriteError if writing fails.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(folder)
    except ExistingFileError:
        raise
    except OSError as error:
        raise WriteError(
            f"{folder}: cannot be the folder of a run ({error.strerror or error}); choose another "
            "--save_dir"
        ) from error
    try:
        _remove_unfinished(folder)
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        os.close(handle)
        if is_new:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def _acquire(folder: Path) -> int:
    """Open the lock file of ``folder``; the lock is held until it is closed.

    Raises: ExistingFileError if another process has it.
    """
    path = folder / LOCK
    while True:
        handle, is_ours = _open(path)
        try:
            if not _lock(handle):
                if not is_ours and _is_running(_owner(path)):
                    raise _in_use(folder, needs_deleting=True)
                if not is_ours:
                    path.unlink(missing_ok=True)  # left by a process that has ended
            if _is_still(path, handle):
                os.truncate(handle, 0)
                os.pwrite(handle, json.dumps(_this_process()).encode(), 0)
                return handle
        except BlockingIOError:
            os.close(handle)
            raise _in_use(folder) from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the other run ended and deleted the file before we got the lock


def _open(path: Path) -> tuple[int, bool]:
    """Open the file; also returns whether it is new."""
    with contextlib.suppress(FileExistsError):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666), False


def _lock(handle: int) -> bool:
    """Lock an open file; False if its file system has no locks.

    Raises: BlockingIOError if another process has the lock.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            raise BlockingIOError(error.errno, error.strerror) from error
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _is_still(path: Path, handle: int) -> bool:
    """Whether ``path`` still names the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _this_process() -> dict[str, object]:
    """The content of the lock file of this process."""
    pid = os.getpid()
    return {"process": pid, "host": socket.gethostname(), "started": _started(pid)}


def _started(pid: int) -> str:
    """Start time of a process, in ticks since this machine started; empty if unknown.

    It distinguishes a process from a later one with the same number.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]  # field 22 of proc(5); the name may contain spaces


def _owner(path: Path) -> dict[str, object]:
    """Read a lock file; empty if it has no content."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_running(owner: dict[str, object]) -> bool:
    """Whether the process that created a lock file may still run; on another machine it may."""
    pid = owner.get("process")
    if not isinstance(pid, int):
        return True  # it may be writing the file at this moment
    if owner.get("host") != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return owner.get("started") in ("", _started(pid))


def _in_use(folder: Path, *, needs_deleting: bool = False) -> ExistingFileError:
    """Create the error for a folder that another run uses."""
    owner = _owner(folder / LOCK)
    who = f" (process {owner['process']} on {owner.get('host')})" if "process" in owner else ""
    return ExistingFileError(
        f"{folder} is in use: another run{who} is writing to it; wait until it has ended, or "
        "choose another --save_dir"
        + (f". If that run is gone, delete {folder / LOCK}" if needs_deleting else "")
    )


def _remove_unfinished(folder: Path) -> None:
    """Delete files that killed processes left half-written."""
    for place in (folder, folder / "weights"):
        for unfinished in place.glob(UNFINISHED):
            unfinished.unlink(missing_ok=True)

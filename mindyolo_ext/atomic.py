"""Write files so that they appear complete or not at all."""

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mindyolo_ext.errors import UserError, WriteError

UNFINISHED = ".*.tmp*"  # pattern of files that a killed process may leave behind
_NAMELESS = getattr(os, "O_TMPFILE", None)  # Linux
_HALF_CHARACTERS = re.compile("[\ud800-\udfff]")
_LONGEST_STEM = (
    40  # characters of the name kept for the unfinished file: file systems limit their length
)


@contextmanager
def replacing(path: Path, *, nameless: bool = False, flush: bool = True) -> Iterator[Path]:
    """Yield a file to write. At the end it is flushed to the disk and replaces ``path``. If the
    block fails, the file is removed and ``path`` stays unchanged.

    Args:
        nameless: use a file without a name if the system supports that, so that even a killed
            process leaves nothing; not for writers that depend on the suffix.
        flush: False for one of many small files that can be recreated: flushing takes milliseconds
            per file and only matters if power fails.

    Raises: WriteError if writing fails.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished(path, nameless, flush) as temporary:
            yield temporary
    except UserError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_bytes(path: Path, content: bytes, *, flush: bool = True) -> None:
    """Write a file, complete or not at all; ``flush`` as in ``replacing``.

    Raises: WriteError if writing fails.
    """
    with replacing(path, nameless=True, flush=flush) as unfinished:
        unfinished.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, complete or not at all; parts of file names that are not UTF-8 keep their
    bytes.

    Raises: WriteError if writing fails.
    """
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Write ``value`` as UTF-8 JSON, complete or not at all.

    A byte of a file name that is not UTF-8 becomes an escape such as ``\\udcd5``. The file is valid
    JSON, and ``os.fsencode`` of the loaded text restores the name.

    Raises: ValueError for a number that JSON cannot represent (NaN, infinity); WriteError if
        writing fails.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    write_bytes(path, _HALF_CHARACTERS.sub(_escaped, text).encode() + b"\n")


def write_json_list(path: Path, entries: Iterable[Any]) -> None:
    """Write a list as ``write_json`` does, entry by entry, so that neither the entries nor the text
    need to fit into memory.

    Raises: as ``write_json``.
    """
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    with replacing(path, nameless=True) as unfinished, open(unfinished, "wb") as file:
        sign = ""
        file.write(b"[")
        for entry in entries:
            file.write(_HALF_CHARACTERS.sub(_escaped, sign + encode(entry)).encode())
            sign = ", "
        file.write(b"]\n")


def _escaped(half: re.Match[str]) -> str:
    return f"\\u{ord(half.group()):04x}"


@contextmanager
def _unfinished(path: Path, nameless: bool, flush: bool) -> Iterator[Path]:
    """Yield a file beside ``path`` that replaces it at the end."""
    handle = _open_nameless(path.parent) if nameless else None
    if handle is None:
        with _named(path) as temporary:
            yield temporary
            if flush:
                _sync(temporary)
            os.replace(temporary, path)
    else:
        try:
            yield Path(f"/proc/self/fd/{handle}")
            if flush:
                _flush(handle)
            _give_name(handle, path)
        finally:
            os.close(handle)
    if flush:
        _sync(path.parent)


@contextmanager
def _named(path: Path) -> Iterator[Path]:
    """Yield an empty file beside ``path`` with its suffix, and delete it at the end if it still
    exists.
    """
    temporary = _free_name(path, f".tmp{path.suffix}")
    # not mkstemp: only the owner could read its files, and reading the umask is not thread-safe
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _free_name(path: Path, ending: str) -> Path:
    start = f".{path.stem[:_LONGEST_STEM]}."
    return Path(tempfile.mktemp(prefix=start, suffix=ending, dir=path.parent))


def _open_nameless(folder: Path) -> int | None:
    """Open a new file without a name; None if the system or file system does not support that."""
    if _NAMELESS is None or not os.path.isdir("/proc/self/fd"):
        return None
    with suppress(OSError):
        return os.open(folder, _NAMELESS | os.O_RDWR, 0o666)
    return None


def _give_name(handle: int, path: Path) -> None:
    """Replace ``path`` by the nameless file. A link cannot replace a file, but a move can."""
    temporary = _free_name(path, ".tmp")
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Python follows the link below /proc only with a folder argument
        os.link(f"/proc/self/fd/{handle}", temporary, src_dir_fd=folder, follow_symlinks=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(folder)


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        _flush(handle)
    finally:
        os.close(handle)


def _flush(handle: int) -> None:
    """Flush an open file or folder to the disk."""
    os.fsync(handle)

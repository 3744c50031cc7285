"""Files that appear whole or not at all."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mindyolo_ext.errors import UserError, WriteError

UNFINISHED = ".*.tmp.*"  # pattern of the files that a killed process leaves
_HALF_CHARACTERS = re.compile("[\ud800-\udfff]")
_LONGEST_STEM = 40  # letters of the name that the unfinished file keeps: file systems have limits


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write; at the end it is flushed to the disk and takes the place of
    ``path``. If the block fails nothing of it stays, and neither does ``path`` change.

    Raises: WriteError if the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem[:_LONGEST_STEM]}.", suffix=f".tmp{path.suffix}", dir=path.parent
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
    except UserError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises: WriteError if the disk refuses."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all; parts of file names that are no UTF-8 keep their
    bytes.

    Raises: WriteError if the disk refuses.
    """
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Write ``value`` as UTF-8 JSON, whole or not at all.

    A byte of a file name that is no UTF-8 becomes an escape such as ``\\udcd5``: the file is valid,
    and ``os.fsencode`` of the text that ``json.load`` gives is the name again.

    Raises: ValueError for a number that JSON cannot hold (NaN, infinity); WriteError if the disk
        refuses.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    write_bytes(path, _HALF_CHARACTERS.sub(_escaped, text).encode() + b"\n")


def _escaped(half: re.Match[str]) -> str:
    return f"\\u{ord(half.group()):04x}"


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

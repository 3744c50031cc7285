"""Read paths, lines and names from the text files of a data set."""

import glob
import io
import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mindyolo_ext.class_names import MAX_CLASSES
from mindyolo_ext.errors import DataError, MissingFileError, shown

MAX_TEXT_BYTES = 64 * 2**20  # of a list; COCO's 118,287 training images take 4 MB
MAX_LABEL_BYTES = 4 * 2**20  # of one image; a thousand outlines of a hundred points take 2 MB
MAX_NAMES_BYTES = 2 * 2**20  # 128 letters for each of MAX_CLASSES
MAX_FAULTS = 10_000  # per file; a file with more is of another kind, and the rest is not read
MAX_INTEGER = 2**53  # a JSON reader that uses only floats would change larger numbers
_ENCODINGS = (  # by byte order mark; UTF-32's begins with UTF-16's
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_NOT_NAMES = (".json", ".xml", ".yaml", ".yml")


def whole(value: Any) -> int | None:
    """Return the integer that ``value`` represents (``7``, ``7.0``, ``"7"``); None if it does not,
    or is beyond ``MAX_INTEGER``.
    """
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,16}(\.0*)?\s*", value):
        value = int(float(value)) if "." in value else int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_INTEGER:
        return None
    return value


def find_path(text: str | Path | Sequence[str], *folders: str | Path, key: str = "") -> Path:
    """Find the file or folder ``text``; a relative path refers to the first of ``folders`` that
    contains it.

    For a list, the first existing path is taken. A name with ``*`` must match exactly one file.

    Args:
        key: key in the recipe, for messages.

    Raises: MissingFileError that lists the places tried; DataError if a pattern matches several
        files, or ``text`` is not text.
    """
    texts = [text] if isinstance(text, (str, Path)) else text
    if not isinstance(texts, Sequence) or not all(isinstance(one, (str, Path)) for one in texts):
        raise DataError(f"{_head(key)}wanted the path of a file or folder, got {shown(text)}")
    places = list(
        dict.fromkeys(os.path.normpath(Path(folder) / one) for one in texts for folder in folders)
    )
    for place in places:
        if os.path.exists(place):
            return Path(place)
        head, name = os.path.split(place)
        matches = sorted(glob.glob(os.path.join(glob.escape(head), name))) if "*" in name else []
        if len(matches) > 1:
            names = ", ".join(os.path.basename(match) for match in matches[:4])
            raise DataError(f"{shown(place, 300)}: wanted one file, got {names}; name one of them")
        if matches:
            return Path(matches[0])
    tried = ", ".join(shown(place, 300) for place in places)
    raise MissingFileError(f"{_head(key)}no such file or folder: {tried or 'no path at all'}")


def _head(key: str) -> str:
    """Return ``KEY: `` for a message, empty without a key."""
    return f"{key}: " if key else ""


def read_bytes(path: str | Path, *, most: int = MAX_TEXT_BYTES) -> bytes:
    """Read a regular file of at most ``most`` bytes.

    Raises: MissingFileError if it does not exist; DataError if it is not a regular file, is larger,
        or cannot be read.
    """
    where = shown(str(path), 300)
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device or pipe"
            raise DataError(f"{where}: wanted a file, got {kind}")
        if found.st_size > most:
            raise DataError(
                f"{where}: wanted at most {most / 2**20:,.0f} MB, got "
                f"{found.st_size / 2**20:,.0f} MB; is it another kind of file?"
            )
        with open(path, "rb") as file:
            return file.read(found.st_size)  # Python allocates as many bytes as may be read
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{where}: no such file") from None
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{where}: cannot be read ({reason})") from error


def read_text(path: str | Path, *, most: int = MAX_TEXT_BYTES) -> str:
    """Read a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises: as ``read_bytes``; DataError that names the position if it is not such text.
    """
    content = read_bytes(path, most=most)
    encoding = next((name for mark, name in _ENCODINGS if content.startswith(mark)), "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        where, line = shown(str(path), 300), content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{where}: wanted UTF-8 text, got byte {content[error.start]:#04x} at {error.start} "
            f"(line {line}); {_remedy(content, where)}"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _remedy(content: bytes, where: str) -> str:
    """Suggest what to do with a file that is not UTF-8."""
    if b"\0" in content:  # no text in an 8-bit or multi-byte encoding contains it
        return "is it a text file at all?"
    return (
        "convert it, for example from GBK: iconv -f GBK -t UTF-8 "
        f"{shlex.quote(where)} > new{os.path.splitext(where)[1]}"
    )


def read_lines(path: str | Path, *, most: int = MAX_TEXT_BYTES) -> Iterator[tuple[int, str]]:
    """Return (line number from 1, stripped text) of all lines that are not blank. Reads the file at
    once.

    Raises: as ``read_text``.
    """
    lines = io.StringIO(read_text(path, most=most))
    return ((number, line.strip()) for number, line in enumerate(lines, 1) if line.strip())


def read_names(
    names: str | Path | Sequence[str], *folders: str | Path, where: str = "names"
) -> list[str]:
    """Read class names from a list, or from a file with one name per line in one of ``folders``.

    Args:
        where: name of the list in messages.

    Raises: MissingFileError; DataError if there are no names, duplicates, values that are not text,
        or more than ``MAX_CLASSES``.
    """
    if isinstance(names, (str, Path)):
        file = _names_file(names, *folders, where=where)
        where = str(file)
        found = [line for _, line in read_lines(file, most=MAX_NAMES_BYTES)]
    else:
        found = _listed_names(names, where)
    if len(found) > MAX_CLASSES:
        raise DataError(f"{where}: wanted at most {MAX_CLASSES:,} classes, got {len(found):,}")
    twice = [shown(name) for name, count in Counter(found).items() if count > 1][:5]
    if not found or twice:
        raise DataError(
            f"{where}: wanted different class names, got {f'{twice} twice' if twice else 'none'}"
        )
    return found


def _names_file(names: str | Path, *folders: str | Path, where: str) -> Path:
    """Find the text file of names."""
    if os.path.splitext(names)[1].lower() in _NOT_NAMES:
        raise DataError(
            f"{where}: wanted a text file with one class name per line, got {shown(str(names))}; "
            "for a data.yaml of ultralytics write `data: FILE.yaml, split: train` instead of "
            "images and names"
        )
    try:
        return find_path(names, *(folders or (".",)))
    except MissingFileError as error:
        raise MissingFileError(
            f"{where}: {error}; wanted a list such as [cat, dog], or a text file with one class "
            "name per line"
        ) from None


def _listed_names(names: Any, where: str) -> list[str]:
    """Check the names of a list."""
    if not isinstance(names, Sequence):
        raise DataError(f"{where}: wanted a list of class names, got {shown(names)}")
    found = []
    for number, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, (str, int)) or not str(name).strip():
            raise DataError(
                f"{where}[{number}]: wanted a class name, got {shown(repr(name))}; quote a word "
                'that YAML reads as another type, for example "no"'
            )
        found.append(str(name).strip())
    return found


def ids_from_names(paths: Sequence[str]) -> list[int]:
    """Return image ids: the file names if all are unique numbers (as in COCO), otherwise 1, 2, 3
    ...
    """
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    if all(stem.isascii() and stem.isdigit() and len(stem) <= 16 for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers) and max(numbers, default=0) < MAX_INTEGER:
            return numbers
    return list(range(1, len(paths) + 1))

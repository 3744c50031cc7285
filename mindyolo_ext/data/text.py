"""Paths, lines and names in the text files of a data set."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mindyolo_ext.errors import DataError, MissingFileError


def shown(value: object, longest: int = 80) -> str:
    """``value`` for a message: control characters escaped, and cut to ``longest`` characters."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= longest else f"{text[:longest]}..."
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in cut
    )


def find_path(text: str | Path | Sequence[str], *folders: str | Path) -> Path:
    """Find the file or folder ``text``, if it is relative in the first of ``folders`` that has it.

    Of a list, the first that exists is taken. A name with ``*`` means the one file it matches.

    Raises: MissingFileError that lists the places tried; DataError if a pattern matches several
        files.
    """
    texts = [text] if isinstance(text, (str, Path)) else list(text)
    places = list(
        dict.fromkeys(
            Path(os.path.normpath(Path(folder) / one)) for one in texts for folder in folders
        )
    )
    for place in places:
        if place.exists():
            return place
        matches = sorted(place.parent.glob(place.name)) if "*" in place.name else []
        if len(matches) > 1:
            names = ", ".join(match.name for match in matches[:4])
            raise DataError(f"{place}: wanted one file, got {names}; name one of them")
        if matches:
            return matches[0]
    raise MissingFileError(f"no such file or folder: {', '.join(str(place) for place in places)}")


def read_text(path: str | Path) -> str:
    """The content of a UTF-8 file, with or without a byte order mark.

    Raises: MissingFileError without such a file; DataError if it is not UTF-8 text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: wanted UTF-8 text, got byte {error.object[error.start]:#04x} at {error.start}"
        ) from error


def read_lines(path: str | Path) -> list[tuple[int, str]]:
    """(line number from 1, stripped text) of the lines that are not blank.

    Raises: as ``read_text``.
    """
    return [
        (number, line.strip())
        for number, line in enumerate(read_text(path).splitlines(), 1)
        if line.strip()
    ]


def read_names(names: str | Path | Sequence[str], *folders: str | Path) -> list[str]:
    """Class names from a list, or from a file in one of ``folders`` with a name per line.

    Raises: DataError without names or with a name twice.
    """
    where: str | Path = "names"
    if isinstance(names, (str, Path)):
        where = find_path(names, *folders)
        found = [line for _, line in read_lines(where)]
    else:
        found = [str(name) for name in names]
    twice = [name for name, count in Counter(found).items() if count > 1]
    if not found or twice:
        raise DataError(
            f"{where}: wanted different class names, got {f'{twice} twice' if twice else 'none'}"
        )
    return found


def ids_from_names(paths: Sequence[str]) -> list[int]:
    """Image ids: the numbers in the file names where all are different numbers (as in COCO),
    otherwise 1, 2, 3 ...
    """
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    if all(stem.isascii() and stem.isdigit() for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers) and max(numbers, default=0) < 2**53:
            return numbers
    return list(range(1, len(paths) + 1))

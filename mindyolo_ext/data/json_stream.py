"""Read the lists of a large JSON object piece by piece, with at most a few hundred entries in
memory.
"""

import codecs
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 2**20  # bytes read at a time
_LONGEST = 16 * 2**20  # characters of one entry
_CHUNK = 200  # entries returned at a time; few enough to fit into the processor's cache
_SPACE = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_ENDS = (
    ",",
    "]",
    "}",
    ":",
    " ",
    "\n",
    "\r",
    "\t",
)  # characters that end a value; "1." alone is incomplete
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_decode = json.JSONDecoder().raw_decode


class NotStreamable(Exception):
    """Raised if a damaged or unusual file must be read as a whole."""


def read_lists(
    path: Path,
    names: Collection[str],
    *,
    most: int,
    digest: Any = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[str, list[Any]]]:
    """Yield the entries of the lists ``names`` of the object in a JSON file, in the file's order,
    as (name, some of its entries). Other parts of the object are checked and skipped.

    Args:
        most: limit of the file's size in bytes.
        digest: a ``hashlib`` object that is updated with the whole file.
        progress: called with the number of bytes after each block.

    Raises: NotStreamable, possibly after some entries: for invalid JSON, a missing file, another
        encoding than UTF-8, a list that is missing or not a list, a duplicate key, or an entry of
        more than 16 MB.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            raise NotStreamable("not a regular file, or too large")
        with open(path, "rb") as file:
            window = _Window(file, found.st_size, digest or hashlib.sha256(), progress)
            yield from _lists(window, names)
    except (OSError, RecursionError, ValueError) as error:  # also of text that is not UTF-8
        raise NotStreamable(str(error)) from error


def _lists(window: "_Window", names: Collection[str]) -> Iterator[tuple[str, list[Any]]]:
    """Like ``read_lists``, for an open file."""
    seen: set[str] = set()
    window.take("{")
    while True:
        if window.peek() != '"':
            raise NotStreamable("no key")
        key = window.value()
        if key in seen:
            raise NotStreamable("duplicate key")
        seen.add(key)
        window.take(":")
        if key in names:
            for entries in window.entries():
                yield key, entries
        else:
            window.peek()
            window.value()
        if window.take(",}") == "}":
            break
    if window.peek() or not seen.issuperset(names):
        raise NotStreamable("text after the object, or a list is missing")


class _Window:
    """Window on the text of a file; ``at`` is the next character."""

    def __init__(
        self, file: BinaryIO, size: int, digest: Any, progress: Callable[[int], object] | None
    ) -> None:
        self.text, self.at = "", 0
        self._file, self._left, self._digest, self._progress = file, size, digest, progress
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._ended = False
        start = file.read(4)
        file.seek(0)
        if start.startswith(_MARKS):
            raise NotStreamable("not UTF-8")

    def more(self) -> bool:
        """Read a block; False at the end of the file."""
        if self._ended:
            return False
        block = self._file.read(min(BLOCK, self._left))
        self._left -= len(block)
        self._ended = not block
        self._digest.update(block)
        self.text = self.text[self.at :] + self._decoder.decode(block, final=self._ended)
        self.at = 0
        if self._progress is not None:
            self._progress(len(block))
        return True

    def peek(self) -> str:
        """Return the next character that is not a space and move ``at`` to it; empty at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            assert match is not None  # the pattern also matches an empty string
            self.at = match.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, signs: str) -> str:
        """Skip one of ``signs``, and return it."""
        sign = self.peek()
        if not sign or sign not in signs:
            raise NotStreamable(f"wanted one of {signs}")
        self.at += 1
        return sign

    def value(self) -> Any:
        """Return the value that begins here. More text must follow, so that no number is cut
        off.
        """
        while True:
            try:
                value, end = _decode(self.text, self.at)
                if self.text[end : end + 1] in _ENDS:
                    self.at = end
                    return value
            except json.JSONDecodeError:
                pass  # cut off at the end of the window, or damaged
            if len(self.text) - self.at > _LONGEST or not self.more():
                raise NotStreamable("damaged, or a very long entry")

    def entries(self) -> Iterator[list[Any]]:
        """Yield the entries of the list that begins here, some at a time."""
        self.take("[")
        chunk: list[Any] = []
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            chunk.append(self.value())
            comma = _COMMA.match(self.text, self.at)
            if comma is not None and comma.end() < len(self.text):
                self.at = comma.end()
            elif self.take(",]") == "]":
                yield chunk
                return
            else:
                self.peek()
            if len(chunk) >= _CHUNK:
                yield chunk
                chunk = []

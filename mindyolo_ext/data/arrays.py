"""Store named arrays in memory, or map them from one file that several processes share.

The file holds only numbers: a line that names the format, a short JSON header, and the arrays one
after another. Nothing in it is ever run, and every size is checked against the file's before use.
"""

import json
import mmap
import struct
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mindyolo_ext.atomic import replacing
from mindyolo_ext.errors import DataError

_MAGIC = b"mindyolo_ext arrays 1\n"
_LENGTH = struct.Struct("<I")
_MAX_HEADER_BYTES = 2**16
_ALIGNMENT = 64
_BLOCK = 2**20
_MOST_ENTRIES = 2**40  # limit for one array

Schema = Mapping[str, tuple[str, int]]
Bounds = Callable[[Mapping[str, int]], Mapping[str, tuple[float, float]]]


class DamagedArrays(Exception):
    """A file of arrays that is damaged, in another format, or for other content."""


class Arrays(Mapping[str, np.ndarray]):
    """Arrays by name. Arrays in a file are sent to another process as the file's name and mapped
    again there, so all processes share one read-only copy.

    Args:
        arrays: by name.
        file: the file that some of them are mapped from.
        about: the description that the file must contain.
        mapped: names of those arrays.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        file: Path | None = None,
        about: Mapping[str, Any] | None = None,
        mapped: Collection[str] = (),
    ):
        self._arrays, self._file, self._about = dict(arrays), file, dict(about or {})
        self.mapped = frozenset(mapped)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        here = {name: its for name, its in self._arrays.items() if name not in self.mapped}
        return _mapped_again, (here, self._file, self._about, self.mapped)

    def changed(self, **arrays: np.ndarray) -> "Arrays":
        """Return these arrays with some of them replaced."""
        return Arrays(
            {**self._arrays, **arrays},
            file=self._file,
            about=self._about,
            mapped=self.mapped - set(arrays),
        )

    def only(self, *names: str) -> "Arrays":
        """Return only the arrays in ``names``."""
        return Arrays(
            {name: self._arrays[name] for name in names},
            file=self._file,
            about=self._about,
            mapped=self.mapped & set(names),
        )


def _mapped_again(
    arrays: dict[str, np.ndarray],
    path: Path | None,
    about: dict[str, Any],
    mapped: Collection[str],
) -> Arrays:
    """Map ``Arrays`` in another process. Raises: DataError if the file has changed."""
    if path is None or not mapped:
        return Arrays(arrays)
    try:
        with open(path, "rb") as file:
            header = _read_header(file)
            if header.about != about:
                raise DamagedArrays("other contents")
            found = header.map(file)
            arrays |= {name: found[name] for name in mapped}
    except (OSError, DamagedArrays, KeyError) as error:
        raise DataError(
            f"{path}: wanted the index of labels from the start of the program, got none or "
            f"another ({error}); have the index or the labels changed? Start again"
        ) from error
    return Arrays(arrays, file=path, about=about, mapped=mapped)


def write_arrays(path: Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a file, complete or not at all.

    Args:
        about: a description of the content that ``json`` can store.

    Raises: WriteError if the file cannot be written.
    """
    ready = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    check = 0
    for array in ready.values():  # each with the padding up to the next
        check = zlib.crc32(bytes(-array.nbytes % _ALIGNMENT), zlib.crc32(_bytes_of(array), check))
    kinds = {name: [array.dtype.str, *array.shape] for name, array in ready.items()}
    text = json.dumps({"about": dict(about), "check": check, "arrays": kinds}).encode()
    text += b" " * (-(len(_MAGIC) + _LENGTH.size + len(text)) % _ALIGNMENT)
    with replacing(path, nameless=True, flush=False) as unfinished, open(unfinished, "wb") as file:
        file.write(_MAGIC + _LENGTH.pack(len(text)) + text)
        for array in ready.values():
            file.write(_bytes_of(array))
            file.write(bytes(-array.nbytes % _ALIGNMENT))


def _bytes_of(array: np.ndarray) -> memoryview:
    """Return the bytes of an array."""
    return array.reshape(-1).view(np.uint8).data


def open_arrays(path: Path, about: Mapping[str, Any], schema: Schema, bounds: Bounds) -> Arrays:
    """Map the arrays of a file after checking every byte.

    Args:
        about: the description that the file must contain.
        schema: dtype and number of columns of each array (0: it has one axis); an array may be
            missing.
        bounds: computes the lowest and highest value of some arrays from the lengths of all.

    Raises: DamagedArrays; OSError if the file cannot be read.
    """
    with open(path, "rb") as file:
        header = _read_header(file)
        if header.about != dict(about):
            raise DamagedArrays("for other content")
        for name, (dtype, *shape) in header.kinds.items():
            columns = shape[1] if len(shape) == 2 else 0
            if name not in schema or (dtype, columns) != schema[name]:
                raise DamagedArrays(f"unknown array {name}")
        header.check(file, bounds({name: kind[1] for name, kind in header.kinds.items()}))
        arrays = header.map(file)
    return Arrays(arrays, file=path, about=about, mapped=set(arrays))


class _Header:
    """Header of a file of arrays; ``starts`` are the positions of its arrays."""

    def __init__(self, about: Any, check: int, kinds: dict[str, list], begin: int):
        self.about, self.kinds, self._check = about, kinds, check
        self.starts: dict[str, int] = {}
        for name in kinds:
            self.starts[name] = begin
            begin += self._size(name)
            begin += -begin % _ALIGNMENT
        self.end = begin

    def _size(self, name: str) -> int:
        """Return the size of an array in bytes."""
        dtype, *shape = self.kinds[name]
        count = np.dtype(dtype).itemsize
        for side in shape:
            count *= side
        return count

    def check(self, file: BinaryIO, bounds: Mapping[str, tuple[float, float]]) -> None:
        """Check all numbers against their checksum and bounds. Raises: DamagedArrays."""
        check = 0
        for name, start in self.starts.items():
            file.seek(start)
            low, high = bounds.get(name, (None, None))
            left = self._size(name)
            while left:
                block = file.read(min(_BLOCK, left))
                if not block:
                    raise DamagedArrays("truncated")
                left -= len(block)
                check = zlib.crc32(block, check)
                if low is not None:
                    values = np.frombuffer(block, self.kinds[name][0])
                    if not (values.min() >= low and values.max() <= high):  # False for NaN
                        raise DamagedArrays(f"{name}: values out of range")
            check = zlib.crc32(file.read(-file.tell() % _ALIGNMENT), check)
        if check != self._check:
            raise DamagedArrays("wrong checksum")

    def map(self, file: BinaryIO) -> dict[str, np.ndarray]:
        """Map the arrays, read-only, in memory that all processes share."""
        memory = mmap.mmap(file.fileno(), self.end, access=mmap.ACCESS_READ)
        found = {}
        for name, (dtype, *shape) in self.kinds.items():
            count = self._size(name) // np.dtype(dtype).itemsize
            array = np.frombuffer(memory, dtype, count, self.starts[name] if count else 0)
            found[name] = array.reshape(shape)
        return found


def _read_header(file: BinaryIO) -> _Header:
    """Read the header of an open file and check the file's size. Raises: DamagedArrays."""
    start = file.read(len(_MAGIC) + _LENGTH.size)
    if len(start) < len(_MAGIC) + _LENGTH.size or not start.startswith(_MAGIC):
        raise DamagedArrays("another format")
    (length,) = _LENGTH.unpack(start[len(_MAGIC) :])
    if length > _MAX_HEADER_BYTES:
        raise DamagedArrays("a header too long")
    try:
        content = json.loads(file.read(length))
        kinds = content["arrays"]
        check, about = content["check"], content["about"]
        for kind in kinds.values():
            if kind[0] not in ("<i8", "<i4", "<f8", "<f4", "|u1") or len(kind) not in (2, 3):
                raise DamagedArrays("an array of another type")
            if not all(type(side) is int and 0 <= side <= _MOST_ENTRIES for side in kind[1:]):
                raise DamagedArrays("an array of an impossible size")
        if (len(start) + length) % _ALIGNMENT:
            raise DamagedArrays("wrong header length")
        header = _Header(about, check, kinds, len(start) + length)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise DamagedArrays(f"a damaged header: {error}") from error
    if file.seek(0, 2) != header.end:
        raise DamagedArrays("file size differs from the header")
    return header


def packed(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Pack strings into one array of bytes, and the end of each (n + 1,), starting with 0."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.concatenate([[0], np.cumsum([len(one) for one in encoded])]).astype(np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def unpacked(text: np.ndarray, ends: np.ndarray) -> list[str]:
    """Unpack the output of ``packed``. Raises: UnicodeDecodeError for other bytes."""
    whole, places = text.tobytes(), ends.tolist()
    return [
        whole[begin:end].decode("utf-8", "surrogatepass")
        for begin, end in zip(places, places[1:], strict=False)
    ]


def is_rising(ends: np.ndarray, last: int) -> bool:
    """Whether ``ends`` rise from 0 to ``last``."""
    return bool(len(ends) and ends[0] == 0 and ends[-1] == last and (np.diff(ends) >= 0).all())

"""Read and write MindSpore's ``.ckpt`` files as NumPy arrays by name, without MindSpore.

A file is a protocol buffer: one entry per parameter with its name, axes, element type and numbers.
MindSpore's own reader does not check these against each other; here every length is checked before
memory is allocated.

Source: ``mindspore/train/serialization.py`` and ``checkpoint.proto`` of MindSpore 2.8 to 2.10.
"""

import math
import mmap
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mindyolo_ext.checkpoint.limits import (
    MAX_AXES,
    MAX_FILE_BYTES,
    MAX_NAME_CHARACTERS,
    MAX_SIZE,
    MAX_TENSORS,
    MAX_TEXT_BYTES,
)
from mindyolo_ext.checkpoint.protobuf import (
    BYTES,
    VARINT,
    Buffer,
    bytes_field,
    bytes_head,
    fields,
    text,
    varint_field,
)
from mindyolo_ext.errors import CheckpointError, MissingFileError, shown

SLICE_BYTES = 512 << 20  # MindSpore splits the numbers of larger parameters
ELEMENT_TYPES = {
    "Bool": "bool",
    "Int8": "int8",
    "Int16": "int16",
    "Int32": "int32",
    "Int64": "int64",
    "UInt8": "uint8",
    "UInt16": "uint16",
    "UInt32": "uint32",
    "UInt64": "uint64",
    "Float16": "float16",
    "Float32": "float32",
    "Float64": "float64",
    "BFloat16": "bfloat16",
}
TEXT_TYPE = "str"  # four bytes per character
_TYPE_NAMES = {dtype: name for name, dtype in ELEMENT_TYPES.items()}
_CRC_MARK, _CRC_BYTES = b"crc_num", 17  # mark and a number of ten bytes, at the end of a file


@dataclass
class CkptContent:
    """The content of a ``.ckpt`` file.

    Args:
        arrays: name -> array, in the order of the file; bfloat16 is converted to float32.
        stored_dtypes: name -> element type in the file.
        texts: name -> text, for entries that do not hold numbers.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    stored_dtypes: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


@dataclass
class _Tensor:
    """One entry, or several that hold parts of one parameter."""

    name: str
    dims: tuple[int, ...]
    kind: str
    pieces: list[tuple[int, int]]

    @property
    def size(self) -> int:
        """Number of data bytes in the file."""
        return sum(end - begin for begin, end in self.pieces)


def read_ckpt(path: str | Path, *, max_bytes: int = MAX_FILE_BYTES) -> CkptContent:
    """Read all parameters of a ``.ckpt``.

    Args:
        max_bytes: maximum size of the file.

    Raises: FileNotFoundError; CheckpointError for a file that is damaged or declares more than it
        holds.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file, wanted a checkpoint")
    size = path.stat().st_size
    if size > max_bytes:
        raise CheckpointError(f"{path}: the file has {size} bytes, the limit is {max_bytes}")
    if size == 0:
        raise CheckpointError(f"{path}: the file is empty, wanted a .ckpt file")
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return _content(content, _checked_end(content))
    except (ValueError, OSError, MemoryError) as error:
        raise CheckpointError(f"{path}: damaged or not a .ckpt file ({error})") from error


def write_ckpt(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write ``arrays`` in the format that ``mindspore.load_checkpoint`` reads.

    Raises: ValueError for an element type or a shape that the format does not support.
    """
    with Path(path).open("wb") as stream:
        for name, array in arrays.items():
            _write_entry(stream, name, np.asarray(array, order="C"))


def _write_entry(stream: BinaryIO, name: str, array: np.ndarray) -> None:
    """Write one parameter, in several pieces if it is large."""
    kind = _TYPE_NAMES.get(array.dtype.name)
    if kind is None:
        known = ", ".join(sorted(_TYPE_NAMES))
        raise ValueError(f"parameter {name!r} is {array.dtype}, wanted one of {known}")
    if array.size == 0:
        raise ValueError(f"parameter {name!r} is {array.shape}, wanted at least one number")
    native = array.astype(array.dtype.newbyteorder("<"), copy=False)
    numbers = native.reshape(-1).view(np.uint8).data
    for begin in range(0, len(numbers), SLICE_BYTES):
        piece = numbers[begin : begin + SLICE_BYTES]
        head = b"".join(varint_field(1, length) for length in array.shape)
        head += bytes_field(2, kind.encode()) + bytes_head(3, len(piece))
        value = bytes_field(1, name.encode()) + bytes_head(2, len(head) + len(piece)) + head
        stream.write(bytes_head(1, len(value) + len(piece)) + value)
        stream.write(piece)


def _checked_end(content: mmap.mmap) -> int:
    """Return where the entries end. Raises: ValueError if the file has a checksum that differs."""
    end = len(content) - _CRC_BYTES
    if end < 0 or content[end : end + len(_CRC_MARK)] != _CRC_MARK:
        return len(content)
    with memoryview(content) as whole:
        found = zlib.crc32(whole[:end])
    wanted = int.from_bytes(content[end + len(_CRC_MARK) :], "big")
    if found != wanted:
        raise ValueError(f"its checksum is {found}, the file states {wanted}")
    return end


def _content(content: mmap.mmap, end: int) -> CkptContent:
    """Read the parameters in ``content[:end]``."""
    tensors: dict[str, _Tensor] = {}
    latest = ""
    for count, (number, wire_type, begin, stop) in enumerate(fields(content, 0, end)):
        if (number, wire_type) != (1, BYTES):
            raise ValueError(f"field {number} of wire type {wire_type} where a parameter should be")
        if count >= MAX_TENSORS:
            raise ValueError(f"more than {MAX_TENSORS} parameters")
        tensor = _entry(content, begin, stop)
        known = tensors.get(tensor.name)
        if known is None:
            tensors[tensor.name] = tensor
        elif tensor.name == latest and (tensor.dims, tensor.kind) == (known.dims, known.kind):
            known.pieces += tensor.pieces
        else:
            raise ValueError(f"duplicate parameter {tensor.name!r}")
        latest = tensor.name
    if not tensors:
        raise ValueError("it holds no parameters")
    result = CkptContent()
    for tensor in tensors.values():
        if tensor.kind == TEXT_TYPE:
            result.texts[tensor.name] = _as_text(content, tensor)
        else:
            result.arrays[tensor.name] = _as_array(content, tensor)
            result.stored_dtypes[tensor.name] = ELEMENT_TYPES[tensor.kind]
    return result


def _entry(content: mmap.mmap, begin: int, end: int) -> _Tensor:
    """Read the entry in ``content[begin:end]``: a name and a tensor."""
    found = _once(content, begin, end, {1: "name", 2: "tensor"})
    if found.keys() != {1, 2}:
        raise ValueError("a parameter lacks its name or its numbers")
    name = text(content, *found[1], most=MAX_NAME_CHARACTERS)
    dims: list[int] = []
    try:
        parts = _once(content, *found[2], {2: "element type", 3: "content"}, dims)
        if parts.keys() != {2, 3}:
            raise ValueError("no element type or no content")
        kind = text(content, *parts[2], most=64)
        if kind != TEXT_TYPE and kind not in ELEMENT_TYPES:
            raise ValueError(f"element type {shown(kind)!r}, known are {', '.join(ELEMENT_TYPES)}")
    except ValueError as error:
        raise ValueError(f"parameter {name!r}: {error}") from error
    return _Tensor(name, tuple(dims), kind, [parts[3]])


def _once(
    content: Buffer, begin: int, end: int, names: dict[int, str], dims: list[int] | None = None
) -> dict[int, tuple[int, int]]:
    """Map field numbers to (begin, end) of their content, for the fields in ``names``, each at most
    once. Numbers of field 1 are added to ``dims`` if it is given.
    """
    found: dict[int, tuple[int, int]] = {}
    for number, wire_type, first, second in fields(content, begin, end):
        if dims is not None and (number, wire_type) == (1, VARINT):
            if first > MAX_SIZE:
                raise ValueError(f"an axis of length {first - (1 << 64)}, wanted at least 0")
            if len(dims) >= MAX_AXES:
                raise ValueError(f"more than {MAX_AXES} axes")
            dims.append(first)
        elif number not in names or wire_type != BYTES:
            raise ValueError(f"field {number} of wire type {wire_type} is unknown")
        elif number in found:
            raise ValueError(f"duplicate {names[number]}")
        else:
            found[number] = (first, second)
    return found


def _as_array(content: mmap.mmap, tensor: _Tensor) -> np.ndarray:
    """Return a copy of the numbers of ``tensor``. Raises: ValueError if their count does not fit
    its axes.
    """
    stored = ELEMENT_TYPES[tensor.kind]
    dtype = np.dtype("uint16" if stored == "bfloat16" else stored).newbyteorder("<")
    shape = tensor.dims
    if shape == (0,) and tensor.size == dtype.itemsize:  # how older programs write a scalar
        shape = ()
    wanted = math.prod(shape) * dtype.itemsize
    if tensor.size != wanted:
        raise ValueError(
            f"parameter {tensor.name!r} holds {tensor.size} bytes, {stored} {list(tensor.dims)} "
            f"needs {shown(wanted)}"
        )
    numbers = np.empty(wanted, np.uint8)
    filled = 0
    for begin, end in tensor.pieces:
        numbers[filled : filled + end - begin] = np.frombuffer(content[begin:end], np.uint8)
        filled += end - begin
    if stored == "bool" and numbers.max(initial=0) > 1:
        raise ValueError(f"parameter {tensor.name!r} holds booleans other than 0 and 1")
    array = numbers.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
    return from_bfloat16(array) if stored == "bfloat16" else array


def _as_text(content: mmap.mmap, tensor: _Tensor) -> str:
    """Return the text that an entry holds in place of numbers."""
    if len(tensor.pieces) > 1:
        raise ValueError(f"duplicate parameter {tensor.name!r}")
    begin, end = tensor.pieces[0]
    if end - begin > MAX_TEXT_BYTES:
        raise ValueError(
            f"{tensor.name!r} is a text of {end - begin} bytes, the limit is {MAX_TEXT_BYTES}"
        )
    try:
        return bytes(content[begin:end]).decode("utf-32-le").rstrip("\0")
    except UnicodeDecodeError as error:
        raise ValueError(f"{tensor.name!r} is not text ({error.reason})") from error


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Convert bfloat16 numbers, given as uint16, to float32."""
    return np.asarray(bits.astype(np.uint32) << np.uint32(16)).view(np.float32)

"""Read and write ``.safetensors`` files as NumPy arrays by name.

Reading is implemented here, because the library's NumPy interface lacks bfloat16 and has no memory
limit; the library writes the files.

Source: https://huggingface.co/docs/safetensors.
"""

import json
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.checkpoint.ckpt_file import from_bfloat16
from mindyolo_ext.checkpoint.limits import (
    MAX_AXES,
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    MAX_NAME_CHARACTERS,
    MAX_SIZE,
    MAX_TENSORS,
)
from mindyolo_ext.errors import CheckpointError, MissingFileError, shown

ELEMENT_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


@dataclass
class SafetensorsContent:
    """The content of a ``.safetensors`` file.

    Args:
        arrays: name -> array, in the order of the header; bfloat16 is converted to float32.
        stored_dtypes: name -> element type in the file.
        metadata: texts by name.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    stored_dtypes: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def read_safetensors(path: str | Path, *, max_bytes: int = MAX_FILE_BYTES) -> SafetensorsContent:
    """Read all tensors of a ``.safetensors`` file.

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
    try:
        if size < 10:
            raise ValueError(f"{size} bytes are too few")
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return _content(content)
    except (ValueError, OSError, MemoryError, RecursionError) as error:
        raise CheckpointError(f"{path}: a broken safetensors file ({error})") from error


def write_safetensors(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write ``arrays`` and ``metadata``; the format defines the order of the names.

    Raises: OSError if the file cannot be written.
    """
    from safetensors.numpy import save

    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # ``save_file`` would write a temporary file beside ``path`` that stays if the process is killed
    Path(path).write_bytes(save(ordered, metadata=dict(metadata)))


def _content(content: mmap.mmap) -> SafetensorsContent:
    """Read the tensors and the metadata of a file."""
    (length,) = struct.unpack_from("<Q", content)
    if length > min(len(content) - 8, MAX_HEADER_BYTES):
        raise ValueError(
            f"a header of {length} bytes, wanted at most {min(len(content) - 8, MAX_HEADER_BYTES)}"
        )
    header = json.loads(content[8 : 8 + length].decode("utf-8"), object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError(f"the header is a {type(header).__name__}, wanted a mapping")
    texts = header.pop("__metadata__", {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("__metadata__ is not a mapping of strings")
    if len(header) > MAX_TENSORS:
        raise ValueError(f"{len(header)} tensors, the limit is {MAX_TENSORS}")
    for part in (*header, *texts, *texts.values()):
        part.encode()  # refuses lone surrogates
    result = SafetensorsContent(metadata=texts)
    places = {name: _place(name, item) for name, item in header.items()}
    _check_places(places, len(content) - 8 - length)
    for name, (stored, shape, begin, end) in places.items():
        raw = content[8 + length + begin : 8 + length + end]
        result.arrays[name] = _as_array(name, raw, stored, shape)
        result.stored_dtypes[name] = stored
    return result


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a mapping from ``pairs``. Raises: ValueError for a duplicate key."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"duplicate key {shown(key)!r}")
        result[key] = value
    return result


def _place(name: str, item: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Read (element type, shape, begin, end) of a tensor from its entry in the header."""
    if len(name) > MAX_NAME_CHARACTERS:
        raise ValueError(f"a name of {len(name)} characters, the limit is {MAX_NAME_CHARACTERS}")
    if not isinstance(item, dict) or item.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} lacks its dtype, shape or data_offsets")
    kind, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(kind, str) or kind not in ELEMENT_TYPES:
        known = ", ".join(ELEMENT_TYPES)
        raise ValueError(f"tensor {name!r} is {shown(kind, 40)}, wanted one of {known}")
    for what, numbers, most in (("shape", shape, MAX_AXES), ("data_offsets", offsets, 2)):
        if (
            not isinstance(numbers, list)
            or len(numbers) > most
            or not all(type(number) is int and 0 <= number <= MAX_SIZE for number in numbers)
        ):
            raise ValueError(f"tensor {name!r}: its {what} are not whole numbers >= 0 of 64 bits")
    if len(offsets) != 2:
        raise ValueError(f"tensor {name!r}: its data_offsets are not two numbers")
    stored = ELEMENT_TYPES[kind]
    wanted = math.prod(shape) * (2 if stored == "bfloat16" else np.dtype(stored).itemsize)
    if offsets[1] - offsets[0] != wanted:
        raise ValueError(
            f"tensor {name!r} has {offsets[1] - offsets[0]} bytes, {stored} {shape} needs "
            f"{shown(wanted)}"
        )
    return stored, tuple(shape), offsets[0], offsets[1]


def _check_places(places: Mapping[str, tuple[str, tuple[int, ...], int, int]], size: int) -> None:
    """Check that the tensors cover each of the ``size`` bytes after the header exactly once.
    Raises: ValueError.
    """
    filled = 0
    for name, (_, _, begin, end) in sorted(places.items(), key=lambda item: item[1][2:]):
        if end > size:
            raise ValueError(f"tensor {name!r} lies outside the file")
        if begin != filled:
            raise ValueError(f"tensor {name!r} begins at byte {begin}, wanted {filled}")
        filled = end
    if filled != size:
        raise ValueError(f"{size - filled} bytes at the end belong to no tensor")


def _as_array(name: str, raw: bytes, stored: str, shape: tuple[int, ...]) -> np.ndarray:
    """Copy a tensor's numbers to an array."""
    code = np.dtype("uint16" if stored == "bfloat16" else stored).newbyteorder("<")
    array = np.frombuffer(raw, code).reshape(shape)
    if stored == "bfloat16":
        return from_bfloat16(array)
    if stored == "bool" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
        raise ValueError(f"tensor {name!r} holds booleans other than 0 and 1")
    return array.astype(code.newbyteorder("="))

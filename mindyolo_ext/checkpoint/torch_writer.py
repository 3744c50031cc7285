"""Write checkpoints that PyTorch loads, without PyTorch.

Uses the zip layout of ``torch.save`` since 1.6, with only an ordered dict of tensors and plain
values, so that ``torch.load(..., weights_only=True)`` accepts it. Equal input gives equal bytes.
"""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.atomic import replacing
from mindyolo_ext.errors import CheckpointError

_STORAGE_TYPES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
_ROOT = "archive"
_DATE = (1980, 1, 1, 0, 0, 0)


def write_torch_checkpoint(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    *,
    wrap: str | None = None,
    beside: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write ``tensors`` as a PyTorch checkpoint, complete or not at all.

    Args:
        path: usually ends in ``.pth`` or ``.pt``; its folder is created if needed.
        tensors: name -> array (0-dimensional ones included), in state-dict order.
        wrap: put the state dict under this entry (``model``, ``state_dict``, ``ema``) instead of at
            the top level.
        beside: further top-level entries (None, numbers, text); requires ``wrap``.
        half: store floating-point numbers in half precision.

    Raises: CheckpointError for an element type PyTorch has no storage for; ValueError for
        ``beside`` without ``wrap``.
    """
    if beside and not wrap:
        raise ValueError(
            f"write_torch_checkpoint: {', '.join(beside)} beside a bare state dict, wanted wrap"
        )
    path = Path(path)
    arrays: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        array = np.asarray(array)
        array = array.astype(np.float16) if half and array.dtype.kind == "f" else array
        if array.dtype.name not in _STORAGE_TYPES:
            raise CheckpointError(
                f"{path}: tensor {name!r} is {array.dtype}, wanted one of "
                + ", ".join(_STORAGE_TYPES)
            )
        arrays[name] = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    with (
        replacing(path, nameless=True) as unfinished,
        zipfile.ZipFile(unfinished, "w") as archive,
    ):
        _put(archive, "data.pkl", _object(arrays, wrap, beside or {}))
        _put(archive, "byteorder", b"little")
        for index, array in enumerate(arrays.values()):
            _put(archive, f"data/{index}", array.tobytes())
        _put(archive, "version", b"3\n")


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Write one uncompressed entry with a fixed date."""
    archive.writestr(zipfile.ZipInfo(f"{_ROOT}/{name}", _DATE), content)


def _object(arrays: Mapping[str, np.ndarray], wrap: str | None, beside: Mapping[str, Any]) -> bytes:
    """Write the pickle (protocol 2) of an ordered dict of tensors, opcode by opcode."""
    parts = [b"\x80\x02"]
    if wrap:
        parts += [b"}"]
        for name, value in beside.items():
            parts += [_text(name), _plain(value), b"s"]
        parts += [_text(wrap)]
    parts += [b"ccollections\nOrderedDict\n)R("]
    for index, (name, array) in enumerate(arrays.items()):
        parts += [_text(name), _tensor(str(index), array)]
    parts += [b"u"] + ([b"s"] if wrap else []) + [b"."]
    return b"".join(parts)


def _tensor(key: str, array: np.ndarray) -> bytes:
    """Write ``_rebuild_tensor_v2(storage, 0, shape, stride, False, OrderedDict())``."""
    storage = b"".join(
        [
            b"(",
            _text("storage"),
            b"ctorch\n",
            _STORAGE_TYPES[array.dtype.name].encode(),
            b"\n",
            _text(key),
            _text("cpu"),
            _integer(array.size),
            b"tQ",
        ]
    )
    stride = [step // array.itemsize for step in array.strides]
    return b"".join(
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            storage,
            _integer(0),
            _integers(array.shape),
            _integers(stride),
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
    )


def _plain(value: None | bool | int | float | str) -> bytes:
    """Write NONE, NEWTRUE, NEWFALSE, an integer, BINFLOAT or text."""
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    return _text(value) if isinstance(value, str) else _integer(value)


def _text(value: str) -> bytes:
    """Write BINUNICODE."""
    content = value.encode("utf-8")
    return b"X" + struct.pack("<I", len(content)) + content


def _integer(value: int) -> bytes:
    """Write BININT, or LONG1 beyond 31 bits."""
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def _integers(values: tuple[int, ...] | list[int]) -> bytes:
    """Write a tuple of integers."""
    return b"(" + b"".join(_integer(value) for value in values) + b"t"

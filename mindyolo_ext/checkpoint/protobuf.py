"""Read and write the wire format of protocol buffers without the library or a schema.

Supports only what files of weights need: varints and length-delimited fields. Nothing is copied
before its length is checked.
"""

import mmap
from collections.abc import Iterator
from typing import TypeAlias

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types

Buffer: TypeAlias = bytes | mmap.mmap | memoryview
Field: TypeAlias = tuple[int, int, int, int]


def fields(buffer: Buffer, begin: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message in ``buffer[begin:end]`` in the order of the file.

    Yields: field number, wire type, and two numbers: value and end of a varint, or begin and end of
        any other field's content.
    Raises: ValueError for a field that is cut off, runs past ``end``, or has an unknown wire type.
    """
    place = begin
    while place < end:
        key, place = _varint(buffer, place, end)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise ValueError("field number 0 does not exist")
        if wire_type == VARINT:
            value, place = _varint(buffer, place, end)
            yield number, wire_type, value, place
            continue
        if wire_type == BYTES:
            size, place = _varint(buffer, place, end)
        elif wire_type in (FIXED32, FIXED64):
            size = 4 if wire_type == FIXED32 else 8
        else:
            raise ValueError(f"field {number} has the unknown wire type {wire_type}")
        if size > end - place:
            raise ValueError(f"field {number} needs {size} bytes, {end - place} are left")
        yield number, wire_type, place, place + size
        place += size


def text(buffer: Buffer, begin: int, end: int, *, most: int) -> str:
    """Decode ``buffer[begin:end]`` as text. Raises: ValueError if it is not UTF-8 or longer than
    ``most`` bytes.
    """
    if end - begin > most:
        raise ValueError(f"a text of {end - begin} bytes, at most {most} are wanted")
    try:
        return bytes(buffer[begin:end]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"a text that is not UTF-8 ({error.reason})") from error


def varint_field(number: int, value: int) -> bytes:
    """Encode a field with an integer >= 0."""
    return _as_varint(number << 3 | VARINT) + _as_varint(value)


def bytes_field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field."""
    return bytes_head(number, len(content)) + content


def bytes_head(number: int, size: int) -> bytes:
    """Encode the head of a length-delimited field of ``size`` bytes."""
    return _as_varint(number << 3 | BYTES) + _as_varint(size)


def _varint(buffer: Buffer, place: int, end: int) -> tuple[int, int]:
    """Return value and end of the varint at ``place``; at most 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise ValueError("a number is truncated")
        byte = buffer[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, place
    raise ValueError("a number has more than 64 bits")


def _as_varint(value: int) -> bytes:
    """Encode ``value`` >= 0 with seven bits per byte, the lowest first."""
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)

"""``.safetensors`` and MindSpore's ``.ckpt``, with and without our metadata."""

import json
import struct
import zlib
from random import Random
from typing import Any

from ..mutate import LENGTHS, TEXTS, Files, dumps, mutate_bytes, mutate_tree, sometimes_damaged

TYPES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1, "BOOL": 1, "F64": 8}
METADATA: dict[str, Any] = {
    "model": "yolo_fastestv2",
    "num_classes": 1,
    "class_names": ["cat"],
    "input_spec": {"size": [352, 352]},
    "architecture": {"anchors": [[12.0, 16.0], [19.0, 36.0]]},
    "epoch": 3,
    "metrics": {"AP": 0.25},
    "source": {"file": "a.pth", "sha256": "0" * 64},
    "extra": {"part": {"name": "backbone"}, "thresholds": None},
    "version": "1.0",
    "format": 1,
}


def metadata(random: Random, sound: bool, **more: Any) -> bytes:
    """Our metadata as JSON, without a digest, as in older files, so that a change is not refused at
    once.
    """
    values = {**METADATA, **more}
    return (
        json.dumps(values).encode()
        if sound
        else dumps(mutate_tree(random, values, raw=True), random)
    )


# ---- safetensors ---------------------------------------------------------------------------------


def safetensors_file(random: Random, sound: bool) -> Files:
    header: dict[str, Any] = {}
    filled = 0
    for index in range(random.randint(1, 4)):
        kind = random.choice(list(TYPES))
        shape = [random.choice((1, 2, 3)) for _ in range(random.choice((0, 1, 2, 4)))]
        size = TYPES[kind]
        for side in shape:
            size *= side
        offsets = [filled, filled + size]
        header[f"layer.{index}.weight"] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
        filled += size
    if random.random() < 0.5:
        text = metadata(random, sound or random.random() < 0.5, count=len(header), order=[*header])
        header["__metadata__"] = {"mindyolo_ext": text.decode("utf-8", "replace")}
    content = json.dumps(header).encode()
    length = len(content)
    if not sound and random.random() < 0.6:
        content = dumps(mutate_tree(random, header, raw=True), random)
        length = len(content)
        if random.random() < 0.2:
            length = random.choice((*LENGTHS, length - 1, length + 1)) % 2**64
    numbers = (
        bytes(filled) if sound else bytes(max(0, filled + random.choice((0, 0, 0, -1, 1, 99))))
    )
    whole = struct.pack("<Q", length) + content + numbers
    return {"weights.safetensors": whole if sound else sometimes_damaged(random, whole)}


# ---- .ckpt: fields of (number, wire type, content), a content may be a list of fields ------------

Fields = list[tuple[int, int, Any]]
KINDS = {"Float32": 4, "Float16": 2, "BFloat16": 2, "Int64": 8, "UInt8": 1, "Bool": 1, "str": 4}


def ckpt_file(random: Random, sound: bool) -> Files:
    entries = [
        _parameter(f"backbone.{index}.weight", random.choice(list(KINDS)), random)
        for index in range(random.randint(1, 4))
    ]
    entries.append(_parameter("head.weight", "Float32", random))
    if random.random() < 0.5:
        count = sum(entry[2][1][2][-2][2] != b"str" for entry in entries)
        text = metadata(random, sound or random.random() < 0.4, count=count)
        tensor = [(1, 0, len(text)), (2, 2, b"UInt8"), (3, 2, text)]
        entries.insert(0, (1, 2, [(1, 2, b"__metadata__"), (2, 2, tensor)]))
    if sound:
        return {"weights.ckpt": encoded(entries)}
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        _change_field(random, entries)
    content = encoded(entries, random if random.random() < 0.3 else None)
    if random.random() < 0.2:
        checksum = zlib.crc32(content) ^ random.choice((0, 0, 1))
        content += b"crc_num" + checksum.to_bytes(10, "big")
    return {"weights.ckpt": sometimes_damaged(random, content)}


def _parameter(name: str, kind: str, random: Random) -> tuple[int, int, Any]:
    shape = [random.choice((1, 2, 3)) for _ in range(random.choice((1, 2, 4)))]
    size = KINDS[kind]
    for side in shape:
        size *= side
    tensor = [*((1, 0, side) for side in shape), (2, 2, kind.encode()), (3, 2, bytes(size))]
    return 1, 2, [(1, 2, name.encode()), (2, 2, tensor)]


def encoded(message: Fields, random: Random | None = None) -> bytes:
    """The wire format; with ``random``, a length or a key is sometimes wrong."""
    result = b""
    for number, wire, content in message:
        key = number << 3 | wire
        if random and random.random() < 0.03:
            key = random.choice((0, key ^ 1, key ^ 4, key | 7, *LENGTHS))
        body = encoded(content, random) if isinstance(content, list) else content
        if wire == 2:
            size = len(body)
            if random and random.random() < 0.05:
                size = random.choice((*LENGTHS, size + 1, max(0, size - 1)))
            result += varint(key) + varint(size) + body
        else:
            result += varint(key) + varint(body)
        if random and random.random() < 0.02:
            result += b"\x80" * random.choice((1, 9, 10, 1000))
    return result


def mindir_file(random: Random, sound: bool) -> Files:
    """The metadata of ``mindyolo-ext export`` in a MindIR file, which only ``info`` reads."""
    thresholds = {"values": [0.1] * 11, "pictures": 3, "size": [64, 64], "data": "x"}
    thresholds |= {"lowest": 0.0, "highest": 1.0}
    texts = {"model": "dy_yolov7", "num_classes": "2", "holds": "easy", "version": "1.0"}
    content = json.dumps(thresholds).encode()
    if not sound and random.random() < 0.5:
        content = dumps(mutate_tree(random, thresholds, raw=True), random)
    entries = {name: text.encode() for name, text in texts.items()}
    entries |= {"thresholds": content, "class_names": b'["cat", "dog"]'}
    message: Fields = [(1, 2, b"0.1.0"), (2, 2, b"MindSpore")]
    message += [(14, 2, [(1, 2, name.encode()), (2, 2, e)]) for name, e in entries.items()]
    if sound:
        return {"weights.mindir": encoded(message)}
    for _ in range(random.choice((0, 1, 1, 2))):
        _change_field(random, message)
    content = encoded(message, random if random.random() < 0.2 else None)
    return {"weights.mindir": sometimes_damaged(random, content)}


def varint(value: int) -> bytes:
    result = b""
    while value >= 0x80:
        result, value = result + bytes([value & 0x7F | 0x80]), value >> 7
    return result + bytes([value])


def _change_field(random: Random, message: Fields) -> None:
    """Remove, repeat or change one field somewhere below ``message``."""
    row = random.randrange(len(message))
    number, wire, content = message[row]
    if isinstance(content, list) and content and random.random() < 0.85:
        return _change_field(random, content)
    kind = random.randrange(6)
    if kind == 0:
        if len(message) > 1:
            del message[row]
    elif kind == 1:
        message[row:row] = [message[row]] * random.choice((1, 2, 40, 3000))
    elif kind == 2:
        message[row] = (random.choice((number + 1, 15, 2**29)), wire, content)
    elif kind == 3:
        random.shuffle(message)
    elif wire == 0:
        message[row] = (number, wire, random.choice((*LENGTHS, 3, 2**64 - 1)))
    else:
        body = encoded(content) if isinstance(content, list) else content
        texts = [text.encode("utf-8", "surrogatepass") for text in TEXTS]
        new = random.choice((*texts, *map(str.encode, KINDS), mutate_bytes(random, body or b"\0")))
        message[row] = (number, wire, new)
    return None

"""PNG, JPEG, BMP, TIFF and WebP files whose headers are wrong."""

import struct
import zlib
from functools import cache
from random import Random

import cv2
import numpy as np

from ..mutate import LENGTHS, Files, mutate_bytes, sometimes_damaged

NAMES = ("000001", "000002")
SIDES = (0, 1, 3, 1000, 30_000, 65_535, 65_536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
SUFFIXES = (".png", ".png", ".jpg", ".jpg", ".bmp", ".tif", ".webp")


@cache
def picture(suffix: str = ".png", height: int = 6, width: int = 8) -> bytes:
    """A valid image file."""
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def photos(random: Random, folder: str, sound: bool) -> Files:
    """Two images, sometimes one of them damaged."""
    files = {f"{folder}/{name}.png": picture() for name in NAMES}
    if not sound and random.random() < 0.05:
        files[f"{folder}/{NAMES[0]}.png"] = next(iter(image_file(random, False).values()))
    return files


def image_file(random: Random, sound: bool) -> Files:
    suffix = random.choice(SUFFIXES)
    content = picture(suffix, random.choice((1, 6, 40)), random.choice((1, 8, 40)))
    if not sound:
        change = {".png": _png, ".jpg": _jpeg, ".bmp": _bmp}.get(suffix, mutate_bytes)
        content = change(random, content)
        if random.random() < 0.05:
            suffix = random.choice(SUFFIXES)
        content = sometimes_damaged(random, content)
    return {f"photo{suffix}": content}


def _png(random: Random, content: bytes) -> bytes:
    """The chunks of a PNG, mutated; most checksums are valid."""
    chunks, place = [], 8
    while place + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += 12 + size
    kind = random.randrange(6)
    if kind == 0:
        head = bytearray(chunks[0][1])
        struct.pack_into(">II", head, 0, random.choice(SIDES), random.choice(SIDES))
        chunks[0] = (b"IHDR", bytes(head))
    elif kind == 1:
        chunks[0] = (b"IHDR", mutate_bytes(random, chunks[0][1]))
    elif kind == 2:
        row = random.randrange(len(chunks))
        chunks[row] = (chunks[row][0], mutate_bytes(random, chunks[row][1] or b"\0"))
    elif kind == 3:
        chunks.insert(1, (b"eXIf", _exif(random)))
    elif kind == 4:
        text = b"Comment\0\0" + zlib.compress(bytes(random.choice((10, 1 << 22))))
        chunks.insert(1, (random.choice((b"zTXt", b"iCCP", b"iTXt")), text))
    else:
        random.shuffle(chunks)
    result = content[:8]
    for name, body in chunks:
        size = random.choice(LENGTHS) % 2**32 if random.random() < 0.05 else len(body)
        checksum = zlib.crc32(name + body) ^ (random.random() < 0.05)
        result += struct.pack(">I", size) + name + body + struct.pack(">I", checksum)
    return result


def _jpeg(random: Random, content: bytes) -> bytes:
    """The segments of a JPEG, mutated: frame sizes, EXIF blocks, lengths."""
    data = bytearray(content)
    frame = content.find(b"\xff\xc0")
    kind = random.randrange(5)
    if kind == 0:
        height, width = (random.choice(SIDES) % 65_536 for _ in "hw")
        struct.pack_into(">HH", data, frame + 5, height, width)
    elif kind == 1:
        block = b"Exif\0\0" + _exif(random)
        length = random.choice((len(block) + 2,) * 5 + (0, 1, 2, 65_535))
        data[2:2] = b"\xff\xe1" + struct.pack(">H", length) + block
    elif kind == 2:
        data[frame + 2 : frame + 19] = mutate_bytes(random, bytes(data[frame + 2 : frame + 19]))
    elif kind == 3:
        data[2:2] = b"\xff" * random.choice((1, 2, 100_000))
    else:
        segment = b"\xff" + bytes([random.randrange(0xC0, 0x100)]) + struct.pack(">H", 2)
        data[2:2] = segment * random.choice((1, 50_000))
    return bytes(data)


def _exif(random: Random) -> bytes:
    """A block of tags with an orientation, whose counts and offsets may be wrong."""
    order = random.choice("<>")
    count = random.choice((1, 1, 1, 0, 2, 65_535))
    start = random.choice((8, 8, 8, 0, 7, 2**31, 2**32 - 1))
    orientation = random.choice((*range(1, 9), 0, 9, 65_535))
    kind, number = random.choice(((3, 1), (3, 1), (4, 1), (3, 2**31), (99, 1)))
    tag = struct.pack(order + "HHIHH", 0x0112, kind, number, orientation, 0)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    block = head + struct.pack(order + "H", count) + tag + bytes(4)
    return block[: random.randrange(len(block))] if random.random() < 0.2 else block


def _bmp(random: Random, content: bytes) -> bytes:
    """The header of a BMP with one field at a limit."""
    data = bytearray(content)
    place, width = random.choice(
        ((2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (46, 4))
    )
    number = random.choice((*SIDES, *LENGTHS)) % 256**width
    data[place : place + width] = number.to_bytes(width, "little")
    return bytes(data)

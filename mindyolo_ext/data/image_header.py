"""Read size, orientation and bit depth of an image from its header, without decoding anything.

Supports BMP, JPEG, PNG, TIFF and WebP. Every number of the file is checked before it is used. The
work is bounded: at most ``_MOST_PARTS`` segments, chunks or stray bytes are visited, and only the
EXIF block is read as a whole.
"""

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

FORMATS = "BMP, JPEG, PNG, TIFF or WebP"
TIFF_CODE = {1: "B", 3: "H", 4: "I", 16: "Q"}  # struct codes of the integers in a TIFF
_MOST_PARTS = 100_000
_LONGEST_EXIF = 1 << 16
_ORIENTATION = 0x0112
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers that carry the size
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}  # JPEG markers without a body
_LOGARITHMIC = (32844, 32845)  # values of TIFF's tag for the color space
_STILL = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # chunks of a PNG
_FOREIGN = (
    (0, b"GIF8", "a GIF"),
    (4, b"ftyphei", "a HEIC picture"),
    (4, b"ftypmif", "a HEIF picture"),
    (4, b"ftypavi", "an AVIF picture"),
    (4, b"jP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"8BPS", "a Photoshop picture"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the picture"),
    (0, b"<", "a web page or another text of tags"),
)


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file.

    Args:
        kind: ``BMP``, ``JPEG``, ``PNG``, ``TIFF`` or ``WebP``.
        height, width: in pixels, as stored.
        orientation: EXIF's 1..8; 5 to 8 swap height and width.
        bits: per channel.
        problem: why the pixels are not a photo of 8 or 16 bits; empty if they are.
        largest_part: pixels of the largest block that a decoder holds in addition to the image.
        frame: byte at which a JPEG's own frame begins, after any preview.
        breaks_off: whether a PNG has no end, or a chunk that extends beyond the end of the file.
    """

    kind: str
    height: int
    width: int
    orientation: int = 1
    bits: int = 8
    problem: str = ""
    largest_part: int = 0
    frame: int = 0
    breaks_off: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) after applying the orientation."""
        size = self.height, self.width
        return size[::-1] if self.orientation >= 5 else size


def read_header(file: BinaryIO) -> ImageHeader | None:
    """Read the header of an open image file; None if it is invalid or of another format."""
    file.seek(0)
    start = file.read(32)
    file.seek(0)
    try:
        if start[:2] == b"\xff\xd8":
            header = _read_jpeg(file)
        elif start[:8] == b"\x89PNG\r\n\x1a\n":
            header = _read_png(file)
        elif start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            header = _read_webp(file)
        elif start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            header = _read_tiff(file)
        elif start[:2] == b"BM":
            header = _read_bmp(file)
        else:
            return None
    except (struct.error, OverflowError, ValueError):  # a position beyond the end or beyond 64 bits
        return None
    return header if header is not None and min(header.height, header.width) > 0 else None


def foreign_kind(start: bytes) -> str:
    """Guess what a file of none of ``FORMATS`` is, by its first bytes; empty if unknown."""
    for offset, sign, kind in _FOREIGN:
        if start[offset:].startswith(sign):
            return kind
    return ""


def _unpack(file: BinaryIO, code: str) -> tuple:
    return struct.unpack(code, file.read(struct.calcsize(code)))


def _read_jpeg(file: BinaryIO) -> ImageHeader | None:
    orientation = 0
    for marker, length in _jpeg_segments(file):
        if marker in _START_OF_FRAME:
            frame = file.tell()
            bits, height, width = _unpack(file, ">BHH")
            problem = "" if bits == 8 else f"a JPEG of {bits} bits"
            return ImageHeader("JPEG", height, width, orientation or 1, bits, problem, frame=frame)
        if marker == 0xE1 and not orientation:
            body = file.read(length)
            if body[:6] == b"Exif\0\0":
                orientation = exif_orientation(body[6:])
    return None


def _jpeg_segments(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield (marker, bytes of the body) of the segments before the pixels, with the file positioned
    at the body.

    Like every decoder, skips stray bytes between segments.
    """
    file.seek(2)
    before = b""
    for _ in range(_MOST_PARTS):
        byte = file.read(1)
        if not byte or (before == b"\xff" and byte in b"\xd9\xda"):
            return
        if before != b"\xff" or byte in b"\xff\0" or byte[0] in _WITHOUT_LENGTH:
            before = byte
            continue
        (length,) = _unpack(file, ">H")
        begin, before = file.tell(), b""
        yield byte[0], max(length - 2, 0)
        file.seek(begin + max(length - 2, 0))


def _read_png(file: BinaryIO) -> ImageHeader | None:
    size = file.seek(0, os.SEEK_END)
    shape, orientation, breaks_off, name = None, 1, False, b""
    for name, begin, length in _png_chunks(file):
        breaks_off |= (
            begin + length + 4 > size
        )  # OpenCV allocates the declared length before reading
        if name == b"IHDR" and shape is None:
            shape = _unpack(file, ">IIB")
        elif name == b"eXIf":
            orientation = exif_orientation(file.read(min(length, _LONGEST_EXIF)))
    if shape is None:
        return None
    width, height, bits = shape
    breaks_off |= name != b"IEND"
    return ImageHeader("PNG", height, width, orientation, bits, breaks_off=breaks_off)


def still_png(data: bytes) -> bytes:
    """Remove all chunks of a PNG except those of a still image: OpenCV 4.11 crashes on damaged
    animations.
    """
    parts = [
        data[begin - 8 : begin + length + 4]
        for name, begin, length in _png_chunks(io.BytesIO(data))
        if name in _STILL
    ]
    return b"".join([data[:8], *parts])


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, first byte and length of all chunks, with the file positioned at that byte."""
    place = 8
    for _ in range(_MOST_PARTS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head)
        yield name, place + 8, length
        if name == b"IEND":
            return
        place += length + 12


def _read_webp(file: BinaryIO) -> ImageHeader | None:
    file.seek(12)
    size, orientation = None, 1
    for _ in range(_MOST_PARTS):
        head = file.read(8)
        if len(head) < 8:
            break
        name, length = struct.unpack("<4sI", head)
        begin = file.tell()
        if size is None:
            size = _webp_size(file, name)
        if name == b"EXIF":
            body = file.read(min(length, _LONGEST_EXIF))
            orientation = exif_orientation(body.removeprefix(b"Exif\0\0"))
        file.seek(begin + length + length % 2)
    return ImageHeader("WebP", *size, orientation) if size else None


def _webp_size(file: BinaryIO, name: bytes) -> tuple[int, int] | None:
    """Read (height, width) from the body of a chunk, at which the file is positioned."""
    if name == b"VP8X":
        _, low_w, high_w, low_h, high_h = _unpack(file, "<IHBHB")
        return (low_h | high_h << 16) + 1, (low_w | high_w << 16) + 1
    if name == b"VP8L":
        _, packed = _unpack(file, "<BI")
        return (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1
    if name == b"VP8 ":
        _, _, width, height = _unpack(file, "<3s3sHH")
        return height & 0x3FFF, width & 0x3FFF
    return None


def _read_bmp(file: BinaryIO) -> ImageHeader | None:
    file.seek(14)
    (length,) = _unpack(file, "<I")
    width, height = _unpack(file, "<HH" if length == 12 else "<ii")
    return ImageHeader("BMP", abs(height), width)


def _read_tiff(file: BinaryIO) -> ImageHeader | None:
    tags = _tiff_tags(file)
    if 256 not in tags or 257 not in tags:
        return None
    width, height, bits, form = tags[256], tags[257], tags.get(258, 1), tags.get(339, 1)
    tile = tags.get(322, width) * tags.get(323, height)
    kind = {2: "signed numbers", 3: "floating-point numbers"}.get(form, "numbers")
    usual = form in (1, 4) and bits in (1, 2, 4, 8, 16)
    if tags.get(262) in _LOGARITHMIC:
        kind = "logarithmic numbers (OpenCV's form of floating-point pictures)"
    orientation = tags.get(274, 1)
    return ImageHeader(
        "TIFF",
        height,
        width,
        orientation if 1 <= orientation <= 8 else 1,
        bits,
        "" if usual and tags.get(262) not in _LOGARITHMIC else f"a TIFF of {bits}-bit {kind}",
        tile,
    )


def exif_orientation(block: bytes) -> int:
    """Return the orientation in an EXIF block; 1 if there is none or it is not in 1..8."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", block, 4)
    if start + 2 > len(block):
        return 1
    (count,) = struct.unpack_from(order + "H", block, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", block, entry)
        if tag == _ORIENTATION and kind in TIFF_CODE and kind != 16:
            (value,) = struct.unpack_from(order + TIFF_CODE[kind], block, entry + 8)
            return value if 1 <= value <= 8 else 1
    return 1


def _tiff_tags(file: BinaryIO) -> dict[int, int]:
    """Return the first integer of each tag in the first directory of a TIFF or BigTIFF."""
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    is_big = _unpack(file, order + "H")[0] == 43
    if is_big:
        file.seek(8)
    file.seek(_unpack(file, order + ("Q" if is_big else "I"))[0])
    (count,) = _unpack(file, order + ("Q" if is_big else "H"))
    number, room = ("Q", 8) if is_big else ("I", 4)
    size = 4 + 2 * room
    block = file.read(size * min(count, 1 << 16))
    tags: dict[int, int] = {}
    for entry in range(0, len(block) - size + 1, size):
        tag, kind, values = struct.unpack_from(order + "HH" + number, block, entry)
        if kind not in TIFF_CODE or not values or tag in tags:
            continue
        code, place = order + TIFF_CODE[kind], entry + 4 + room
        if values * struct.calcsize(code) <= room:
            (tags[tag],) = struct.unpack_from(code, block, place)
        else:
            file.seek(struct.unpack_from(order + number, block, place)[0], os.SEEK_SET)
            (tags[tag],) = _unpack(file, code)
    return tags

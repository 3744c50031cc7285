"""Images from files: the pixels, and the size alone without decoding."""

import os
import struct
from pathlib import Path

import cv2
import numpy as np

from mindyolo_ext.errors import DataError, MissingFileError, UsageError

IMAGE_SUFFIXES = (
    ".bmp",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".mpo",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
)
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers that carry the size
_ORIENTATION = 0x0112  # EXIF tag; 5..8 swap height and width


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as uint8 BGR (h, w, 3), upright by its EXIF orientation.

    The file is read by NumPy and decoded from memory, so paths with any letters work on every
    system.

    Raises: MissingFileError without such a file; DataError if it cannot be decoded or breaks off.
    """
    if not os.path.isfile(path):
        raise MissingFileError(f"{path}: no such image")
    data = np.fromfile(path, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise DataError(
            f"{path}: wanted a readable image, got {data.size} bytes that cannot be decoded"
        )
    return image


def write_image(path: str | Path, image: np.ndarray, quality: int = 92) -> None:
    """Write uint8 BGR (h, w, 3); the suffix chooses the format, ``quality`` is for JPEG.

    Raises: UsageError if OpenCV has no encoder for the suffix.
    """
    path = Path(path)
    done, data = cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise UsageError(f"{path}: cannot write an image with the suffix {path.suffix!r}")
    path.write_bytes(data.tobytes())


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as ``read_image`` returns it, from the file's header where the format allows.

    JPEG, PNG and BMP headers are read; every other file is decoded.

    Raises: as ``read_image``.
    """
    if not os.path.isfile(path):
        raise MissingFileError(f"{path}: no such image")
    size = None
    with open(path, "rb") as file:
        start = file.read(32)
        if start[:2] == b"\xff\xd8":
            size = _jpeg_size(file)
        elif start[:8] == b"\x89PNG\r\n\x1a\n" and start[12:16] == b"IHDR":
            width, height = struct.unpack(">II", start[16:24])
            if b"eXIf" not in file.read(1 << 16):
                size = height, width
        elif start[:2] == b"BM" and len(start) >= 26 and struct.unpack("<I", start[14:18])[0] >= 40:
            width, height = struct.unpack("<ii", start[18:26])
            size = abs(height), width
    if size is not None and min(size) > 0:
        return size
    image = read_image(path)
    return image.shape[0], image.shape[1]


def _jpeg_size(file) -> tuple[int, int] | None:
    """(height, width) of an open JPEG file, orientation applied, or None where its markers make
    no sense.
    """
    file.seek(2)
    swapped = False
    while True:
        marker = file.read(2)
        while len(marker) == 2 and marker == b"\xff\xff":  # fill bytes
            marker = b"\xff" + file.read(1)
        if len(marker) < 2 or marker[0] != 0xFF or marker[1] in (0xD9, 0xDA):
            return None
        head = file.read(2)
        if len(head) < 2:
            return None
        body = file.read(struct.unpack(">H", head)[0] - 2)
        if marker[1] in _START_OF_FRAME:
            if len(body) < 5:
                return None
            height, width = struct.unpack(">HH", body[1:5])
            return (width, height) if swapped else (height, width)
        if marker[1] == 0xE1 and body[:6] == b"Exif\0\0":
            swapped = _exif_orientation(body[6:]) in (5, 6, 7, 8)


def _exif_orientation(tiff: bytes) -> int:
    """The orientation in an EXIF block, 1 without one."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    start = struct.unpack(order + "I", tiff[4:8])[0]
    count = struct.unpack(order + "H", tiff[start : start + 2])[0] if len(tiff) >= start + 2 else 0
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        if struct.unpack(order + "H", tiff[entry : entry + 2])[0] == _ORIENTATION:
            return struct.unpack(order + "H", tiff[entry + 8 : entry + 10])[0]
    return 1

"""Read images from files: the pixels, or only the size without decoding.

The header is read first, by ``image_header``. Unsupported formats, images of more than
``MAX_PIXELS`` pixels, and numbers that are not a photo are refused before anything is decoded. The
orientation also comes from the header, so ``image_size`` and ``read_image`` agree for every format.
"""

import io
import os
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from mindyolo_ext import atomic
from mindyolo_ext.data.image_header import (
    FORMATS,
    ImageHeader,
    foreign_kind,
    read_header,
    still_png,
)
from mindyolo_ext.errors import DataError, MissingFileError, UsageError, UserError, shown

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
MAX_PIXELS = 200_000_000  # per image: phones with 200 megapixels produce fewer
MAX_OTHER_BYTES = 1 << 28  # of a file, in addition to 8 bytes per pixel
MAX_JPEG_SCANS = 500  # a progressive JPEG has about ten
LEAST_16_BIT_PEAK = 1 << 12  # a 16-bit image below this uses 12 bits or fewer and is nearly black

_JPEG_SUFFIXES = (".jfif", ".mpo")  # in addition to OpenCV's .jpg, .jpeg and .jpe
_END_OF_JPEG = b"\xff\xd9"
_JPEG_SCAN = b"\xff\xda"


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as uint8 BGR (h, w, 3), upright by its EXIF orientation.

    Transparency is dropped, gray becomes three equal channels, and the upper 8 of 16 bits are kept.
    The file is decoded from memory, so paths with any characters work on every system.

    Raises: MissingFileError if the file does not exist; DataError if it cannot be decoded, is
        truncated, has more than ``MAX_PIXELS`` pixels (half as many with 16 bits), holds
        floating-point or other numbers than 8 or 16 bits, or uses only the lower 12 of 16 bits.
    """
    with _opened(path) as file:
        return _read(file, shown(str(path), 300))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode the bytes of an image file like ``read_image``; ``name`` is for messages.

    Raises: DataError as ``read_image``.
    """
    return _read(io.BytesIO(data), name)


def _read(file: BinaryIO, name: str) -> np.ndarray:
    """Decode the image of an open file, upright."""
    header = _checked_header(file, name)
    try:
        file.seek(0)
        data = file.read()
    except (OSError, MemoryError) as error:
        raise DataError(f"{name}: cannot be read ({_reason(error)})") from error
    if header.kind == "JPEG":
        _check_jpeg(data, header, name)
    elif header.kind == "PNG":
        data = still_png(data)
    image = _decode(data, header, name)
    if header.kind != "TIFF":  # OpenCV always rotates these itself
        image = _turned(image, header.orientation)
    if image.shape[:2] != header.upright_size:
        height, width = header.upright_size
        raise DataError(
            f"{name}: wanted a readable image, got {image.shape[1]}x{image.shape[0]} pixels where "
            f"its header says {width}x{height}"
        )
    return image


def write_image(path: str | Path, image: np.ndarray, quality: int = 92) -> None:
    """Write uint8 BGR (h, w, 3), complete or not at all. The suffix selects the format; ``quality``
    is for JPEG.

    Raises: UsageError if OpenCV has no encoder for the suffix; WriteError if the file cannot be
        written.
    """
    path = Path(path)
    is_jpeg = path.suffix.lower() in _JPEG_SUFFIXES
    suffix = ".jpg" if is_jpeg else path.suffix
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality] if is_jpeg else []
    try:
        done, data = cv2.imencode(suffix, image, settings)
    except cv2.error:
        done = False
    if not done:
        raise UsageError(
            f"{shown(str(path), 300)}: cannot write an image of shape {image.shape} with the "
            f"suffix {suffix!r}; use .png or .jpg"
        )
    atomic.write_bytes(path, data.tobytes(), flush=False)


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) as ``read_image`` would, from the file's header.

    Raises: MissingFileError if the file does not exist; DataError if the header already shows that
        ``read_image`` will reject the file.
    """
    with _opened(path) as file:
        return _checked_header(file, shown(str(path), 300)).upright_size


def image_orientation(path: str | Path) -> int:
    """Return EXIF's orientation 1..8 from the file's header, 1 (as stored) if it cannot be read."""
    try:
        with _opened(path) as file:
            header = read_header(file)
    except (UserError, OSError):
        return 1
    return 1 if header is None else header.orientation


def _opened(path: str | Path) -> BinaryIO:
    """Open the file. Raises: MissingFileError; DataError if it is not a file or not readable."""
    name = shown(str(path), 300)
    if not os.path.exists(path):
        link = os.path.islink(path)
        raise MissingFileError(f"{name}: no such image" + (", a broken link" if link else ""))
    if not os.path.isfile(path):  # opening a pipe could wait forever
        kind = "a folder" if os.path.isdir(path) else "a pipe, socket or device"
        raise MissingFileError(f"{name}: no such image, it is {kind}")
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{name}: cannot be opened ({_reason(error)})") from error


def _checked_header(file: BinaryIO, name: str) -> ImageHeader:
    """Read the header and check that the image may be decoded. Raises: DataError."""
    try:
        header = read_header(file)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        kind = foreign_kind(file.read(32))
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({_reason(error)})") from error
    if header is None:
        seems = f" that look like {kind}" if kind else " that cannot be decoded"
        raise DataError(f"{name}: wanted a readable image ({FORMATS}), got {size} bytes{seems}")
    if header.breaks_off:
        raise DataError(_broken_off(header, size, name))
    pixels = max(header.height * header.width, header.largest_part)
    limit = MAX_PIXELS // (2 if header.bits > 8 else 1)
    if pixels > limit:
        raise DataError(
            f"{name}: wanted at most {limit} pixels of {header.bits} bits, got {header.width}x"
            f"{header.height}; make it smaller or cut it into tiles"
        )
    if size > MAX_OTHER_BYTES + 8 * pixels:
        raise DataError(
            f"{name}: wanted a file that fits its {header.width}x{header.height} pixels, got "
            f"{size} bytes; save it again as one image"
        )
    if header.problem:
        raise DataError(
            f"{name}: wanted an image of 8 or 16 bits, got {header.problem}; save it with 8 bits "
            "per channel"
        )
    return header


def _broken_off(header: ImageHeader, size: int, name: str) -> str:
    return (
        f"{name}: wanted a readable image, got a {header.kind} truncated after {size} bytes; "
        "copy it again"
    )


def _check_jpeg(data: bytes, header: ImageHeader, name: str) -> None:
    """Reject a truncated JPEG, which some versions of OpenCV fill with gray, and one with so many
    scans that decoding takes minutes. Raises: DataError.
    """
    first = data.find(_JPEG_SCAN, header.frame)
    if first < 0 or data.rfind(_END_OF_JPEG, first) < 0:
        raise DataError(_broken_off(header, len(data), name))
    content = np.frombuffer(data, np.uint8)[first:]  # counts faster than bytes
    scans = np.count_nonzero((content[1:] == _JPEG_SCAN[1]) & (content[:-1] == _JPEG_SCAN[0]))
    limit = min(MAX_JPEG_SCANS, 20 * MAX_PIXELS // (header.height * header.width))
    if scans > limit:
        raise DataError(
            f"{name}: wanted a JPEG of at most {limit} scans, got {scans}; save it again"
        )


def _decode(data: bytes, header: ImageHeader, name: str) -> np.ndarray:
    """Decode the pixels as stored, uint8 BGR (h, w, 3). Raises: DataError."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    if header.bits > 8:
        flags |= cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise DataError(
            f"{name}: wanted a readable image, got {header.kind} data that cannot be decoded "
            f"({_reason(error)})"
        ) from error
    if image is None:
        raise DataError(
            f"{name}: wanted a readable image, got {len(data)} bytes of {header.kind} that cannot "
            "be decoded: damaged, or a variant that OpenCV does not read"
        )
    return _upper_bits(image, name) if image.dtype == np.uint16 else image


def _upper_bits(image: np.ndarray, name: str) -> np.ndarray:
    """Keep the upper 8 of 16 bits. Raises: DataError if only the lower 12 are used."""
    peak = int(image.max())
    if 0 < peak < LEAST_16_BIT_PEAK:
        raise DataError(
            f"{name}: wanted a 16-bit image that uses its full range, got values up to {peak} of "
            f"65535, as from a 10- or 12-bit camera; it would be nearly black. Scale it to 8 bits"
        )
    return (image >> 8).astype(np.uint8)


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate the stored pixels upright, by EXIF's ``orientation`` 1..8."""
    if orientation >= 5:
        image = cv2.transpose(image)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def _reason(error: BaseException) -> str:
    """Return the reason in one line."""
    if isinstance(error, MemoryError):
        return "out of memory"
    text = str(getattr(error, "strerror", None) or error).split("error: ")[
        -1
    ]  # drops the prefix of OpenCV's errors
    return shown(" ".join(text.split()), 200)

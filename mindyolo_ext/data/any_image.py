"""Convert an image in any common Python form to the pixels of ``read_image``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import cv2
import numpy as np

from mindyolo_ext.data.image_file import decode_image, read_image
from mindyolo_ext.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

AnyImage: TypeAlias = Union[str, Path, bytes, bytearray, memoryview, np.ndarray, "Image"]
_PILLOW_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
_TO_BGR = {1: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}  # by channels


def as_image(image: AnyImage) -> np.ndarray:
    """Return the pixels of an image, uint8 BGR (h, w, 3).

    Args:
        image: a file name; the bytes of an image file; a Pillow image, rotated upright by its EXIF
            orientation; or an array: (h, w) or (h, w, 1) gray, (h, w, 3) BGR, or (h, w, 4) BGRA,
            whose transparency is dropped. Arrays are uint8, or floating-point in 0..1, which is
            multiplied by 255 and rounded.

    Raises: MissingFileError or DataError as ``read_image``; UsageError for anything else.
    """
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), f"image of {len(image)} bytes")
    if isinstance(image, np.ndarray):
        return _bgr_of_array(image)
    pillow = sys.modules.get("PIL.Image")  # a Pillow image exists only if Pillow is loaded
    if pillow is not None and isinstance(image, pillow.Image):
        return _bgr_of_pillow(image)
    raise UsageError(
        "predict: wanted a file name, an array, a Pillow image or the bytes of an image file, "
        f"got {type(image).__name__}"
    )


def _bgr_of_array(image: np.ndarray) -> np.ndarray:
    channels = 1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 else 0
    is_float = np.issubdtype(image.dtype, np.floating)
    if channels not in (1, 3, 4) or not image.size or not (is_float or image.dtype == np.uint8):
        raise UsageError(
            "predict: wanted an array (h, w), (h, w, 3) BGR or (h, w, 4) BGRA of uint8, or of "
            f"floats in 0..1, got {image.dtype} {image.shape}; pass several images as a list"
        )
    if is_float:
        image = _bytes_of_floats(image)
    image = np.ascontiguousarray(image)
    return cv2.cvtColor(image, _TO_BGR[channels]) if channels in _TO_BGR else image


def _bytes_of_floats(image: np.ndarray) -> np.ndarray:
    low, high = float(image.min()), float(image.max())
    if not (low >= 0.0 and high <= 1.0):  # written so that NaN is rejected, too
        raise UsageError(
            f"predict: wanted floats in 0..1, got {low:g}..{high:g}; for values up to 255 pass "
            "image.astype(numpy.uint8)"
        )
    return np.rint(image.astype(np.float32) * 255.0).astype(np.uint8)


def _bgr_of_pillow(image: "Image") -> np.ndarray:
    from PIL import ImageOps

    if image.mode not in _PILLOW_MODES:
        raise UsageError(
            f"predict: wanted a Pillow image with 8 bits per channel, got mode {image.mode}; "
            'convert it to "L" or "RGB" first'
        )
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.ascontiguousarray(np.asarray(upright)[:, :, ::-1])

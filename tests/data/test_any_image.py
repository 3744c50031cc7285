"""An image in every form that callers may have."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from mindyolo_ext.data.any_image import as_image
from mindyolo_ext.data.image_file import read_image
from mindyolo_ext.errors import DataError, MissingFileError, UsageError

BGR = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
GRAY = BGR[..., 0]


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def pillow(mode: str, image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image[..., ::-1])).convert(mode)


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (BGR, BGR),
        (GRAY, np.repeat(GRAY[..., None], 3, 2)),
        (GRAY[..., None], np.repeat(GRAY[..., None], 3, 2)),
        (np.dstack([BGR, GRAY]), BGR),
        (BGR[::-1, ::2], BGR[::-1, ::2]),
        ((BGR / 255.0).astype(np.float32), BGR),
        (BGR / 255.0, BGR),
        (png(BGR), BGR),
        (bytearray(png(BGR)), BGR),
        (pillow("RGB", BGR), BGR),
        (pillow("RGBA", BGR), BGR),
    ],
)
def test_forms(image: Any, wanted: np.ndarray):
    found = as_image(image)
    assert found.dtype == np.uint8 and found.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(found, wanted)


def test_file(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(png(BGR))
    for name in (path, str(path)):
        np.testing.assert_array_equal(as_image(name), BGR)
    with pytest.raises(MissingFileError):
        as_image(tmp_path / "none.png")


def test_orientation_of_pillow_is_that_of_the_file(tmp_path: Path):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    pillow("RGB", BGR).save(file, "PNG", exif=exif)
    (tmp_path / "a.png").write_bytes(file.getvalue())
    turned = read_image(tmp_path / "a.png")
    assert turned.shape == (9, 7, 3)
    np.testing.assert_array_equal(as_image(Image.open(file)), turned)
    np.testing.assert_array_equal(as_image(file.getvalue()), turned)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"got uint8 \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got uint8 \(0, 4, 3\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"got uint8 \(2, 4, 4, 3\)"),
        (np.zeros((4, 4, 3), np.uint16), "got uint16"),
        (np.zeros((4, 4, 3), np.int64), "got int64"),
        (np.full((4, 4, 3), 255.0), r"floats in 0..1, got 255..255; .*astype\(numpy.uint8\)"),
        (np.full((4, 4, 3), -0.5), "floats in 0..1, got -0.5"),
        (np.full((4, 4, 3), np.nan), "floats in 0..1, got nan"),
        (Image.fromarray(np.zeros((4, 4), np.int32)), 'mode I; convert it to "L" or "RGB"'),
        (3, "the bytes of an image file, got int"),
        ({"a": 1}, "got dict"),
    ],
)
def test_what_is_no_image(image: Any, message: str):
    with pytest.raises(UsageError, match=message):
        as_image(image)


def test_bytes_of_something_else():
    with pytest.raises(DataError, match="image of 7 bytes: wanted a readable image"):
        as_image(b"no data")

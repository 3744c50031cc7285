"""Images from files."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from mindyolo_ext.data.image_file import image_size, read_image, write_image


def drawn(height: int = 30, width: int = 50) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def with_orientation(jpeg: bytes, orientation: int, order: str) -> bytes:
    """The JPEG with an EXIF block that asks for ``orientation``."""
    tiff = (
        (b"II" if order == "<" else b"MM")
        + struct.pack(order + "HI", 42, 8)
        + struct.pack(order + "H", 1)
        + struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
        + struct.pack(order + "I", 0)
    )
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_size_from_header_equals_decoded_size(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bild_é漢字{suffix}"
    write_image(path, drawn(31, 57))
    assert image_size(path) == (31, 57) == read_image(path).shape[:2]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, order: str) -> None:
    plain, turned = tmp_path / "plain.jpg", tmp_path / "turned.jpg"
    write_image(plain, drawn())
    turned.write_bytes(with_orientation(plain.read_bytes(), orientation, order))
    assert image_size(turned) == read_image(turned).shape[:2]
    assert image_size(turned) == ((50, 30) if orientation >= 5 else (30, 50))


def test_lossless_formats_keep_pixels_and_gray_becomes_bgr(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", drawn())
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), drawn())
    cv2.imwrite(str(tmp_path / "gray.png"), drawn()[:, :, 0])
    assert read_image(tmp_path / "gray.png").shape == (30, 50, 3)


def test_missing_broken_and_empty_files_are_named(tmp_path: Path) -> None:
    for function in (read_image, image_size):
        with pytest.raises(FileNotFoundError, match="none.jpg: no such image"):
            function(tmp_path / "none.jpg")
        for name, content in (
            ("bad.jpg", b"\xff\xd8\xff\xe0\x00\x10oops"),
            ("empty.png", b""),
            ("text.bmp", b"BMx"),
        ):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=f"{name}: wanted a readable image"):
                function(tmp_path / name)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_file_that_breaks_off(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, drawn(200, 300))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="wanted a readable image"):
        read_image(path)


def test_unknown_suffix_to_write(tmp_path: Path) -> None:
    with pytest.raises((ValueError, cv2.error)):
        write_image(tmp_path / "a.nothing", drawn())

"""Reading and writing image files."""

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from mindyolo_ext.data import image_file
from mindyolo_ext.data.image_file import IMAGE_SUFFIXES, image_size, read_image, write_image
from mindyolo_ext.data.image_header import still_png
from mindyolo_ext.errors import DataError, MissingFileError, WriteError


def drawn(height: int = 30, width: int = 50) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def with_orientation(jpeg: bytes, orientation: int, order: str) -> bytes:
    """The JPEG with an EXIF block that sets ``orientation``."""
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


# ---- orientation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
@pytest.mark.parametrize("orientation", range(0, 10))
def test_every_format_is_turned_upright_as_pillow_does(
    tmp_path: Path, form: str, orientation: int
) -> None:
    stored = cv2.GaussianBlur(drawn(), (9, 9), 3)
    stored[:10, :15] = 0, 0, 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    tag = {"tiffinfo": {0x0112: orientation}} if form == "TIFF" else {"exif": exif}
    path = tmp_path / "a.jpg"  # the content counts, not the suffix
    picture = Image.fromarray(stored[:, :, ::-1])
    picture.save(path, form, **tag, **({"lossless": True} if form == "WEBP" else {"quality": 95}))
    with Image.open(path) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))[:, :, ::-1]
    image = read_image(path)
    assert image.shape == upright.shape == (*image_size(path), 3)
    assert np.abs(image.astype(int) - upright).mean() < 2


def test_orientation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_image(path, drawn())
    tiff = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    content = path.read_bytes()
    path.write_bytes(content[:-12] + chunk(b"eXIf", tiff) + content[-12:])
    np.testing.assert_array_equal(read_image(path), np.rot90(drawn(), -1))
    assert image_size(path) == (50, 30)


# ---- depth ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_keep_their_upper_half_and_12_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    deep = np.random.default_rng(0).integers(0, 1 << 16, (20, 30, 3)).astype(np.uint16)
    cv2.imwrite(str(path), deep)
    np.testing.assert_array_equal(read_image(path), deep >> 8)
    cv2.imwrite(str(path), deep >> 4)
    with pytest.raises(DataError, match=f"deep{suffix}: .*16-bit image .* up to 409[0-5] of"):
        read_image(path)
    cv2.imwrite(str(path), deep * 0)
    assert not read_image(path).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_numbers_that_are_no_photo_are_refused(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), drawn().astype(dtype))
    for function in (read_image, image_size):
        with pytest.raises(DataError, match="a.tif: wanted an image of 8 or 16 bits, got a TIFF"):
            function(path)


def test_12_bit_jpeg_is_named(tmp_path: Path) -> None:
    content = bytearray(cv2.imencode(".jpg", drawn())[1].tobytes())
    content[content.index(b"\xff\xc0") + 4] = 12
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match="got a JPEG of 12 bits"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "LA"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1")]
    + [("TIFF", "RGBA"), ("TIFF", "1"), ("WEBP", "RGBA"), ("BMP", "P"), ("BMP", "1")],
)
def test_every_color_mode_becomes_bgr(tmp_path: Path, form: str, mode: str) -> None:
    path = tmp_path / "a"
    Image.fromarray(cv2.GaussianBlur(drawn(), (9, 9), 3)).convert(mode).save(path, form)
    with Image.open(path) as opened:
        wanted = np.asarray(opened.convert("RGB"))[:, :, ::-1]
    assert np.abs(read_image(path).astype(int) - wanted).mean() < 4
    assert image_size(path) == (30, 50)


# ---- limits --------------------------------------------------------------------------------------


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    check = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + check


def png(width: int, height: int, bits: int = 8) -> bytes:
    """A PNG whose header says ``width`` x ``height`` pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def tiff(width: int, height: int, tile: int = 0) -> bytes:
    """A TIFF whose header says ``width`` x ``height`` pixels, in square tiles."""
    tags = [(256, width), (257, height), (258, 8), (262, 1), (277, 1), (322, tile), (323, tile)]
    tags = [entry for entry in tags if entry[1]]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def big_jpeg() -> bytes:
    content = bytearray(cv2.imencode(".jpg", drawn())[1].tobytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 65500, 65500)
    return bytes(content)


BOMBS = {
    "png": png(40000, 40000),
    "largest.png": png((1 << 31) - 1, (1 << 31) - 1),
    "deep.png": png(12000, 12000, bits=16),
    "jpg": big_jpeg(),
    "tif": tiff(60000, 60000),
    "tile.tif": tiff(10, 10, tile=60000),
    "bmp": b"BM" + struct.pack("<IHHIIiiHH", 0, 0, 0, 54, 40, 50000, -50000, 1, 24) + bytes(64),
    "webp": b"RIFF\x40\0\0\0WEBPVP8L"
    + struct.pack("<IBI", 20, 0x2F, 16382 | 16382 << 14)
    + bytes(30),
    "canvas.webp": b"RIFF\x40\0\0\0WEBPVP8X" + struct.pack("<II", 10, 0) + b"\xff" * 6 + bytes(30),
}


@pytest.mark.parametrize("name", BOMBS)
def test_too_many_pixels_are_refused_before_decoding(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"bomb.{name}"
    path.write_bytes(BOMBS[name])
    monkeypatch.setattr(cv2, "imdecode", None)
    for function in (read_image, image_size):
        with pytest.raises(DataError, match=f"bomb.{name}: wanted at most .* pixels"):
            function(path)


def test_file_far_larger_than_its_pixels_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(10, 10))
    os.truncate(path, 1 << 40)
    with pytest.raises(DataError, match="wanted a file that fits its 10x10 pixels"):
        read_image(path)


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\xff\x01", b"\xff\xe0\0\2"])
def test_endless_jpeg_header_is_given_up(tmp_path: Path, filling: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8" + filling * 300_000 + big_jpeg()[2:])
    with pytest.raises(DataError, match="wanted a readable image"):
        read_image(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda png: png[:-12],  # truncated
        lambda png: png[:-12] + struct.pack(">I", 1 << 31) + png[-8:],
        lambda png: png[:33] + struct.pack(">I4s", (1 << 31) - 1, b"tEXt") + png[33:],
        lambda png: png[:33] + chunk(b"tEXt", b"") * 100_001 + png[33:],
    ],
)
def test_png_whose_chunks_make_no_sense_never_meets_the_decoder(
    tmp_path: Path, change, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_image(path, drawn())
    path.write_bytes(change(path.read_bytes()))
    monkeypatch.setattr(cv2, "imdecode", None)  # OpenCV 4.11 would allocate what a chunk claims
    for function in (read_image, image_size):
        with pytest.raises(DataError, match="a.png: wanted a readable image, got a PNG truncated"):
            function(path)


def test_animated_png_is_its_first_picture_and_the_animation_never_meets_the_decoder(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.png"
    frames = [Image.fromarray(drawn()[:, :, ::-1]), Image.fromarray(drawn())]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    content = path.read_bytes()
    assert b"acTL" in content
    plain = still_png(content)
    assert not any(name in plain for name in (b"acTL", b"fcTL", b"fdAT"))
    assert plain.startswith(content[:33]) and plain.endswith(content[-12:])
    np.testing.assert_array_equal(read_image(path), drawn())
    # damage that crashes the process with OpenCV 4.11
    place = content.index(b"IDAT") + 40
    path.write_bytes(content[:place] + bytes(300) + content[place + 300 :])
    with pytest.raises(DataError, match="cannot be decoded"):
        read_image(path)


def test_jpeg_of_very_many_scans_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    content = cv2.imencode(".jpg", drawn(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    path.write_bytes(content)
    assert read_image(path).shape == (30, 50, 3)
    last = content.rindex(b"\xff\xda")
    path.write_bytes(content[:last] + content[last:-2] * 600 + content[-2:])
    with pytest.raises(DataError, match="at most 500 scans"):
        read_image(path)


def test_place_beyond_64_bits(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II+\0" + struct.pack("<HHQ", 8, 0, (1 << 64) - 1))
    with pytest.raises(DataError, match="wanted a readable image"):
        read_image(tmp_path / "a.tif")


def changed_at_random(content: bytes, rng: np.random.Generator) -> bytes:
    """The file with bytes overwritten, removed, inserted or cut off, mostly in its header."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(min(len(data), 300 if rng.random() < 0.7 else len(data))))
        noise = rng.integers(0, 256, rng.integers(1, 50), np.uint8).tobytes()
        change = rng.integers(5)
        if change == 0:
            data[place] = noise[0]
        elif change == 1:
            data[place : place + 4] = b"\xff\xff\xff\x7f"
        elif change == 2:
            data[place : place + len(noise)] = b""
        elif change == 3:
            data[place:place] = noise
        else:
            data = data[: max(int(rng.integers(len(data))), 20)]
        if len(data) < 20:
            break
    return bytes(data)


@pytest.mark.parametrize("form", ["BMP", "JPEG", "PNG", "TIFF", "WEBP"])
def test_damaged_files_are_pictures_or_data_errors(tmp_path: Path, form: str) -> None:
    whole, path = tmp_path / "whole", tmp_path / "damaged.jpg"
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(cv2.GaussianBlur(drawn(), (9, 9), 3)).save(whole, form, exif=exif)
    refused = 0
    for _ in range(60):
        path.write_bytes(changed_at_random(whole.read_bytes(), rng))
        try:
            assert image_size(path) == read_image(path).shape[:2]
        except DataError as error:
            refused += 1
            assert str(path) in str(error)
    assert 0 < refused <= 60


# ---- files that are not images -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"GIF89a" + bytes(40), "a GIF"),
        (b"\0\0\0\x1cftypheic" + bytes(40), "a HEIC picture"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<!doctype html>", "a web page"),
    ],
)
def test_foreign_content_is_named(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=f"a.jpg: wanted a readable image .* look like {kind}"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("function", [read_image, image_size])
def test_what_is_no_file_is_named(tmp_path: Path, function) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("nowhere")
    for name, kind in (("pipe", "a pipe"), ("folder", "a folder"), ("link", "a broken link")):
        with pytest.raises(MissingFileError, match=f"{name}.jpg: no such image, .*{kind}"):
            function(tmp_path / f"{name}.jpg")


def test_decoder_that_raises_and_file_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_image(path, drawn())

    def refuse(*_: object) -> None:
        raise cv2.error("no\nmemory")

    with monkeypatch.context() as patch:
        patch.setattr(cv2, "imdecode", refuse)
        with pytest.raises(DataError, match="a.png: .*cannot be decoded .no memory"):
            read_image(path)

    def forbid(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(image_file, "open", forbid, raising=False)
    with pytest.raises(DataError, match="a.png: cannot be opened .Permission denied"):
        image_size(path)


def test_control_characters_of_a_name_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "a\nb\x1b[31m.jpg"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert r"a\nb\x1b[31m.jpg: wanted" in str(caught.value)


# ---- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_suffix_that_is_read_is_written(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", drawn())
    assert read_image(tmp_path / f"a{suffix}").shape == (30, 50, 3)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_full_disk_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"the old one")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(WriteError, match="a.png: cannot be written .No space left"):
        write_image(path, drawn())
    assert path.read_bytes() == b"the old one"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["a" * 250 + ".png", "漢" * 80 + ".png"])
def test_longest_names_are_written(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / name, drawn())
    assert os.listdir(tmp_path) == [name]

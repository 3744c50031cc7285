"""YOLO text labels."""

import logging
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.formats.label_files import label_path
from mindyolo_ext.data.image_file import write_image


def written(folder: Path, text: str | None = "1 0.5 0.5 0.25 0.5\n") -> dict:
    """One 40 x 80 image below a folder with dots and letters beyond ASCII; returns its
    configuration.
    """
    for name in ("images", "labels"):
        (folder / "v1.0 ünï" / name / "deep").mkdir(parents=True, exist_ok=True)
    write_image(folder / "v1.0 ünï/images/deep/a.b.jpg", np.zeros((40, 80, 3), np.uint8))
    if text is not None:
        (folder / "v1.0 ünï/labels/deep/a.b.txt").write_text(text, encoding="utf-8")
    return {"format": "yolo", "images": "v1.0 ünï/images", "names": ["cat", "dog"]}


def test_folder_with_dots_and_unicode(tmp_path: Path) -> None:
    dataset = build_dataset(
        written(tmp_path, "1 0.5 0.5 0.25 0.5\n\n0\t0.1  0.2 0.2 0.4  \n"), tmp_path
    )
    sample = dataset.load(0)
    np.testing.assert_allclose(sample.boxes, [[30, 10, 50, 30], [0, 0, 16, 16]], atol=1e-4)
    np.testing.assert_array_equal(sample.labels, [1, 0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "1 0.5 0.5 0.25",
            r"a.b.txt:2: wanted five numbers: class cx cy w h .*got '1 0.5 0.5 0.25'",
        ),
        ("1 0.5 0.5 0.25 0.5 0.5", r"a.b.txt:2: wanted five numbers"),
        ("1 0.5 half 0.25 0.5", r"a.b.txt:2: wanted five numbers"),
        ("0.5 0.5 0.5 0.25 0.5", r"a.b.txt:2: wanted five numbers"),
        ("2 0.5 0.5 0.25 0.5", r"a.b.txt:2: wanted a class index 0..1, got 2"),
        ("1 nan 0.5 0.25 0.5", r"a.b.txt:2: wanted finite numbers"),
        ("nan 0.5 0.5 0.25 0.5", r"a.b.txt:2: wanted five numbers"),
        ("inf 0.5 0.5 0.25 0.5", r"a.b.txt:2: wanted five numbers"),
    ],
)
def test_malformed_lines_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_dataset(written(tmp_path, "0 0.5 0.5 0.1 0.1\n" + line + "\n"), tmp_path)


def test_label_file_that_is_no_text(tmp_path: Path) -> None:
    config = written(tmp_path)
    (tmp_path / "v1.0 ünï/labels/deep/a.b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="a.b.txt: wanted UTF-8 text"):
        build_dataset(config, tmp_path)


def test_empty_and_missing_label_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert build_dataset(written(tmp_path, ""), tmp_path).load(0).boxes.shape == (0, 4)
    assert not caplog.text
    config = written(tmp_path / "other", None)
    with caplog.at_level(logging.WARNING):
        assert len(build_dataset(config, tmp_path / "other").labels(0)) == 0
    assert "1 x no label file" in caplog.text
    with pytest.raises(
        FileNotFoundError, match="a.b.txt: no such label file, wanted one for .*a.b.jpg"
    ):
        build_dataset({**config, "missing_labels": "error"}, tmp_path / "other")
    with pytest.raises(ValueError, match="at least one image"):
        build_dataset({**config, "missing_labels": "skip"}, tmp_path / "other")
    with pytest.raises(ValueError, match="missing_labels must be"):
        build_dataset({**config, "missing_labels": "ignore"}, tmp_path / "other")


def test_box_outside_is_clipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = build_dataset(
            written(tmp_path, "0 0.9 0.5 0.4 1.0\n1 1.5 0.5 0.1 0.1\n0 0.5 0.5 0 0.1\n"), tmp_path
        )
    np.testing.assert_allclose(dataset.annotations(0).boxes, [[56, 0, 80, 40]], atol=1e-4)
    assert "1 x clipped box" in caplog.text and "2 x dropped box" in caplog.text


def test_yaml_forms(tmp_path: Path) -> None:
    written(tmp_path)
    file = tmp_path / "set.yaml"
    for text in (
        "path: v1.0 ünï\ntrain: images\nnames: {0: cat, 1: dog}\n",
        f"path: {tmp_path / 'v1.0 ünï'}\ntrain: [images/deep]\nnames: [cat, dog]\n",
        "train: v1.0 ünï/images\nnames: [cat, dog]\n",
    ):
        file.write_text(text, encoding="utf-8")
        dataset = build_dataset({"format": "yolo", "data": "set.yaml", "split": "train"}, tmp_path)
        assert (
            len(dataset) == 1
            and dataset.class_names == ["cat", "dog"]
            and len(dataset.labels(0)) == 1
        )
    with pytest.raises(ValueError, match="wanted the keys val and names"):
        build_dataset({"format": "yolo", "data": "set.yaml", "split": "val"}, tmp_path)
    file.write_text("train: v1.0 ünï/images\nnames: {0: cat, 2: dog}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="numbered 0, 1, 2"):
        build_dataset({"format": "yolo", "data": "set.yaml", "split": "train"}, tmp_path)
    for config in (
        {"data": "set.yaml"},
        {"images": "x"},
        {"data": "set.yaml", "split": "train", "names": ["a"]},
    ):
        with pytest.raises(ValueError, match="either data with split, or images with names"):
            build_dataset({"format": "yolo", **config}, tmp_path)


def test_list_file(tmp_path: Path) -> None:
    config = written(tmp_path)
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "all.txt").write_text(
        "v1.0 ünï/images/deep/a.b.jpg\n../v1.0 ünï/images/deep/a.b.jpg\n", encoding="utf-8"
    )
    dataset = build_dataset({**config, "images": "lists/all.txt"}, tmp_path)
    assert dataset.paths[0] == dataset.paths[1] and dataset.image_ids == [1, 2]
    (lists / "bad.txt").write_text("a.jpg\nnotes.doc\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad.txt:2: wanted an image .*got 'notes.doc'"):
        build_dataset({**config, "images": "lists/bad.txt"}, tmp_path)
    (lists / "gone.txt").write_text("gone.jpg\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="gone.jpg: no such image"):
        build_dataset({**config, "images": "lists/gone.txt"}, tmp_path)


def test_label_places() -> None:
    assert label_path("/d/images/x/images/a.1.jpg", None, None) == "/d/images/x/labels/a.1.txt"
    assert label_path("/d/pics/a.jpg", None, None) == "/d/pics/a.txt"
    assert label_path("/d/pics/b/a.jpg", Path("/d/pics"), Path("/l")) == "/l/b/a.txt"
    assert label_path("/d/pics/b/a.jpg", None, Path("/l")) == "/l/a.txt"


def test_real_coco128(real_data: Path) -> None:
    dataset = build_dataset(
        {"format": "yolo", "data": "coco128/coco128.yaml", "split": "train"}, real_data
    )
    assert len(dataset) == 128 and sum(len(dataset.labels(index)) for index in range(128)) == 929
    for index in (0, 50, 127):
        assert dataset.load(index).image.shape[:2] == dataset.size(index)


def test_lines_of_points_have_their_frame_as_box(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "1 0.1 0.5 0.3 0.25 0.2 0.75\n0 0.5 0.5 0.25 0.5\n"
        "1 0.5 0.5 1.5 0.5 1.5 0.9 0.5 0.9\n0 2 2 3 2 3 3\n"
    )
    config = written(tmp_path, text)
    with caplog.at_level(logging.WARNING):
        plain, dataset = (
            build_dataset(config, tmp_path),
            build_dataset({**config, "polygons": True}, tmp_path),
        )
    assert "1 x clipped box" in caplog.text and "1 x dropped box" in caplog.text
    for found in (plain, dataset):
        np.testing.assert_allclose(
            found.annotations(0).boxes,
            [[8, 10, 24, 30], [30, 10, 50, 30], [40, 20, 80, 36]],
            atol=1e-4,
        )
    assert plain.polygons(0) == [None] * 3 and not plain.has_polygons and dataset.has_polygons
    triangle, box, cut = dataset.polygons(0)
    assert box is None and triangle.dtype == np.float32
    np.testing.assert_allclose(triangle, [[0.1, 0.5], [0.3, 0.25], [0.2, 0.75]], atol=1e-6)
    np.testing.assert_allclose(cut, [[0.5, 0.5], [1, 0.5], [1, 0.9], [0.5, 0.9]], atol=1e-6)
    with pytest.raises(ValueError, match="wanted five numbers.* or class and points x y x y x y"):
        build_dataset(
            written(tmp_path / "odd", "1 0.1 0.5 0.3 0.25 0.2 0.75 0.5\n"), tmp_path / "odd"
        )
    with pytest.raises(ValueError, match="wanted finite numbers"):
        build_dataset(written(tmp_path / "nan", "1 0.1 0.5 nan 0.25 0.2 0.75\n"), tmp_path / "nan")

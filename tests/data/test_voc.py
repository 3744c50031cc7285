"""Pascal VOC xml."""
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.data.dataset import build_dataset
from mindyolo_ext.data.image_file import write_image

CONFIG = {"format": "voc", "root": "voc", "split": "train", "names": ["cat", "dog"]}


def item(name: str = "dog", box: tuple = (1, 1, 10, 8), difficult: int = 0) -> str:
    sides = "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{sides}</bndbox></object>"


def written(folder: Path, body: str | None, size: str = "<size><width>30</width><height>20</height></size>") -> dict:
    """One 20 x 30 picture; returns the configuration."""
    root = folder / "voc"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True, exist_ok=True)
    write_image(root / "JPEGImages/é.png", np.zeros((20, 30, 3), np.uint8))
    (root / "ImageSets/Main/train.txt").write_text("é 1\n", encoding="utf-8")
    if body is not None:
        (root / "Annotations/é.xml").write_text(f"<annotation>{size}{body}</annotation>", encoding="utf-8")
    return CONFIG


def test_boxes_count_from_one_and_difficult_is_ignored(tmp_path: Path) -> None:
    config = written(tmp_path, item() + item("cat", (5, 6, 30, 20), 1))
    sample = build_dataset(config, tmp_path).load(0)
    np.testing.assert_array_equal(sample.boxes, [[0, 0, 10, 8], [4, 5, 30, 20]])
    np.testing.assert_array_equal(sample.labels, [1, 0])
    np.testing.assert_array_equal(sample.ignore, [False, True])
    plain = build_dataset({**config, "first_pixel": 0}, tmp_path)
    np.testing.assert_array_equal(plain.annotations(0).boxes, [[1, 1, 10, 8], [5, 6, 30, 20]])
    assert plain.max_boxes() == 1 and plain.coco_ground_truth()["annotations"][1]["iscrowd"] == 1
    with pytest.raises(ValueError, match="first_pixel must be 0 or 1"):
        build_dataset({**config, "first_pixel": 2}, tmp_path)


@pytest.mark.parametrize(("body", "message"), [
    (item("cow"), "é.xml: object 1: wanted one of cat, dog, got 'cow'"),
    (item() + item(box=(1, 2, "x", 4)), "é.xml: object 2: wanted bndbox"),
    ("<object><name>dog</name></object>", "é.xml: object 1: wanted bndbox"),
    ("<object>", "é.xml: wanted xml, got a damaged file")])
def test_malformed_objects(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_dataset(written(tmp_path, body), tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="é.xml: no such annotation file"):
        build_dataset(written(tmp_path, None), tmp_path)
    config = written(tmp_path, item())
    (tmp_path / "voc/JPEGImages/é.png").unlink()
    with pytest.raises(FileNotFoundError, match="é.jpg: no such image"):
        build_dataset(config, tmp_path)
    with pytest.raises(FileNotFoundError, match="val.txt"):
        build_dataset({**config, "split": "val"}, tmp_path)


def test_no_objects_and_a_wrong_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert build_dataset(written(tmp_path, ""), tmp_path).load(0).boxes.shape == (0, 4)
    assert not caplog.text
    build_dataset(written(tmp_path, item(), "<size><width>20</width><height>30</height></size>"), tmp_path)
    assert "1 x odd size" in caplog.text
    caplog.clear()
    build_dataset(written(tmp_path, item(), "<size><width>0</width><height>0</height></size>"), tmp_path)
    assert not caplog.text


def test_real_bccd(real_data: Path) -> None:
    names = {"names": "bccd/classes.names"}
    counts = []
    for split in ("train", "val", "test"):
        voc = build_dataset({"format": "voc", "root": "bccd", "split": split, "first_pixel": 0, **names}, real_data)
        text = build_dataset({"format": "yolo", "images": "bccd/JPEGImages", "labels": f"bccd/yolo_labels/{split}",
                              "missing_labels": "skip", **names}, real_data)
        counts.append(len(voc))
        at = {path: index for index, path in enumerate(text.paths)}
        for index, path in enumerate(voc.paths):
            wanted, found = voc.annotations(index), text.annotations(at[path])
            np.testing.assert_allclose(found.boxes, wanted.boxes, atol=2e-3)
            np.testing.assert_array_equal(found.labels, wanted.labels)
    assert counts == [205, 87, 72]

"""The report of the data set check."""

import os
from pathlib import Path

import numpy as np
import pytest
from label_sets import coco, image, put, yolo

from mindyolo_ext.data import check
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.check import check_dataset
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.image_file import write_image


def test_sound_data(shapes: Dataset) -> None:
    report = check_dataset(shapes, progress=False)
    counts = np.bincount(np.concatenate([shapes.labels(index) for index in range(19)]), minlength=3)
    np.testing.assert_array_equal(report.class_counts, counts)
    assert (
        report.ok and report.boxes == counts.sum() == len(report.box_sizes) and report.images == 19
    )
    assert (
        report.boxes_per_image.max() == shapes.max_boxes()
        and (report.image_sizes == (72, 96)).all()
    )
    assert not report.images_without_boxes and "ready for training" in report.table()
    assert all(name in report.table() for name in ("circle", "square", "triangle"))
    assert (report.class_images <= report.class_counts).all() and report.class_images.sum() >= 19


def test_everything_wrong_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    names = ["broken", "cut", "empty", "good", "odd", "words"]
    for name in names:
        write_image(
            folder / f"{name}.jpg", np.random.default_rng(0).integers(0, 255, (40, 80, 3), np.uint8)
        )
        (tmp_path / f"images/{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-300])
    (folder / "empty.txt").write_text("", encoding="utf-8")
    (folder / "odd.txt").write_text(
        "1 0.5 0.5 0.2 0.2\n" * 2 + "0 0.5 0.5 0.9 0.03\n0 0.5 0.5 0.01 0.5\n"
        "0 0.99 0.5 0.2 0.2\n0 0.5 0.5 0 0.1\n",
        encoding="utf-8",
    )
    (folder / "words.txt").write_text("cat 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    (tmp_path / "all.txt").write_text(
        "".join(f"images/{name}.jpg\n" for name in [*names, "gone"]), encoding="utf-8"
    )
    config = {
        "format": "yolo",
        "images": "all.txt",
        "labels": "images",
        "names": ["cat", "dog"],
        "missing_labels": "error",
    }
    with pytest.raises(ValueError, match="3 faults"):
        build_dataset(config, tmp_path)
    report = check_dataset(build_dataset(config, tmp_path, strict=False), progress=False)
    found = sorted((problem.kind, Path(problem.where).name) for problem in report.problems)
    assert found == [
        ("broken image", "broken.jpg"),
        ("broken image", "cut.jpg"),
        ("class out of range", "words.txt:2"),
        ("clipped box", "odd.txt:5"),
        ("dropped box", "odd.txt:6"),
        ("duplicate box", "odd.jpg"),
        ("malformed label", "words.txt:1"),
        ("missing image", "gone.jpg"),
        ("odd box", "odd.jpg"),
        ("odd box", "odd.jpg"),
    ]
    assert not report.ok
    table = report.table()
    assert "NOT ready" in table and "must be fixed" in table and "thinner than a pixel" in table
    assert [Path(path).name for path in report.images_without_boxes] == [
        "empty.jpg",
        "words.jpg",
        "gone.jpg",
    ]
    np.testing.assert_array_equal(report.class_counts, [4, 2])


def test_no_boxes_at_all(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((40, 80, 3), np.uint8))
    dataset = build_dataset({"format": "yolo", "images": str(tmp_path), "names": ["cat"]})
    report = check_dataset(dataset, progress=False)
    assert report.ok and report.boxes == 0 and "no label file: 1" in report.table()


def test_real_data(real_data: Path) -> None:
    config = {"format": "voc", "root": "bccd", "split": "val", "names": "bccd/classes.names"}
    report = check_dataset(build_dataset(config, real_data, strict=False), progress=False)
    assert report.ok and report.images == 87 and report.class_counts[0] > report.class_counts[1] > 0


def test_turned_photos_whose_labels_tell_no_size(tmp_path: Path) -> None:
    description = yolo(tmp_path, count=2)
    image(tmp_path / "images/0.jpg", orientation=6)
    image(tmp_path / "images/1.jpg", orientation=3)
    report = check_dataset(build_dataset(description, tmp_path), progress=False)
    assert report.ok
    assert [(problem.kind, Path(problem.where).name) for problem in report.problems] == [
        ("turned image", "0.jpg"),
        ("turned image", "1.jpg"),
    ]
    assert "EXIF orientation 3" in report.table()


def test_a_wrong_size_is_told_once(tmp_path: Path) -> None:
    description = coco(tmp_path)
    image(tmp_path / "img/a.jpg", orientation=6)
    report = check_dataset(build_dataset(description, tmp_path, strict=False), progress=False)
    assert [problem.kind for problem in report.problems] == ["turned labels"] and not report.ok


def test_the_report_can_be_printed_whatever_the_names(tmp_path: Path) -> None:
    description = yolo(tmp_path, names=["\x1b[31mred", "dog"])
    (tmp_path / "images/0.jpg").rename(tmp_path / "images" / os.fsdecode(b"\xff\n.jpg"))
    put(tmp_path / "labels" / os.fsdecode(b"\xff\n.txt"), "9 0.5 0.5 0.1 0.1\n")
    report = check_dataset(build_dataset(description, tmp_path, strict=False), progress=False)
    table = report.table()
    table.encode()
    assert "\x1b" not in table and r"\x1b[31mred" in table and r"\udcff\n.txt:1" in table


def test_faults_stand_last_beside_the_verdict(tmp_path: Path) -> None:
    description = yolo(tmp_path, "0 0.5 0.5 0.9 0.03\n9 0.5 0.5 0.1 0.1\n")
    report = check_dataset(build_dataset(description, tmp_path, strict=False), progress=False)
    table = report.table()
    assert table.index("odd box: 1") < table.index("class out of range: 1 (must be fixed)")
    assert table.endswith("NOT ready for training")


def test_findings_are_in_the_order_of_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_AHEAD", 3)
    monkeypatch.setattr(check, "_processors", lambda: 4)
    description = yolo(tmp_path, count=11)
    for number in (1, 5, 10):
        (tmp_path / f"images/{number}.jpg").write_bytes(b"no picture")
    dataset = build_dataset(description, tmp_path, strict=False)
    report = check_dataset(dataset, progress=False)
    paths = [problem.where for problem in report.problems if problem.kind == "broken image"]
    assert paths == [path for path in dataset.paths if Path(path).stem in ("1", "5", "10")]
    assert len(report.image_sizes) == 8 and report.boxes == 8


def test_a_fault_of_the_program_is_not_taken_for_one_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = build_dataset(yolo(tmp_path, count=3), tmp_path)
    monkeypatch.setattr(dataset, "load", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        check_dataset(dataset, progress=False)

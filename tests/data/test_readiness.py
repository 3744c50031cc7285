"""What is reported about a data set before the first step of a training."""

import logging
from pathlib import Path

import pytest
from label_sets import LINE, coco, image, put, yolo

from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.readiness import (
    check_before_training,
    check_recipe_classes,
    require_ready,
)
from mindyolo_ext.errors import DataError


def read(folder: Path, description: dict) -> Dataset:
    return build_dataset(description, folder)


def faults(train: Dataset, val: Dataset | None = None) -> list[str]:
    return [p.message for p in check_before_training(train, val) if p.fatal]


def doubts(train: Dataset, val: Dataset | None = None) -> list[str]:
    return [p.message for p in check_before_training(train, val) if not p.fatal]


def test_a_sound_set(shapes: Dataset) -> None:
    assert check_before_training(shapes) == []
    require_ready(shapes)


def test_pixels_where_fractions_are_wanted(tmp_path: Path) -> None:
    dataset = read(tmp_path, yolo(tmp_path, "0 30 20 10 10\n", count=2))
    [message] = faults(dataset)
    assert "got none: all are outside" in message and "labels/0.txt:1" in message
    assert "are these pixels?" in message
    with pytest.raises(DataError, match="are these pixels"):
        require_ready(dataset)


def test_most_images_lost_their_boxes(tmp_path: Path) -> None:
    description = yolo(tmp_path, "0 30 20 10 10\n", count=3)
    put(tmp_path / "labels/0.txt", LINE)
    [message] = faults(read(tmp_path, description))
    assert "2 of 3 images with labels lost all their boxes" in message
    put(tmp_path / "labels/1.txt", LINE)
    assert not faults(read(tmp_path, description))


def test_centers_as_fractions_and_sides_as_pixels(tmp_path: Path) -> None:
    [message] = faults(read(tmp_path, yolo(tmp_path, "0 0.5 0.5 20 20\n", count=2)))
    assert "2 boxes reach far outside their images" in message and "0.txt:1" in message


def test_boxes_that_reach_a_little_outside_are_none(tmp_path: Path) -> None:
    assert not faults(read(tmp_path, yolo(tmp_path, "0 0.9 0.5 0.4 0.5\n", count=2)))


def test_no_label_file_at_all(tmp_path: Path) -> None:
    image(tmp_path / "photos/a.jpg")
    put(tmp_path / "texts/a.txt", LINE)
    description = {"format": "yolo", "images": "photos", "names": ["cat"]}
    [message] = faults(read(tmp_path, description))
    assert "no image has a label file" in message and "photos/a.txt" in message
    assert not faults(read(tmp_path, {**description, "labels": "texts"}))


def test_most_label_files_are_missing(tmp_path: Path) -> None:
    description = yolo(tmp_path, count=3, names=["cat"])
    for name in "12":
        (tmp_path / f"labels/{name}.txt").unlink()
    dataset = read(tmp_path, description)
    assert not faults(dataset)
    [message] = doubts(dataset)
    assert "2 of 3 images have no label file" in message and "labels/1.txt" in message


def test_only_crowds(tmp_path: Path) -> None:
    crowd = {"row": {"iscrowd": 1}, "annotations": None}
    crowd["annotations"] = [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 1}
    ]
    [message] = faults(read(tmp_path, coco(tmp_path, **crowd)))
    assert "all are crowds or difficult" in message


def test_classes_without_a_box(tmp_path: Path) -> None:
    [message] = doubts(read(tmp_path, yolo(tmp_path)))
    assert message == "1 of 2 classes have no boxes to train on: dog"


def test_nothing_to_evaluate(tmp_path: Path) -> None:
    train = read(tmp_path / "t", yolo(tmp_path / "t"))
    val = read(tmp_path / "v", yolo(tmp_path / "v", ""))
    [message] = faults(train, val)
    assert "got none: the labels of its 1 image(s) are empty" in message
    assert "train.run_eval=false" in message


@pytest.mark.parametrize(
    ("names", "fault", "doubt"),
    [
        (["cat", "dog"], "", ""),
        (["dog", "cat"], "", "in another order, which are matched by name"),
        (["cat", "bird"], "only this set has bird", ""),
        (["cat", "dog", "bird"], "only this set has bird", ""),
        (["cat"], "wanted the classes of images, got others", ""),
    ],
)
def test_classes_of_both_sets(tmp_path: Path, names: list, fault: str, doubt: str) -> None:
    train = read(tmp_path / "t", yolo(tmp_path / "t"))
    val = read(tmp_path / "v", yolo(tmp_path / "v", names=names))
    found = faults(train, val)
    assert fault in found[0] if fault else not found
    found = [message for message in doubts(train, val) if "no box" not in message]
    assert doubt in found[0] if doubt else not found


def test_images_in_both_sets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = read(tmp_path, yolo(tmp_path, count=2, names=["cat"]))
    with caplog.at_level(logging.WARNING):
        require_ready(dataset, dataset)
    assert (
        "2 of 2 images are also training images, such as" in caplog.text and "0.jpg" in caplog.text
    )


def test_classes_of_the_recipe(shapes: Dataset) -> None:
    assert not check_recipe_classes(shapes, [], None)
    assert not check_recipe_classes(shapes, ["circle", "square", "triangle"], 3)
    [problem] = check_recipe_classes(shapes, ["circle", "square", "star"], None)
    assert problem.fatal and "data.class_names" in problem.message
    [problem] = check_recipe_classes(shapes, [], 4)
    assert problem.fatal and "has 3 classes" in problem.message
    assert "data.num_classes is 4" in problem.message


def test_an_image_with_a_crowd_of_boxes(tmp_path: Path) -> None:
    description = yolo(tmp_path, LINE, count=2)
    put(tmp_path / "labels/1.txt", LINE * 2001)
    message = doubts(read(tmp_path, description))[-1]
    assert "1.jpg has 2001 boxes" in message and "data.max_boxes" in message

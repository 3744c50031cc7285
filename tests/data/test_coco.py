"""COCO json."""

import json
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.evaluation.coco_map import evaluate_coco
from mindyolo_ext.evaluation.collect import coco_records


def written(folder: Path, annotations: list, **changes: object) -> dict:
    """A two-image data set with category ids 9 and 4; returns its configuration."""
    write_image(folder / "b.png", np.zeros((20, 30, 3), np.uint8))
    write_image(folder / "a.png", np.zeros((50, 40, 3), np.uint8))
    content = {
        "images": [
            {"id": 31, "file_name": "b.png", "height": 20, "width": 30},
            {"id": 5, "file_name": "a.png"},
        ],
        "categories": [{"id": 9, "name": "nine"}, {"id": 4, "name": "four"}],
        "annotations": annotations,
        **changes,
    }
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8")
    return {"format": "coco", "images": str(folder), "annotations": str(folder / "a.json")}


def row(**values: object) -> dict:
    return {
        "id": 70,
        "image_id": 31,
        "category_id": 9,
        "bbox": [1, 2, 10, 5],
        "area": 12.5,
        "iscrowd": 0,
        **values,
    }


def test_labels_crowds_and_real_ids(tmp_path: Path) -> None:
    rows = [
        row(),
        row(id=71, category_id=4, iscrowd=1, segmentation={"counts": "x"}),
        {"id": 72, "image_id": 5, "category_id": 4, "bbox": [0, 0, 4, 3]},
    ]
    dataset = build_dataset(written(tmp_path, rows))
    assert dataset.class_names == ["four", "nine"] and dataset.category_ids == [4, 9]
    assert dataset.image_ids == [31, 5] and dataset.max_boxes() == 1
    found = dataset.annotations(0)
    np.testing.assert_array_equal(found.boxes, [[1, 2, 11, 7], [1, 2, 11, 7]])
    np.testing.assert_array_equal(found.labels, [1, 0])
    np.testing.assert_array_equal(found.ignore, [False, True])
    truth = dataset.coco_ground_truth()
    assert truth["annotations"][0] == row()
    assert truth["annotations"][1] == row(id=71, category_id=4, iscrowd=1)
    assert truth["annotations"][2] == row(
        id=72, image_id=5, category_id=4, bbox=[0, 0, 4, 3], area=12
    )
    assert truth["images"][1] == {"id": 5, "file_name": "a.png", "height": 50, "width": 40}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"a.json: annotation 70: wanted bbox"),
        ({"bbox": [1, 2, "x", 4]}, r"wanted bbox"),
        ({"image_id": 99}, r"annotation 70: no image has the id 99"),
        ({"category_id": 1}, r"annotation 70: no category has the id 1"),
    ],
)
def test_malformed_annotations(tmp_path: Path, change: dict, message: str) -> None:
    config = written(tmp_path, [row(id=69), row(**change)])
    with pytest.raises(ValueError, match=message):
        build_dataset(config)
    dataset = build_dataset(config, strict=False)
    assert len(dataset.problems) == 1 and len(dataset.labels(0)) == 1


def test_malformed_files(tmp_path: Path) -> None:
    config = written(tmp_path, [])
    file = tmp_path / "a.json"
    file.write_text(file.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    with pytest.raises(ValueError, match=r"a.json:1: wanted json"):
        build_dataset(config)
    with pytest.raises(ValueError, match="got no categories"):
        build_dataset(written(tmp_path, [], categories=None))
    with pytest.raises(ValueError, match="category ids must differ"):
        build_dataset(
            written(tmp_path, [], categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}])
        )
    with pytest.raises(ValueError, match="integer id and a file_name"):
        build_dataset(written(tmp_path, [], images=[{"id": 3}]))


def test_wrong_size_in_the_file(tmp_path: Path) -> None:
    config = written(
        tmp_path, [], images=[{"id": 1, "file_name": "b.png", "height": 30, "width": 20}]
    )
    with pytest.raises(ValueError, match=r"b.png: the image is 30x20 .* made for 20x30"):
        build_dataset(config).load(0)


def test_real_coco(real_data: Path) -> None:
    dataset = build_dataset(
        {
            "format": "coco",
            "images": "coco_val128/images/val2017",
            "annotations": "coco_val128/annotations/instances_val128.json",
        },
        real_data,
    )
    assert len(dataset) == 128 and len(dataset.class_names) == 80 and dataset.category_ids[-1] == 90
    truth = dataset.coco_ground_truth()
    assert (
        len(truth["annotations"]) == 906
        and sum(found["iscrowd"] for found in truth["annotations"]) == 8
    )
    assert sum(int(dataset.annotations(index).ignore.sum()) for index in range(128)) == 8
    assert dataset.load(0).image.shape[:2] == (
        dataset.annotations(0).height,
        dataset.annotations(0).width,
    )
    text = build_dataset(
        {"format": "yolo", "images": "coco_val128/val2017.txt", "names": dataset.class_names},
        real_data,
    )
    assert text.image_ids == dataset.image_ids
    for index in range(128):
        wanted, found = dataset.annotations(index), text.annotations(index)
        np.testing.assert_allclose(found.boxes, wanted.boxes[~wanted.ignore], atol=2e-3)
        np.testing.assert_array_equal(found.labels, wanted.labels[~wanted.ignore])


def test_alternatives_and_patterns(shapes_folder):
    found = build_dataset(
        {
            "format": "coco",
            "images": ["train2017", "images/train"],
            "annotations": ["annotations/none.json", "annotations/tr*.json"],
        },
        shapes_folder,
    )
    assert len(found) == 19
    with pytest.raises(ValueError, match="wanted one file, got train.json, val.json"):
        build_dataset(
            {"format": "coco", "images": "images/train", "annotations": "annotations/*.json"},
            shapes_folder,
        )
    with pytest.raises(FileNotFoundError, match="none.json"):
        build_dataset(
            {"format": "coco", "images": "images/train", "annotations": ["annotations/none.json"]},
            shapes_folder,
        )


def test_outlines_are_kept_on_demand(tmp_path: Path) -> None:
    rows = [
        row(bbox=[3, 2, 12, 10], segmentation=[[3, 2, 15, 2, 15, 12]]),
        row(id=71, iscrowd=1, segmentation={"counts": [1, 2], "size": [20, 30]}),
        row(id=72, segmentation=[[0, 0, 6, 0, 6, 5], [9, 9, 9, 9], [12, 10, 33, 10, 30, 20]]),
        row(id=73, segmentation=[]),
        row(id=74, bbox=[5, 5, 0, 4], segmentation=[[5, 5, 5, 6, 5, 9]]),
        row(id=75, image_id=5, segmentation=[[4, 5, 20, 5, 20, 25]]),
        row(id=76, segmentation=[[1, 2, 3]]),
    ]
    config = written(tmp_path, rows)
    plain = build_dataset(config)
    assert (
        not plain.has_polygons and plain.polygons(0) == [None] * 5 and plain.polygons(1) == [None]
    )
    dataset = build_dataset({**config, "polygons": True})
    first, crowd, pieces, empty, odd = dataset.polygons(0)  # 74 has no area and is gone
    assert crowd is None and empty is None and odd is None and len(dataset.labels(0)) == 5
    np.testing.assert_allclose(first * (30, 20), [[3, 2], [15, 2], [15, 12]], atol=1e-5)
    # there and back to the first point of the first piece; the image ends at 30
    np.testing.assert_allclose(
        pieces * (30, 20),
        [[0, 0], [6, 0], [6, 5], [0, 0], [12, 10], [30, 10], [30, 20], [12, 10], [0, 0]],
        atol=1e-5,
    )
    np.testing.assert_allclose(
        dataset.polygons(1)[0] * (40, 50), [[4, 5], [20, 5], [20, 25]], atol=1e-5
    )
    np.testing.assert_array_equal(dataset.annotations(0).boxes, plain.annotations(0).boxes)
    with pytest.raises(ValueError, match="polygons must be true or false, got 'yes'"):
        build_dataset({**config, "polygons": "yes"})


def test_classes_in_another_order(tmp_path: Path) -> None:
    rows = [row(), row(id=71, category_id=4, bbox=[3, 3, 5, 5])]
    dataset = build_dataset(written(tmp_path, rows))
    other = dataset.with_classes(["nine", "four"])
    assert other.class_names == ["nine", "four"] and other.category_ids == [9, 4]
    np.testing.assert_array_equal(other.annotations(0).labels, [0, 1])
    np.testing.assert_array_equal(dataset.annotations(0).labels, [1, 0])
    np.testing.assert_array_equal(other.annotations(0).boxes, dataset.annotations(0).boxes)
    assert other.coco_ground_truth() == dataset.coco_ground_truth()
    perfect = [
        record
        for image_id, found in zip(other.image_ids, map(other.annotations, range(2)), strict=True)
        for record in coco_records(
            np.column_stack([found.boxes, np.full(len(found.boxes), 0.9), found.labels]),
            image_id,
            other.category_ids,
        )
    ]
    assert evaluate_coco(other.coco_ground_truth(), perfect).ap == pytest.approx(1)

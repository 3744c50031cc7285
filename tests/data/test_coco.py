"""COCO's JSON format."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from label_sets import HEIGHT, WIDTH, coco, image, put

from mindyolo_ext.data import collector, image_file
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.formats import coco as coco_format
from mindyolo_ext.data.formats.coco_entries import outline
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.errors import DataError
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
    first, crowd, pieces, empty, odd = dataset.polygons(0)  # 74 has no area and is dropped
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


def read(folder: Path, **changes: object) -> Dataset:
    return build_dataset(coco(folder, **changes), folder)


@pytest.mark.parametrize(
    ("values", "area", "crowd"),
    [
        ({"area": None}, 400, 0),
        ({"area": "7"}, 7, 0),
        ({"area": 12.5}, 12.5, 0),
        ({"iscrowd": None}, 400, 0),
        ({"iscrowd": "0"}, 400, 0),
        ({"iscrowd": "1"}, 400, 1),
        ({"iscrowd": False}, 400, 0),
        ({"iscrowd": 1.0}, 400, 1),
        ({"id": None}, 400, 0),
        ({"image_id": "7"}, 400, 0),
        ({"image_id": 7.0, "category_id": "1"}, 400, 0),
        ({"segmentation": None}, 400, 0),
    ],
)
def test_null_is_missing_and_numbers_may_be_texts(
    tmp_path: Path, values: dict, area: float, crowd: int
) -> None:
    dataset = read(tmp_path, row=values)
    np.testing.assert_array_equal(dataset.annotations(0).ignore, [crowd, False])
    row = dataset.coco_ground_truth()["annotations"][0]
    assert row["area"] == area and row["iscrowd"] == crowd and row["id"] == 1
    assert row["image_id"] == 7 and row["category_id"] == 1
    found = [record for record in perfect(dataset) if record["category_id"] == 3 or not crowd]
    assert evaluate_coco(dataset.coco_ground_truth(), found).ap == pytest.approx(1)


def perfect(dataset: Dataset) -> list[dict]:
    """Detections that equal the boxes of the only image."""
    found = dataset.annotations(0)
    rows = np.column_stack([found.boxes, np.full(len(found.boxes), 0.9), found.labels])
    return coco_records(rows, dataset.image_ids[0], dataset.category_ids)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"area": "big"}, "annotation 1: wanted area in square pixels, got big"),
        ({"area": float("nan")}, "annotation 1: wanted area"),
        ({"area": True}, "annotation 1: wanted area"),
        ({"iscrowd": "no"}, "annotation 1: wanted iscrowd 0 or 1, got no"),
        ({"iscrowd": 2}, "annotation 1: wanted iscrowd 0 or 1"),
        ({"iscrowd": []}, "annotation 1: wanted iscrowd 0 or 1"),
        ({"bbox": None}, r"annotation 1: wanted bbox \[x, y, width, height\], got None"),
        ({"bbox": [1, 2, 3]}, "annotation 1: wanted bbox"),
        ({"bbox": [1, 2, 3, True]}, "annotation 1: wanted bbox"),
        ({"bbox": [1, 2, 3, "4"]}, "annotation 1: wanted bbox"),
        ({"bbox": [1, 2, 3, float("inf")]}, "annotation 1: wanted bbox"),
        ({"bbox": [1, 2, 3, 10**300]}, "annotation 1: wanted bbox"),
        ({"image_id": [7]}, r"annotation 1: no image has the id \[7\]"),
        ({"image_id": None}, "annotation 1: no image has the id None"),
        ({"category_id": 2**70}, "annotation 1: no category has the id 1180591620717411303424"),
        ({"category_id": {}}, "annotation 1: no category has the id {}"),
        ({"category_id": True}, "annotation 1: no category has the id True"),
        ({"id": "x"}, "annotation number 1: wanted an integer id, got x"),
        ({"id": [1]}, r"annotation number 1: wanted an integer id, got \[1\]"),
    ],
)
def test_faulty_annotations_are_left_out_and_told(
    tmp_path: Path, values: dict, message: str
) -> None:
    description = coco(tmp_path, row=values)
    with pytest.raises(DataError, match="ann.json: " + message):
        build_dataset(description, tmp_path)
    dataset = build_dataset(description, tmp_path, strict=False)
    np.testing.assert_array_equal(dataset.annotations(0).labels, [1])
    assert len(dataset.coco_ground_truth()["annotations"]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 1}]}, r"category number 1 \(id 1\): wanted a name, got None"),
        ({"categories": [{"id": 1, "name": [1]}]}, "wanted a name"),
        ({"categories": [{"name": "cat"}]}, "category number 1: wanted an integer id, got None"),
        ({"categories": [{"id": "x", "name": "cat"}]}, "wanted an integer id, got x"),
        ({"categories": ["cat"]}, "category number 1: wanted an id and a name, got cat"),
        ({"categories": [{"id": 1, "name": "a"}] * 2}, "category ids must differ, got 1 twice"),
        ({"categories": []}, "wanted at least one class"),
        ({"images": [None]}, "image number 1: wanted an id and a file_name, got None"),
        ({"images": [{"id": 7}]}, "image 7: wanted an integer id and a file_name"),
        ({"images": [{"id": [7], "file_name": "a"}]}, "image number 1: wanted an integer id"),
        (
            {"images": [{"id": 7, "file_name": "a.jpg"}] * 2},
            "image 7: a second image with this id, a.jpg",
        ),
        (
            {"images": [{"id": 7, "file_name": "a.jpg", "height": -1, "width": 80}]},
            r"image 7: wanted height and width in pixels, got \[-1, 80\]",
        ),
        ({"annotations": [None]}, "annotation number 1: wanted bbox, image_id and category_id"),
        ({"annotations": None}, "got no annotations"),
    ],
)
def test_faulty_parts_of_the_file(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(DataError, match="ann.json") as caught:
        read(tmp_path, **changes)
    assert re.search(message, str(caught.value))


@pytest.mark.parametrize("value", [None, 0, ""])
def test_sizes_that_are_not_told(tmp_path: Path, value: object) -> None:
    entry = {"id": 7, "file_name": "a.jpg", "height": value, "width": value}
    dataset = read(tmp_path, images=[entry])
    assert dataset.size(0) == (HEIGHT, WIDTH)
    truth = dataset.coco_ground_truth()["images"]
    assert truth == [{"id": 7, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "wanted json of COCO, got lists nested too deep"),
        ('{"images": ' + "9" * 5000 + "}", "wanted json: Exceeds the limit"),
        ('[{"image_id": 1, "bbox": [], "score": 0.5}]', "got a list of detections"),
        ("5", "got a int"),
        ('{"images": [}', "ann.json:1: wanted json"),
        (b"\xff\xfe\x00", "ann.json: wanted UTF-8"),
        ("", "ann.json:1: wanted json"),
    ],
)
def test_files_that_are_no_coco(tmp_path: Path, content: str | bytes, message: str) -> None:
    description = coco(tmp_path)
    put(tmp_path / "ann.json", content)
    with pytest.raises(DataError, match=message) as caught:
        build_dataset(description, tmp_path)
    assert "ann.json" in str(caught.value)


def test_byte_order_mark_and_names_of_windows(tmp_path: Path) -> None:
    entry = {"id": 7, "file_name": "sub\\b.jpg", "height": HEIGHT, "width": WIDTH}
    description = coco(tmp_path, images=[entry])
    image(tmp_path / "img/sub/b.jpg")
    content = (tmp_path / "ann.json").read_text(encoding="utf-8")
    put(tmp_path / "ann.json", content.encode("utf-8-sig"))
    assert build_dataset(description, tmp_path).load(0).path.endswith("sub/b.jpg")


def test_labels_of_the_stored_pixels_of_a_turned_photo(tmp_path: Path) -> None:
    description = coco(tmp_path)
    image(tmp_path / "img/a.jpg", orientation=6)
    with pytest.raises(DataError, match=r"a.jpg: the image is 40x80 .*for 80x40 .*EXIF.*exiftool"):
        build_dataset(description, tmp_path)
    upright = {"id": 7, "file_name": "a.jpg", "height": WIDTH, "width": HEIGHT}
    rows = [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [5, 50, 20, 20]}]
    description = coco(tmp_path, images=[upright], annotations=rows)
    image(tmp_path / "img/a.jpg", orientation=6)
    np.testing.assert_array_equal(
        build_dataset(description, tmp_path).load(0).boxes, [[5, 50, 25, 70]]
    )


def test_outlines_that_are_none() -> None:
    assert outline([[1, 2, 3, 4, "5", 6]]) is None and outline(None) is None
    assert outline([[1, 2, 3, 4, 5, 10**400]]) is None and outline([[float("nan")] * 6]) is None


def test_a_training_looks_at_some_headers_and_a_check_at_all(tmp_path, monkeypatch):
    images = [{"id": n, "file_name": "a.png", "height": 50, "width": 40} for n in range(1, 13)]
    config = written(tmp_path, [], images=images)
    seen = []
    monkeypatch.setattr(coco_format, "_HEADERS", 4)
    monkeypatch.setattr(
        collector, "image_size", lambda path: seen.append(path) or image_file.image_size(path)
    )
    build_dataset(config)
    assert len(seen) == 4
    build_dataset(config, strict=False)
    assert len(seen) == 4 + 12

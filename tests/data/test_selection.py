"""Parts of a data set: some classes, all classes as one, a share of the images."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from label_sets import HEIGHT, WIDTH, image, put

from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.selection import ONE_CLASS, as_one_class, only_classes, selected, share_of
from mindyolo_ext.errors import ConfigError, DataError

NAMES = ("cat", "dog", "owl")
# per image: label, and where its box begins
ROWS = [[(0, 1), (1, 2)], [], [(2, 3), (0, 4), (2, 5)], [(1, 6)]]


def triangle(start: float) -> np.ndarray:
    return np.array([[start, 0], [start + 1, 0], [start, 1]], np.float32)


def small(*, cache: bool = False) -> Dataset:
    """Four images; boxes and outlines show which image they come from; the last is ignored."""
    annotations = [
        (
            np.array([[x, 0, x + 1, 1] for _, x in rows], np.float32).reshape(-1, 4),
            np.array([label for label, _ in rows], np.int64),
            np.array([x == 6 for _, x in rows], bool),
        )
        for rows in ROWS
    ]
    return Dataset(
        "pets",
        NAMES,
        [f"{number}.png" for number in range(4)],
        [10, 20, 30, 40],
        annotations=annotations,
        sizes=[(100, 100 + number) for number in range(4)],
        polygons=[[triangle(x) if x % 2 else None for _, x in rows] for rows in ROWS],
        cache=cache,
    )


def starts(dataset: Dataset) -> list[list[tuple[int, float]]]:
    """The same as ``ROWS``, computed from the boxes."""
    found = [dataset.annotations(index) for index in range(len(dataset))]
    return [list(zip(its.labels.tolist(), its.boxes[:, 0].tolist(), strict=True)) for its in found]


def check_outlines(dataset: Dataset) -> None:
    """Make sure that every outline belongs to its box."""
    for index in range(len(dataset)):
        for (_, x), outline in zip(starts(dataset)[index], dataset.polygons(index), strict=True):
            assert (outline is None) == (x % 2 == 0)
            if outline is not None:
                np.testing.assert_array_equal(outline, triangle(x))


@pytest.mark.parametrize("classes", [["owl", "cat"], [2, 0], ["owl", 0], ["OWL", "cat "]])
def test_classes_that_stay_are_numbered_anew(classes: list, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    before = small()
    found = selected(before, classes=classes)
    assert found.class_names == ["owl", "cat"] and found.category_ids == [3, 1]
    assert starts(found) == [[(1, 1)], [], [(0, 3), (1, 4), (0, 5)], []]
    assert len(found) == 4 and found.image_ids == before.image_ids and found.size(3) == (100, 103)
    check_outlines(found)
    assert starts(before) == ROWS  # untouched
    truth = found.coco_ground_truth()
    assert [row["category_id"] for row in truth["annotations"]] == [1, 3, 1, 3]
    assert caplog.messages == [
        "pets: data.classes keeps owl, cat: 4 of 5 boxes; 2 image(s) have none of them and stay "
        "as background"
    ]


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        (["ow"], "data.classes: pets has no class ow, did you mean owl?"),
        ([3], "data.classes: wanted a number from 0 to 2, for the classes of pets, got 3"),
        (["cat", 0], "data.classes: duplicate class cat"),
    ],
)
def test_classes_that_are_not_there(classes: list, problem: str):
    with pytest.raises(ConfigError) as caught:
        only_classes(small(), classes)
    assert str(caught.value) == problem


def test_a_choice_without_a_box_is_told():
    cat_and_owls = small().only_images(np.array([2]))
    with pytest.raises(DataError) as caught:
        only_classes(cat_and_owls, ["dog"])
    assert str(caught.value) == (
        "pets: none of its 3 boxes is of data.classes dog; it has boxes of cat, owl"
    )


def test_all_classes_as_one():
    found = as_one_class(small())
    assert found.class_names == [ONE_CLASS] and found.category_ids == [1]
    assert starts(found) == [[(0, x) for _, x in rows] for rows in ROWS]
    check_outlines(found)
    assert found.boxes_per_image().tolist() == [2, 0, 3, 0]  # crowds are still ignored
    one = only_classes(small(), ["cat"])
    assert as_one_class(one) is one
    both = selected(small(), classes=["cat", "dog"], single_cls=True)
    assert starts(both) == [[(0, 1), (0, 2)], [], [(0, 4)], [(0, 6)]]


def test_a_share_of_the_images():
    dataset = small(cache=True)
    shares = [share_of(dataset, fraction, seed=3) for fraction in (0.01, 0.25, 0.5, 0.75)]
    assert [len(share) for share in shares] == [1, 1, 2, 3]
    for small_one, larger in zip(shares, shares[1:]):
        assert set(small_one.paths) <= set(larger.paths)
    for share in shares:
        index = [dataset.paths.index(path) for path in share.paths]
        assert index == sorted(index)
        assert starts(share) == [ROWS[i] for i in index]
        assert share.image_ids == [dataset.image_ids[i] for i in index]
        check_outlines(share)
    assert share_of(dataset, 0.5, seed=3).paths == shares[2].paths
    others = {tuple(share_of(dataset, 0.5, seed=seed).paths) for seed in range(9)}
    assert len(others) > 2
    assert selected(dataset) is dataset


@pytest.fixture
def coco_set(tmp_path: Path) -> Dataset:
    """Three images in COCO format, with ids, areas and crowds that cannot be derived from the
    boxes.
    """
    content = {
        "images": [
            {"id": 70 + n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH}
            for n in range(3)
        ],
        "categories": [
            {"id": 5, "name": "owl"},
            {"id": 2, "name": "cat"},
            {"id": 3, "name": "dog"},
        ],
        "annotations": [
            {
                "id": 100 + number,
                "image_id": 70 + image_number,
                "category_id": category,
                "bbox": [number, 10, 20, 20],
                "area": 7 + number,
                "iscrowd": int(number == 3),
                "segmentation": [[number, 10, number + 20, 10, number, 30]],
            }
            for number, (image_number, category) in enumerate(
                [(2, 2), (0, 5), (0, 2), (1, 5), (2, 3)]
            )
        ],
    }
    for row in content["annotations"]:
        if row["iscrowd"]:
            del row["segmentation"]
    for number in range(3):
        image(tmp_path / f"img/{number}.jpg")
    put(tmp_path / "ann.json", json.dumps(content))
    description = {"format": "coco", "images": "img", "annotations": "ann.json", "polygons": True}
    return build_dataset(description, tmp_path)


def truth_of(dataset: Dataset) -> tuple:
    """(image ids, annotations as (id, image, category, area, crowd), categories)."""
    truth = dataset.coco_ground_truth()
    keys = ("id", "image_id", "category_id", "area", "iscrowd")
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    rows = {tuple(row[key] for key in keys) for row in truth["annotations"]}
    return names, rows, {its["id"]: its["name"] for its in truth["categories"]}


def test_the_ground_truth_of_a_coco_file_follows(coco_set: Dataset):
    every = {70: "0.jpg", 71: "1.jpg", 72: "2.jpg"}
    found = only_classes(coco_set.with_classes(["dog", "owl", "cat"]), ["owl", "cat"])
    assert found.category_ids == [5, 2]
    rows = {(100, 72, 2, 7, 0), (101, 70, 5, 8, 0), (102, 70, 2, 9, 0), (103, 71, 5, 10, 1)}
    assert truth_of(found) == (every, rows, {5: "owl", 2: "cat"})
    one = as_one_class(found)
    assert truth_of(one) == (every, {(*row[:2], 1, *row[3:]) for row in rows}, {1: ONE_CLASS})
    part = found.only_images(np.array([1, 2]))
    assert truth_of(part) == (
        {71: "1.jpg", 72: "2.jpg"},
        {row for row in rows if row[1] != 70},
        {5: "owl", 2: "cat"},
    )
    assert [its.labels.tolist() for its in map(part.annotations, range(2))] == [[0], [1]]
    assert part.annotations(0).ignore.all() and part.polygons(0) == [None]
    np.testing.assert_allclose(part.polygons(1)[0] * (WIDTH, HEIGHT), [(0, 10), (20, 10), (0, 30)])
    assert truth_of(coco_set)[1] == rows | {(104, 72, 3, 11, 0)}  # untouched
    again = pickle.loads(pickle.dumps(part))  # as in a worker process
    assert truth_of(again) == truth_of(part)

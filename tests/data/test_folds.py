"""Folds: each image is in exactly one, classes are spread evenly, and the written files can be
read.
"""

import json
from pathlib import Path

import label_sets
import numpy as np
import pytest
from helpers import Command

from mindyolo_ext.config import load_config
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.folds import assign_folds
from mindyolo_ext.data.shapes import make_shapes_dataset
from mindyolo_ext.errors import UsageError


def labeled(labels: list[list[int]]) -> Dataset:
    """A data set whose labels alone matter."""
    annotations = [
        (
            np.tile(np.float32([0, 0, 1, 1]), (len(its), 1)),
            np.array(its, int),
            np.zeros(len(its), bool),
        )
        for its in labels
    ]
    return Dataset(
        "made",
        ["a", "b", "c"],
        [f"{n}.png" for n in range(len(labels))],
        list(range(len(labels))),
        annotations=annotations,
        sizes=[(9, 9)] * len(labels),
    )


def test_rare_classes_are_spread_before_common_ones():
    # 40 images of class 0, of which 5 also have class 1; 5 with three boxes of class 2; 10 empty
    labels = [[0, 1]] * 5 + [[0]] * 35 + [[2, 2, 2]] * 5 + [[]] * 10
    dataset = labeled(labels)
    fold_of = assign_folds(dataset, 5, seed=0)
    for fold in range(5):
        part = dataset.only_images(np.flatnonzero(fold_of == fold))
        assert part.class_counts().tolist() == [8, 1, 3] and len(part) == 11
    np.testing.assert_array_equal(fold_of, assign_folds(dataset, 5, seed=0))
    assert (fold_of != assign_folds(dataset, 5, seed=1)).any()


def test_sizes_stay_close_where_nothing_divides_evenly():
    rng = np.random.default_rng(0)
    labels = [rng.choice(3, rng.integers(0, 6), p=[0.9, 0.08, 0.02]).tolist() for _ in range(203)]
    dataset = labeled(labels)
    fold_of = assign_folds(dataset, 4, seed=0)
    parts = [dataset.only_images(np.flatnonzero(fold_of == fold)) for fold in range(4)]
    assert sum(map(len, parts)) == 203 and np.ptp([len(part) for part in parts]) == 1
    counts = np.array([part.class_counts() for part in parts])
    assert (np.ptp(counts, axis=0) <= [6, 4, 2]).all(), counts


@pytest.mark.parametrize("folds", [1, 5])
def test_too_few_or_too_many(folds: int):
    with pytest.raises(
        UsageError, match=f"wanted 2..4 folds, the number of images of made, got {folds}"
    ):
        assign_folds(labeled([[0]] * 4), folds)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes_dataset(
        tmp_path_factory.mktemp("folds"),
        train_images=6,
        val_images=1,
        size=(64, 64),
        progress=False,
    )


def read_folds(recipes: list[Path]) -> list[Dataset]:
    """The validation part of each fold; also checks that both parts together are the whole set."""
    found = []
    for recipe in recipes:
        data = load_config(recipe).data
        train, val = (build_dataset(part, data.root) for part in (data.train, data.val))
        assert not set(train.paths) & set(val.paths)
        found.append(val)
    return found


def test_of_a_yolo_set(shapes: Path, tmp_path: Path, command: Command):
    """The files of a set without COCO annotations, which other programs also read."""
    out = tmp_path / "folds"
    words = ("split", "--data", shapes / "shapes.yaml", "--folds", 3, "--save_dir", out)
    status, output = command(*map(str, words))
    assert status == 0, output
    assert "fold0.yaml" in output and "circle" in output
    parts = read_folds(sorted(out.glob("*.yaml")))
    whole = build_dataset(
        {"format": "yolo", "data": str(shapes / "shapes.yaml"), "split": "train"}, shapes
    )
    assert sorted(path for part in parts for path in part.paths) == sorted(whole.paths)
    for fold, part in enumerate(parts):
        again = build_dataset(
            {"format": "yolo", "data": str(out / f"fold{fold}/data.yaml"), "split": "val"}, tmp_path
        )
        assert again.paths == part.paths and again.class_names == part.class_names
        for index, path in enumerate(part.paths):
            wanted = whole.annotations(whole.paths.index(path))
            for found in (part.annotations(index), again.annotations(index)):
                np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-3)
                np.testing.assert_array_equal(found.labels, wanted.labels)
    status, output = command(*map(str, words))
    assert status == 1 and "fold0.yaml already exists; choose another --save_dir" in output


def test_of_a_coco_set_keeps_all_that_its_file_says(tmp_path: Path, command: Command):
    images = [
        {"id": n, "file_name": "a.jpg", "height": 40, "width": 80, "license": 3} for n in (7, 8, 9)
    ]
    for image in images:
        image["file_name"] = f"{image['id']}.jpg"
        label_sets.image(tmp_path / "img" / image["file_name"])
    outline = [[30, 10, 50, 10, 30, 30]]
    rows = [
        {
            "id": n, "image_id": n, "category_id": 1, "bbox": [30, 10, 20, 20], "iscrowd": 0,
            "area": 200, "segmentation": outline, "attributes": {"n": n},
        }
        for n in (7, 8, 9)
    ]  # fmt: skip
    content = {
        "info": {"year": 2026},
        "images": images,
        "categories": [{"id": 1, "name": "cat", "supercategory": "pet"}],
        "annotations": rows,
    }
    label_sets.put(tmp_path / "ann.json", json.dumps(content))
    description = "{format: coco, images: img, annotations: ann.json, polygons: true}"
    recipe = label_sets.put(
        tmp_path / "mine.yaml", f"data: {{root: {tmp_path}, train: {description}}}"
    )
    out = tmp_path / "out"
    status, output = command(
        "split", "--config", str(recipe), "--folds", "3", "--save_dir", str(out)
    )
    assert status == 0, output
    parts = read_folds(sorted(out.glob("*.yaml")))
    assert sorted(part.image_ids[0] for part in parts) == [7, 8, 9]
    assert all(part.has_polygons for part in parts)
    for fold, part in enumerate(parts):
        written = json.loads((out / f"fold{fold}/val.json").read_text(encoding="utf-8"))
        own = part.image_ids[0]
        assert written == {
            **content,
            "images": [images[own - 7]],
            "annotations": [rows[own - 7]],
        }

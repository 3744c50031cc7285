"""The synthetic data set."""

import json
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.shapes import SHAPE_NAMES, draw_shapes, make_shapes_dataset


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_shapes_dataset(
            tmp_path / name,
            train_images=2,
            val_images=1,
            size=(64, 80),
            seed=seed,
            image_format="png",
            progress=False,
        )
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert (
        files(tmp_path / "a")["labels/train/000001.txt"]
        != files(tmp_path / "c")["labels/train/000001.txt"]
    )
    assert (
        files(tmp_path / "a")["images/train/000001.png"]
        != files(tmp_path / "a")["images/val/000001.png"]
    )


def test_labels_are_well_formed(shapes_folder: Path) -> None:
    content = json.loads((shapes_folder / "annotations/train.json").read_text(encoding="utf-8"))
    assert [category["name"] for category in content["categories"]] == list(SHAPE_NAMES)
    assert len(content["images"]) == 19 and len(
        {row["id"] for row in content["annotations"]}
    ) == len(content["annotations"])
    for config in (
        {"format": "coco", "images": "images/val", "annotations": "annotations/val.json"},
        {"format": "yolo", "data": "shapes.yaml", "split": "val"},
        {"format": "darknet", "data": "shapes.data", "split": "val"},
    ):
        assert not build_dataset(config, shapes_folder).problems


def test_boxes_frame_visible_shapes() -> None:
    labels = []
    for seed in range(40):
        image, boxes, found = draw_shapes(np.random.default_rng(seed), (120, 160))
        labels += found.tolist()
        assert image.shape == (120, 160, 3) and image.dtype == np.uint8 and image.std() > 10
        assert 1 <= len(boxes) <= 4 and boxes.dtype == np.float32
        assert (
            (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 160).all() and (boxes[:, 3] <= 120).all()
        )
        assert (boxes[:, 2:] - boxes[:, :2] >= 10).all()
    assert min(np.bincount(labels, minlength=3)) > 10


def test_faulty_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image_format must be jpg or png, got 'gif'"):
        make_shapes_dataset(tmp_path, image_format="gif")
    with pytest.raises(ValueError, match="sides from 64"):
        make_shapes_dataset(tmp_path, size=(32, 64))

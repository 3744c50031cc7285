"""Training on rectangles, on a share of the images, on one class, and with frozen layers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.backend import launch
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.backend.train_step import TrainStep
from mindyolo_ext.checkpoint.store import load_checkpoint
from mindyolo_ext.config import Config, config_from_mapping
from mindyolo_ext.data.shapes import SHAPE_NAMES, make_shapes_dataset
from mindyolo_ext.engine.build import new_model
from mindyolo_ext.engine.train import train

# MindSpore takes minutes to compile the step for every input size
pytestmark = pytest.mark.needs_torch
FROZEN = ("backbone.first_conv.", "backbone.stage2.0.")  # the first three layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven landscape and six portrait images in one list."""
    launch.start("CPU", seed=0)
    made = tmp_path_factory.mktemp("options")
    paths: list[Path] = []
    for name, count, size in (("lying", 7, (64, 96)), ("upright", 6, (128, 64))):
        make_shapes_dataset(
            made / name, train_images=count, val_images=2, size=size, progress=False
        )
        paths += sorted((made / name / "images/train").glob("*.jpg"))
    (made / "all.txt").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    return made


def recipe(folder: Path, data: dict, settings: dict, *, run_eval: bool = False) -> Config:
    """Two epochs in batches of two."""
    train_set = {"format": "yolo", "images": "all.txt", "names": list(SHAPE_NAMES)}
    val = {**train_set, "images": "lying/images/val"}
    anchors = [[10, 10], [16, 16], [22, 22], [26, 26], [32, 32], [40, 40]]
    return config_from_mapping(
        {
            "model": {"name": "yolo_fastestv2", "keywords": {"anchors": anchors}},
            "input": {"size": [128, 128], "resize": "letterbox"},
            "data": {
                "root": str(folder),
                "train": train_set,
                "val": val,
                "augment": ["mosaic"],
                "workers": 0,
                **data,
            },
            "train": {"epochs": 2, "per_batch_size": 2, "run_eval": run_eval, **settings},
        }
    )


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list:
    """Images and targets of every step that a training takes."""
    seen, take = [], TrainStep.take

    def spy(self, images, targets, mask, *rest):
        seen.append((images.copy(), targets[mask > 0]))
        return take(self, images, targets, mask, *rest)

    monkeypatch.setattr(TrainStep, "take", spy)
    return seen


def test_rectangular_training_goes_on_as_if_it_had_not_stopped(
    folder: Path, tmp_path: Path, steps: list
):
    config = recipe(folder, {}, {"rectangular": True})
    launch.set_seed(0)
    train(config, tmp_path / "whole")
    shapes = [images.shape[1:3] for images, _ in steps]
    # one of 13 images is left over: 3 landscape and 3 portrait batches, or one batch of both
    assert len(shapes) == 12 and set(shapes) <= {(96, 128), (128, 64), (128, 128)}
    assert {(96, 128), (128, 64)} <= set(shapes[:6]) and shapes[:6] != shapes[6:]
    for images, _ in steps:  # no mosaic: the padding around one image
        if images.shape[1:3] == (96, 128):
            assert (images[:, :4] == 114).all() and (images[:, 20:76] != 114).mean() > 0.9
    seen = [images for images, _ in steps]
    steps.clear()
    launch.set_seed(0)
    train(replace(config, train=replace(config.train, epochs=1)), tmp_path / "halves")
    train(config, tmp_path / "halves", resume=True)
    for one, other in zip(seen, [images for images, _ in steps], strict=True):
        np.testing.assert_array_equal(one, other)
    whole, halves = (
        load_checkpoint(tmp_path / run / "weights/last.ckpt")[0] for run in ("whole", "halves")
    )
    for name, value in whole.items():
        np.testing.assert_array_equal(value, halves[name], err_msg=name)


def test_a_part_of_the_data_and_of_the_layers(folder: Path, tmp_path: Path, steps: list):
    data = {"fraction": 0.5, "single_cls": True, "classes": ["circle", "square"]}
    settings = {"epochs": 1, "freeze": [0, 1, 2]}
    config = recipe(folder, data, settings, run_eval=True)
    launch.set_seed(0)
    train(config, tmp_path / "run")
    assert len(steps) == 3  # of 6 images
    assert all(not targets[:, 0].any() for _, targets in steps)
    values, metadata = load_checkpoint(tmp_path / "run/weights/last.ckpt")
    assert metadata.class_names == ["object"] and metadata.num_classes == 1
    assert metadata.metrics["AP"] >= 0
    launch.set_seed(0)
    fresh = parameter_values(new_model(config, 1))
    learned = {name for name, value in fresh.items() if (values[name] != value).any()}
    learned = {name for name in learned if "moving_" not in name}
    assert "backbone.stage2.1.branch_main.0.weight" in learned
    assert not {name for name in learned if name.startswith(FROZEN)}

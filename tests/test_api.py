"""``mindyolo_ext.train`` and ``evaluate``: the recipes that their arguments give."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import original_name
from seeded import seeded_tensor

import mindyolo_ext
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.config import load_config
from mindyolo_ext.data.shapes import SHAPE_NAMES
from mindyolo_ext.engine.train import TrainResult
from mindyolo_ext.errors import ConfigError, MissingFileError, UsageError
from mindyolo_ext.models.registry import create_model

Runs = list[tuple[Any, dict[str, Any]]]


@pytest.fixture
def data(shapes_folder: Path, tmp_path: Path) -> Path:
    """A data.yaml of the drawn images."""
    names = "\n".join(f"  {number}: {name}" for number, name in enumerate(SHAPE_NAMES))
    path = tmp_path / "data.yaml"
    path.write_text(
        f"path: {shapes_folder}\ntrain: images/train\nval: images/val\nnames:\n{names}\n"
    )
    return path


@pytest.fixture
def weight(tmp_path: Path) -> Path:
    """A checkpoint of seeded weights."""
    model = create_model("yolo_fastestv2", num_classes=len(SHAPE_NAMES))
    values = {
        name: seeded_tensor(original_name(name), array.shape, 0, 1.2)
        for name, array in parameter_values(model).items()
    }
    path, names = tmp_path / "seeded.ckpt", list(SHAPE_NAMES)
    spec = replace(model.input_spec, size=(64, 96))
    architecture = dict(model.architecture)
    save_checkpoint(
        path, values, CheckpointMetadata("yolo_fastestv2", len(names), names, spec, architecture)
    )
    return path


def test_train_makes_the_recipe_of_its_arguments(runs: Runs, data: Path, tmp_path: Path):
    mindyolo_ext.train(
        "yolox-nano",
        tmp_path / "run",
        data=data,
        weight=tmp_path / "w.ckpt",
        epochs=3,
        batch=4,
        size=(64, 96),
        settings={"train.optimizer.lr": 0.5, "train.epochs": 5, "data.class_names": ["a b", "c"]},
        device_target="CPU",
    )
    config, started = runs[0]
    assert config.model.name == "yolox_nano"
    assert config.data.train["data"] == str(data)
    assert config.train.weight == str(tmp_path / "w.ckpt")
    assert (config.train.epochs, config.train.per_batch_size) == (5, 4)  # settings win
    assert config.train.optimizer.lr == 0.5 and list(config.input.size) == [64, 96]
    assert list(config.data.class_names) == ["a b", "c"]
    assert (started["save_dir"], started["device_target"]) == (tmp_path / "run", "CPU")
    assert started["seed"] == config.train.seed


def test_train_without_more_is_the_recipe(runs: Runs):
    mindyolo_ext.train("yolox-nano")
    recipe = load_config("yolox-nano")
    mindyolo_ext.train(recipe, "there", size=64)
    (first, how), (second, there) = runs
    assert first == recipe and how["save_dir"] == Path("runs/yolox-nano")
    assert list(second.input.size) == [64, 64] and there["save_dir"] == Path("there")


def test_train_refuses_what_no_recipe_has(runs: Runs, data: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"train.epoch, did you mean train.epochs\?"):
        mindyolo_ext.train("yolox-nano", settings={"train.epoch": 3})
    with pytest.raises(MissingFileError, match="yolox-nan"):
        mindyolo_ext.train("yolox-nan")
    with pytest.raises(MissingFileError, match="none.yaml: no such file"):
        mindyolo_ext.train("yolox-nano", data=tmp_path / "none.yaml")
    data.write_text(data.read_text().replace("val: images/val\n", ""))
    with pytest.raises(UsageError, match="names no images to evaluate on"):
        mindyolo_ext.train("yolox-nano", data=data)
    mindyolo_ext.train("yolox-nano", data=data, settings={"train.run_eval": False})
    assert len(runs) == 1


def test_best_checkpoint_of_a_run(tmp_path: Path):
    result = TrainResult(tmp_path, 0, 0.0, {})
    with pytest.raises(MissingFileError, match="holds no checkpoint"):
        result.best  # noqa: B018
    (tmp_path / "weights").mkdir()
    for name in ("last.safetensors", "best.safetensors"):
        (tmp_path / "weights" / name).touch()
        assert result.best.name == name


def test_evaluate(weight: Path, data: Path, tmp_path: Path):
    found = mindyolo_ext.evaluate(weight, data=data, device_target="CPU", batch=2)
    assert len(found.detections) == 5
    assert {"AP", "AP50"} <= set(found.values())
    assert not (tmp_path / "out").exists()
    fewer = mindyolo_ext.evaluate(
        weight,
        "yolo-fastestv2",
        data=data,
        save_dir=tmp_path / "out",
        size=64,
        settings={"eval.max_detections": 2},
    )
    assert max(len(rows) for rows in fewer.detections) == 2
    assert {"metrics.txt", "detections.json"} <= {p.name for p in (tmp_path / "out").iterdir()}
    with pytest.raises(UsageError, match="split must be train, val or test, got 'all'"):
        mindyolo_ext.evaluate(weight, data=data, split="all")


def test_convert_goes_both_ways(weight: Path, tmp_path: Path):
    back, again = tmp_path / "back.pth", tmp_path / "again.ckpt"
    mindyolo_ext.convert(weight, back)
    report = mindyolo_ext.convert(back, again)
    assert (report.model, report.num_classes) == ("yolo_fastestv2", len(SHAPE_NAMES))
    with pytest.raises(UsageError, match="back.pt: the conversion .* does not take --names"):
        mindyolo_ext.convert(weight, tmp_path / "back.pt", names=tmp_path / "x.names")

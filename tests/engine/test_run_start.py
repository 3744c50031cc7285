"""What a training does before its first step: its folder, its classes, and the run it continues."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from mindyolo_ext.backend import BACKEND, launch
from mindyolo_ext.backend.choice import INSTALL
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, load_checkpoint, save_checkpoint
from mindyolo_ext.config import Config, config_from_mapping, load_config, override
from mindyolo_ext.engine.run_finish import Run
from mindyolo_ext.engine.run_folder import locked
from mindyolo_ext.engine.run_log import RunLog
from mindyolo_ext.engine.train import train
from mindyolo_ext.errors import ConfigError, ExistingFileError, MissingFileError
from mindyolo_ext.evaluation import confusion
from mindyolo_ext.models.registry import create_model


@pytest.fixture(scope="module")
def config(shapes_folder: Path) -> Config:
    launch.start("CPU", graph_mode=False, seed=0)
    split = {"format": "coco", "images": "images/train", "annotations": "annotations/train.json"}
    return config_from_mapping(
        {
            "model": {"name": "yolo_fastestv2"},
            "input": {"size": [64, 64]},
            "data": {
                "root": str(shapes_folder),
                "train": split,
                "augment": ["resize"],
                "workers": 0,
            },
            "train": {"epochs": 2, "per_batch_size": 4, "run_eval": False},
        }
    )


def checkpoint(path: Path, names: list[str], **more: object) -> Path:
    """Fresh weights of the recipe's network, for classes of these names."""
    model = create_model("yolo_fastestv2", num_classes=len(names))
    metadata = CheckpointMetadata(
        "yolo_fastestv2",
        len(names),
        names,
        replace(model.input_spec, size=(64, 64)),
        dict(model.architecture),
        **more,
    )
    save_checkpoint(path, parameter_values(model), metadata)
    return path


def finished(folder: Path, config: Config, names: list[str], **more: object) -> Path:
    """The last checkpoint of a run that has done all epochs of ``config``.

    Args:
        more: further entries of its state.
    """
    state = {
        "updates": 8,
        "best_epoch": -1,
        "best_fitness": -1.0,
        "world_size": 1,
        "per_batch_size": config.train.per_batch_size,
        "config": config.to_yaml(),
        **more,
    }
    return checkpoint(
        folder / "weights" / "last.ckpt",
        names,
        epoch=config.train.epochs - 1,
        extra={"training": state},
    )


def names_of(config: Config, tmp_path: Path) -> list[str]:
    return Run(config, tmp_path / "names", False, RunLog()).dataset.class_names


def test_fine_tuning_takes_the_order_of_the_checkpoint(config, tmp_path, caplog):
    names = names_of(config, tmp_path)
    weight = checkpoint(tmp_path / "w.ckpt", [name.upper() for name in names[::-1]])
    tuning = override(config, [f"train.weight={weight}"])
    run = Run(tuning, tmp_path / "run", False, RunLog())
    assert run.dataset.class_names == names[::-1] and "order of the checkpoint" in caplog.text
    plain = Run(config, tmp_path / "plain", False, RunLog())
    for index in range(len(plain.dataset)):
        assert [names[label] for label in plain.dataset.labels(index)] == [
            names[::-1][label] for label in run.dataset.labels(index)
        ]
    assert load_config(tmp_path / "run" / "config.yaml").data.class_names == names[::-1]


def test_the_backend_is_recorded(config, tmp_path):
    Run(config, tmp_path, False, RunLog())
    for name in ("config.yaml", "in_force.yaml"):
        assert load_config(tmp_path / name).train.backend == BACKEND


def test_a_missing_supervision_is_told_at_the_start(config, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(confusion, "_problem", lambda: "a package is missing")
    told = "no confusion matrix will be drawn: a package is missing"
    split = "{format: coco, images: images/val, annotations: annotations/val.json}"
    evaluated = override(config, [f"data.val={split}", "train.run_eval=true"])
    Run(evaluated, tmp_path / "told", False, RunLog())
    assert caplog.messages.count(told) == 1
    Run(override(evaluated, ["train.pictures=false"]), tmp_path / "quiet", False, RunLog())
    assert caplog.messages.count(told) == 1


def test_a_run_of_another_backend_goes_on_and_says_so(config, tmp_path, caplog):
    other = next(name for name in INSTALL if name != BACKEND)
    begun = override(config, ["train.epochs=1", f"train.backend={other}"])
    finished(tmp_path, begun, names_of(config, tmp_path), backend=other)
    run = Run(override(config, [f"train.backend={BACKEND}"]), tmp_path, True, RunLog())
    assert run.first_epoch == 1 and not run.is_over
    assert (
        f"resuming on {BACKEND}, the run was on {other}: it continues, but not bit" in caplog.text
    )
    assert load_config(tmp_path / "config.yaml").train.backend == BACKEND


def test_a_finished_run_is_left_as_it_is(config, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    last = finished(tmp_path / "run", config, names_of(config, tmp_path))
    before = last.read_bytes()
    result = train(config, tmp_path / "run", resume=True)
    assert result.best_epoch == -1 and "nothing is left to do" in caplog.text
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["weights"]
    assert last.read_bytes() == before


def test_another_recipe_does_not_touch_the_run(config, tmp_path):
    names = names_of(config, tmp_path)
    last = finished(tmp_path / "run", override(config, ["train.epochs=1"]), names)
    with pytest.raises(ConfigError, match="train.optimizer.lr: 0.01 before, 0.5 now"):
        train(override(config, ["train.optimizer.lr=0.5"]), tmp_path / "run", resume=True)
    finished(tmp_path / "run", override(config, ["train.epochs=1"]), names[::-1])
    with pytest.raises(ConfigError, match="in another order"):
        train(config, tmp_path / "run", resume=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["weights"]
    assert load_checkpoint(last)[1].epoch == 0


def test_a_folder_in_use_is_refused_before_anything_is_read(config, tmp_path):
    elsewhere = override(config, ["data.root=/nowhere"])
    with locked(tmp_path), pytest.raises(ExistingFileError, match="is in use"):
        train(elsewhere, tmp_path)


def test_a_run_that_cannot_go_on_says_what_there_is(config, tmp_path):
    with pytest.raises(
        MissingFileError, match="nothing to continue from. Without --resume a new run"
    ):
        train(config, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    finished(tmp_path / "run", config, ["a", "b", "c"])
    other = override(config, ["train.checkpoint_format=safetensors"])
    with pytest.raises(
        MissingFileError, match="last.ckpt does: --set train.checkpoint_format=ckpt"
    ):
        train(other, tmp_path / "run", resume=True)

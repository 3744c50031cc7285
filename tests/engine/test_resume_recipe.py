"""--resume compares the recipe of the run with the given one and reads the results of the run."""

import logging
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.config import Config, config_from_mapping, override
from mindyolo_ext.engine.results import ResultsFile
from mindyolo_ext.engine.resume import PreviousRun, differences
from mindyolo_ext.errors import CheckpointError, ConfigError, DataError
from mindyolo_ext.input_spec import InputSpec

SETTINGS = {
    "model": {"name": "yolo_fastestv2"},
    "input": {"size": [64, 64]},
    "data": {"train": {"format": "coco", "images": "a"}},
    "train": {"epochs": 4, "schedule": {"decay": "cosine"}},
}


class Network:
    """The facts that are read from a network."""

    family, num_classes = "yolo_fastestv2", 2

    def __init__(self, anchors: int = 1):
        self.architecture, self.input_spec = {"anchors": [[anchors, 1]]}, InputSpec(size=(64, 64))


def recipe(*changes: str) -> Config:
    return override(config_from_mapping(SETTINGS), changes)


def previous(folder: Path, config: Config, **metadata: object) -> PreviousRun:
    path = folder / "run" / "weights" / "last.ckpt"
    facts = {
        "model": config.model.name,
        "num_classes": 2,
        "class_names": ["cat", "dog"],
        "input_spec": InputSpec(size=(64, 64)),
        "architecture": {"anchors": [[1, 1]]},
        "epoch": 1,
        "extra": {"training": {"config": config.to_yaml()}},
    }
    save_checkpoint(path, {"a": np.zeros(9)}, CheckpointMetadata(**{**facts, **metadata}))
    return PreviousRun(path)


def refusal(run: PreviousRun, config: Config, network: Network, names: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        run.check_goes_on(config, network, names)
    return str(caught.value)


@pytest.mark.parametrize(
    "change, difference",
    [
        ("train.optimizer.lr=0.5", "train.optimizer.lr: 0.01 before, 0.5 now"),
        ("train.optimizer.name=adam", 'train.optimizer.name: "sgd" before, "adam" now'),
        ("train.schedule.decay=linear", 'train.schedule.decay: "cosine" before, "linear" now'),
        ("train.epochs=9", "train.epochs: 4 before, 9 now"),
        ("train.loss.box_weight=3", "train.loss: "),
        ("model.name=yolox_s", 'model.name: "yolo_fastestv2" before, "yolox_s" now'),
        ("train.freeze=[backbone]", 'train.freeze: [] before, ["backbone"] now'),
    ],
)
def test_another_training_is_refused_and_the_difference_named(tmp_path, change, difference):
    run = previous(tmp_path, recipe())
    message = refusal(run, recipe(change), Network(), ["cat", "dog"])
    assert difference in message and f"--config {tmp_path / 'run' / 'config.yaml'}" in message
    assert f"--weight {run.path}" in message


def test_all_differences_are_named_at_once(tmp_path):
    run = previous(tmp_path, recipe())
    message = refusal(
        run, recipe("train.optimizer.lr=1", "train.epochs=5"), Network(3), ["cat", "dog"]
    )
    for key in ("model.keywords.anchors", "train.optimizer.lr", "train.epochs"):
        assert f"{key}: " in message


@pytest.mark.parametrize(
    "change",
    [
        "data.workers=7",
        "data.root=/elsewhere",
        "train.log_interval=3",
        "eval.conf_thres=0.2",
        "train.amp_level=O2",
        "train.loss_scaler=none",
    ],
)
def test_what_does_not_matter_is_noted(tmp_path, caplog, change):
    caplog.set_level(logging.INFO)
    previous(tmp_path, recipe()).check_goes_on(recipe(change), Network(), ["cat", "dog"])
    (note,) = caplog.messages
    assert note.startswith(f"--resume: {change.partition('=')[0]}: ") and note.endswith(" now")


def test_the_same_recipe_with_its_values_spelled_out_is_the_same(tmp_path, caplog):
    run = previous(tmp_path, recipe("train.stages=[{from_epoch: -1, eval_interval: 1}]"))
    spelled = recipe(
        "train.stages=[{from_epoch: 3, eval_interval: 1}]",
        "train.loss={name: yolo_fastestv2_loss}",
        "data.class_names=[cat, dog]",
        "data.num_classes=2",
    )
    run.check_goes_on(spelled, Network(), ["cat", "dog"])
    assert not caplog.messages


def test_more_epochs_go_on_where_the_rates_do_not_depend_on_them():
    constant = recipe("train.schedule.decay=constant")
    (found,) = differences(constant, override(constant, ["train.epochs=9"]), "yolo_fastestv2")
    assert found.allowed and found.key == "train.epochs"
    linear = override(constant, ["train.ema_decay=0.9", "train.ema_ramp=linear"])
    (found,) = differences(linear, override(linear, ["train.epochs=9"]), "yolo_fastestv2")
    assert not found.allowed


def test_classes_are_compared_by_name(tmp_path, caplog):
    run = previous(tmp_path, recipe())
    run.check_goes_on(recipe(), Network(), ["Cat", "dog "])
    assert "in another order; the run had cat, dog" in refusal(
        run, recipe(), Network(), ["dog", "cat"]
    )
    message = refusal(run, recipe(), Network(), ["cat", "cow"])
    assert "only the run has dog; only data.train has cow" in message
    assert not caplog.messages
    nameless = previous(tmp_path, recipe(), class_names=[])
    nameless.check_goes_on(recipe(), Network(), ["cat", "dog"])
    assert "does not contain class names" in caplog.text


def test_the_order_that_fine_tuning_chose_is_kept(tmp_path):
    run = previous(tmp_path, recipe("data.class_names=[dog, cat]"))
    assert run.with_class_order(recipe()).data.class_names == ["dog", "cat"]
    own = recipe("data.class_names=[cat, dog]")
    assert run.with_class_order(own) is own


def test_a_recipe_of_another_version_is_not_compared(tmp_path, caplog):
    extra = {"training": {"config": "train: {epoch: 3}"}}
    run = previous(tmp_path, recipe(), extra=extra)
    run.check_goes_on(recipe("train.optimizer.lr=0.5"), Network(), ["cat", "dog"])
    assert "cannot be read by this version" in caplog.text and "train.epoch" in caplog.text


@pytest.mark.parametrize("metadata", [{"extra": {}}, {"epoch": None}, {"extra": {"training": 3}}])
def test_weights_alone_are_no_run(tmp_path, metadata):
    with pytest.raises(CheckpointError, match="no training state.*--weight"):
        previous(tmp_path, recipe(), **metadata)


@pytest.mark.parametrize(
    "text, problem",
    [
        ("epoch,loss\n0,1.5\nfour,2\n", r"results.csv:3: epoch wanted a whole number, got 'four'"),
        ("epoch,loss\n0,abc\n", "results.csv:2: loss wanted a number, got 'abc'"),
        ("epoch,loss\n0,1,2\n", "results.csv:2: wanted as many cells as columns"),
        ("epoch,loss\n0\n", "results.csv:2: wanted as many cells as columns"),
        ("epoch,loss\n1,1\n0,1\n", "results.csv:3: epoch 0 comes after 1"),
        ("loss\n1\n", "results.csv:1: wanted a column epoch"),
        ("", "results.csv:1: wanted a column epoch"),
        ("epoch,loss\n0,1\n,\n", "results.csv:3: epoch wanted a whole number, got ''"),
        (b"PK\x03\x04\xff\xfe", "results.csv:1: it is not a text table"),
    ],
)
def test_results_that_were_edited_are_told(tmp_path, text, problem):
    path = tmp_path / "results.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=problem + ".*move the file away"):
        ResultsFile(path, keep_before=2)


def test_results_go_on(tmp_path, caplog):
    path = tmp_path / "results.csv"
    first = ResultsFile(path)
    for epoch in range(3):
        first.add({"epoch": epoch, "loss": float("nan") if epoch else 0.5})
    resumed = ResultsFile(path, keep_before=2)
    resumed.add({"epoch": 2, "loss": 3.0, "AP": 0.25})
    assert path.read_text().splitlines() == ["epoch,loss,AP", "0,0.5,", "1,nan,", "2,3,0.25"]
    assert not caplog.messages
    path.unlink()
    ResultsFile(path, keep_before=2)
    assert "rows for 0 of the 2 finished epochs" in caplog.text

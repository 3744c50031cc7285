"""Training runs in this process: the loss falls, stages and fine-tuning work, and numbers that are
not finite stop a run with advice.
"""

import csv
import math
from dataclasses import replace

import label_sets
import numpy as np
import pytest
from small_training import small_recipe, small_shapes

from mindyolo_ext.backend import BACKEND, Tensor
from mindyolo_ext.backend.train_step import TrainStep
from mindyolo_ext.checkpoint.store import load_checkpoint, save_checkpoint
from mindyolo_ext.config import Config, config_from_mapping
from mindyolo_ext.engine.build import load_model, start_from
from mindyolo_ext.engine.run_epoch import multi_scale_size
from mindyolo_ext.engine.schedule import ema_decay
from mindyolo_ext.engine.stages import stage_at
from mindyolo_ext.engine.train import train
from mindyolo_ext.errors import ConfigError, DataError
from mindyolo_ext.models.registry import create_model

EPOCHS = 30
pytestmark = pytest.mark.graph


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return small_shapes(tmp_path_factory.mktemp("train"), train_images=8, val_images=4)


def recipe(shapes, **section) -> Config:
    optimizer = {"name": "adamw", "lr": 0.003}
    anchors = [[10, 10], [16, 16], [22, 22], [26, 26], [32, 32], [40, 40]]
    return small_recipe(
        shapes,
        {"epochs": EPOCHS, "per_batch_size": 4, "optimizer": optimizer, **section},
        workers=1,
        keywords={"anchors": anchors},
        evaluation={"metrics": ["darknet"], "per_batch_size": 4},
    )


@pytest.fixture(scope="module")
def finished(shapes, tmp_path_factory):
    """A run with two stages, a moving average, and an evaluation at its end."""
    folder = tmp_path_factory.mktemp("run") / "run"
    config = recipe(
        shapes,
        eval_interval=EPOCHS,
        ema_decay=0.9,
        ema_warmup=1,
        pictures=True,
        stages=[{"from_epoch": EPOCHS - 1, "augment": ["resize", "horizontal_flip"]}],
    )
    return train(config, folder), folder, config


def rows(folder):
    with (folder / "results.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_loss_falls_and_the_files_are_there(finished):
    result, folder, config = finished
    table = rows(folder)
    assert [int(r["epoch"]) for r in table] == list(range(EPOCHS))
    assert float(table[-2]["loss"]) < 0.6 * float(table[0]["loss"])
    assert table[-1]["AP50"] and table[-1]["own_AP50"] and not table[0]["AP50"]
    for name in (
        "results.png",
        "train_batch.jpg",
        f"train_batch_epoch{EPOCHS}.jpg",
        "labels.png",
        "val_predictions.jpg",
        "run.log",
        "config.yaml",
        "in_force.yaml",
        "weights/last.ckpt",
        "weights/best.ckpt",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert result.best_epoch == EPOCHS - 1
    from mindyolo_ext.config import load_config

    train = replace(config.train, backend=BACKEND)
    assert load_config(folder / "config.yaml") == replace(config, train=train)
    shown = load_config(folder / "in_force.yaml")
    assert shown.data.num_classes == 3 and shown.input.color == "bgr"
    assert shown.train.loss == {"name": "yolo_fastestv2_loss"}


def test_checkpoints_describe_themselves(finished):
    _, folder, config = finished
    model, metadata = load_model(folder / "weights" / "best.ckpt")
    assert metadata.class_names == ["circle", "square", "triangle"] and metadata.epoch == EPOCHS - 1
    assert (
        model.input_spec.size == (64, 64)
        and [list(a) for a in model.anchors] == config.model.keywords["anchors"]
    )
    values, _ = load_checkpoint(folder / "weights" / "best.ckpt")
    assert not any(name.startswith("state.") for name in values)
    last, _ = load_checkpoint(folder / "weights" / "last.ckpt")
    np.testing.assert_array_equal(last["fpn.conv1x1_2.0.weight"], values["fpn.conv1x1_2.0.weight"])


def test_fine_tuning_keeps_what_fits(finished):
    _, folder, _ = finished
    values, _ = load_checkpoint(folder / "weights" / "best.ckpt")
    model = create_model("yolo_fastestv2", num_classes=5)
    fresh = start_from(model, folder / "weights" / "best.ckpt")
    assert sorted(fresh) == ["output_cls_layers.bias", "output_cls_layers.weight"]
    np.testing.assert_array_equal(
        model.backbone.first_conv[0].weight.asnumpy(), values["backbone.first_conv.0.weight"]
    )


@pytest.mark.all_cases
def test_a_run_in_safetensors_goes_on(finished, shapes, tmp_path):
    _, run, _ = finished
    weights = tmp_path / "run" / "weights"
    values, metadata = load_checkpoint(run / "weights" / "last.ckpt")
    save_checkpoint(weights / "last.safetensors", values, metadata)
    (weights / ".last.1.tmp.safetensors").touch()  # of a run that was killed
    settings = {"checkpoint_format": "safetensors", "ema_decay": 0.9, "ema_warmup": 1}
    config = recipe(shapes, epochs=EPOCHS + 1, run_eval=False, **settings)
    train(config, tmp_path / "run", resume=True)
    assert [path.name for path in weights.iterdir()] == ["last.safetensors"]
    found, metadata = load_checkpoint(weights / "last.safetensors")
    assert metadata.epoch == EPOCHS
    assert list(found) == list(values)
    assert all(found[name].dtype == value.dtype for name, value in values.items())
    assert load_model(weights / "last.safetensors")[1] == metadata
    assert start_from(create_model("yolo_fastestv2", 3), weights / "last.safetensors") == []
    with pytest.raises(FileExistsError, match="already holds a run"):
        train(recipe(shapes), tmp_path / "run")  # this run would write last.ckpt beside it
    with pytest.raises(ValueError, match="checkpoint_format wanted one of ckpt, safetensors"):
        recipe(shapes, checkpoint_format="pth")


@pytest.mark.all_cases
@pytest.mark.graph(when="never")
def test_the_host_reads_at_log_intervals_only(shapes, tmp_path, monkeypatch):
    """Between ``begin_tally`` and ``share_statistics``, which enclose the steps of an epoch."""
    reads, counts = [], {}
    # on PyTorch ``Tensor`` only creates tensors of another class
    tensor = type(Tensor(np.zeros(1)))
    plain, begin, share = tensor.asnumpy, TrainStep.begin_tally, TrainStep.share_statistics

    def asnumpy(self):
        reads.append(self.shape)
        return plain(self)

    def begin_tally(self, bad_steps=0):
        begin(self, bad_steps)
        reads.clear()

    def share_statistics(self):
        counts[len(counts)] = len(reads)
        share(self)

    monkeypatch.setattr(tensor, "asnumpy", asnumpy)
    monkeypatch.setattr(TrainStep, "begin_tally", begin_tally)
    monkeypatch.setattr(TrainStep, "share_statistics", share_statistics)
    options = {"epochs": 2, "per_batch_size": 1, "run_eval": False, "loss_scaler": "dynamic"}
    result = train(recipe(shapes, log_interval=3, **options), tmp_path / "run")
    assert counts == {0: 4, 1: 4}, "8 steps: after the first, 4th, 7th and 8th"
    assert result.last["finite"] == 1.0


@pytest.mark.all_cases
@pytest.mark.graph(when="never")
def test_a_row_of_bad_steps_between_two_reads_stops_the_run(shapes, tmp_path, monkeypatch):
    """Even if the steps after it are finite again."""
    take, taken = TrainStep.take, []

    def take_some_bad(self, images, targets, mask, rates, controls):
        taken.append(len(taken))
        if len(taken) in (3, 4, 5):
            images = np.full((1, 3, 64, 64), np.nan, np.float32)
        take(self, images, targets, mask, rates, controls)

    monkeypatch.setattr(TrainStep, "take", take_some_bad)
    options = {"epochs": 1, "per_batch_size": 1, "run_eval": False, "log_interval": 100}
    with pytest.raises(FloatingPointError, match="iteration 7: .* not finite in 3 steps in a row"):
        train(recipe(shapes, max_bad_steps=2, **options), tmp_path / "bad")
    taken.clear()
    result = train(recipe(shapes, max_bad_steps=3, **options), tmp_path / "good")
    assert result.last["finite"] == 5 / 8


@pytest.mark.all_cases
@pytest.mark.graph(when="never")
def test_gradients_that_stay_bad_stop_the_run_with_advice(shapes, tmp_path):
    config = recipe(
        shapes, run_eval=False, max_bad_steps=2, optimizer={"lr": 1e30, "momentum": 0.9}
    )
    with pytest.raises(FloatingPointError, match="steps in a row.*Try a lower train.optimizer.lr"):
        train(config, tmp_path / "bad")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"freeze": ["backbones"]}, "no parameter starts with 'backbones'"),
        ({"per_batch_size": 9}, "wanted at least one whole batch"),
        ({"loss": {"name": "nothing"}}, "unknown loss 'nothing'"),
        ({"optimizer": {"groups": "three"}}, "train.optimizer.groups wanted one of"),
    ],
)
def test_recipes_that_do_not_fit(shapes, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(recipe(shapes, run_eval=False, **changes), tmp_path / "run")


def test_stages_override_what_they_name():
    config = config_from_mapping(
        {
            "data": {"augment": ["a"]},
            "train": {
                "loss": {"name": "x", "l1": False},
                "stages": [
                    {"from_epoch": 5, "loss": {"l1": True}},
                    {"from_epoch": 2, "augment": []},
                ],
            },
        }
    )
    assert stage_at(config, 1) == ({"name": "x", "l1": False}, ["a"])
    assert stage_at(config, 2) == ({"name": "x", "l1": False}, [])
    assert stage_at(config, 6) == ({"name": "x", "l1": True}, [])


def test_moving_average_and_multi_scale_are_functions_of_the_step():
    settings = config_from_mapping(
        {"train": {"ema_decay": 0.9999, "multi_scale": [320, 352, 384], "multi_scale_interval": 10}}
    ).train
    assert ema_decay(settings, 1) == pytest.approx(0.9999 * (1 - math.exp(-1 / 2000)))
    sizes = [multi_scale_size(settings, k) for k in range(200)]
    assert sizes == [multi_scale_size(settings, k) for k in range(200)]
    assert {s for s, _ in sizes} == {320, 352, 384} and all(
        len(set(sizes[k : k + 10])) == 1 for k in range(0, 200, 10)
    )


def test_data_that_cannot_be_learnt_from_is_refused_before_anything_is_built(
    shapes, tmp_path, monkeypatch
):
    monkeypatch.setattr("mindyolo_ext.engine.run_parts.new_model", None)
    config = recipe(shapes)
    without = label_sets.coco(tmp_path, annotations=[])
    data = replace(config.data, root=str(tmp_path), train=without, val=without)
    with pytest.raises(DataError, match="wanted at least one box, got none"):
        train(replace(config, data=data), tmp_path / "run")
    config = recipe(shapes)
    data = replace(config.data, val={**without, "images": str(tmp_path / "img")})
    data.val["annotations"] = str(tmp_path / "ann.json")
    with pytest.raises(ConfigError, match="only data.val has cat, dog"):
        train(replace(config, data=data), tmp_path / "run")
    assert not (tmp_path / "run" / "weights").exists()


@pytest.mark.all_cases
def test_a_run_in_mixed_precision(shapes, tmp_path):
    """It is compiled, evaluated and saved like any other; the saved file is float32 with the usual
    names.
    """
    config = recipe(shapes, epochs=2, ema_decay=0.9, amp_level="O2")
    train(config, tmp_path / "run")
    assert all(math.isfinite(float(row["loss"])) for row in rows(tmp_path / "run"))
    assert all(float(row["AP50"]) >= 0 for row in rows(tmp_path / "run"))
    values, _ = load_checkpoint(tmp_path / "run" / "weights" / "best.ckpt")
    model, _ = load_model(tmp_path / "run" / "weights" / "best.ckpt")
    names = [name for name, _ in model.parameters_and_names()]
    assert set(names) <= set(values)
    assert all(values[name].dtype == np.float32 for name in names)
    from mindyolo_ext.config import load_config

    assert load_config(tmp_path / "run" / "in_force.yaml").train.loss_scaler == "dynamic"

"""YOLOX's recipe in a short run: the last stage stops mosaics, adds the L1 term and keeps all other
state.
"""

import csv

import pytest
from launching import ROOT

from mindyolo_ext.backend import launch
from mindyolo_ext.backend.parameters import load_parameters, parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, load_checkpoint, save_checkpoint
from mindyolo_ext.config import load_config, override
from mindyolo_ext.data.shapes import make_shapes_dataset
from mindyolo_ext.engine.build import has_folded_norms
from mindyolo_ext.engine.run_finish import Run
from mindyolo_ext.engine.train import train
from mindyolo_ext.models.registry import create_model

SPLITS = [
    f"data.{split}={{images: images/{split}, annotations: annotations/{split}.json}}"
    for split in ("train", "val")
]


@pytest.mark.parametrize(
    "change", ["train.loss.aera=center", "train.stages=[{from_epoch: -1, loss: {aera: center}}]"]
)
def test_a_misspelled_loss_keyword_is_told_at_the_start(tmp_path, change):
    """Also in the last stage, and before anything is written."""
    launch.start("CPU", seed=0)
    data = make_shapes_dataset(
        tmp_path / "shapes", train_images=2, val_images=0, size=(64, 64), progress=False
    )
    config = load_config(
        ROOT / "configs" / "yolox" / "yolox-nano.yaml",
        [f"data.root={data}", *SPLITS, "data.workers=0", "train.run_eval=false", change],
    )
    with pytest.raises(
        ValueError, match="loss yolox_loss: unknown keyword 'aera', did you mean area"
    ):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folded_weights_are_noticed(tmp_path, caplog):
    """Training with batch statistics would not start from the loaded weights."""
    launch.start("CPU", seed=0)
    model = create_model("yolox_nano", 3)
    assert not has_folded_norms(model)
    values = parameter_values(model)
    gammas = [name for name in values if name.endswith("gamma")]
    for name, value in values.items():
        if name.endswith("moving_variance"):
            value[:] = 1 - 1e-3
    load_parameters(model, values)
    assert has_folded_norms(model)
    load_parameters(model, values | {name: values[name] + 0.1 for name in gammas[1:]})
    assert has_folded_norms(model)  # of a partly folded network
    load_parameters(model, values | {name: values[name] + 0.1 for name in gammas})
    assert not has_folded_norms(model)
    save_checkpoint(
        tmp_path / "folded.ckpt",
        values,
        CheckpointMetadata("yolox_nano", 3, ["a", "b", "c"], model.input_spec, {}),
    )
    data = make_shapes_dataset(
        tmp_path / "shapes", train_images=2, val_images=0, size=(64, 64), progress=False
    )
    config = load_config(
        ROOT / "configs" / "yolox" / "yolox-nano.yaml",
        [
            f"data.root={data}",
            *SPLITS,
            "data.workers=0",
            "train.epochs=1",
            "train.run_eval=false",
            f"train.weight={tmp_path / 'folded.ckpt'}",
        ],
    )
    Run(config, tmp_path / "run", False)
    assert "its batch norms are identities" in caplog.text
    caplog.clear()
    Run(override(config, ["train.freeze_bn=true"]), tmp_path / "frozen", False)
    assert "identities" not in caplog.text


@pytest.mark.all_cases
def test_the_last_stage_adds_l1_and_goes_on(tmp_path, caplog):
    """Two epochs of three steps at 64 pixels; the recipe's own stage, moved to the last epoch. Both
    steps are compiled in test_loss.py.
    """
    launch.start("CPU", graph_mode=False, seed=0)
    data = make_shapes_dataset(
        tmp_path / "shapes", train_images=6, val_images=0, size=(64, 64), progress=False
    )
    config = load_config(
        ROOT / "configs" / "yolox" / "yolox-nano.yaml",
        [
            f"data.root={data}",
            *SPLITS,
            "data.workers=0",
            "input.size=[64, 64]",
            "train.epochs=2",
            "train.per_batch_size=2",
            "train.multi_scale=[]",
            "train.run_eval=false",
            "train.schedule.warmup_epochs=1",
            "train.ema_warmup=1",
            "train.stages=[{from_epoch: -1, loss: {l1: true}, augment: [yolox_hsv_flip], "
            "eval_interval: 1}]",
        ],
    )
    with caplog.at_level("INFO"):
        train(config, tmp_path / "run")
    with (tmp_path / "run" / "results.csv").open(encoding="utf-8") as file:
        first, last = csv.DictReader(file)
    assert float(first["l1"]) == 0 < float(last["l1"])
    for row in (first, last):
        terms = sum(float(row[name]) for name in ("iou", "object", "class", "l1"))
        assert terms == pytest.approx(float(row["loss"]), rel=1e-4)
        assert float(row["finite"]) == 1 and float(row["iou"]) > 0
    # a loss without L1, a loss with it
    assert caplog.text.count("compiled and ran the training step") == 2
    parameters, metadata = load_checkpoint(tmp_path / "run" / "weights" / "last.ckpt")
    assert metadata.extra["training"]["updates"] == metadata.extra["num_batches_tracked"] == 6
    bias = "head.obj_preds.0.bias"
    assert parameters[f"state.weights.{bias}"] != parameters[bias]  # the moving average is behind
    assert any(
        abs(value).max() > 0
        for name, value in parameters.items()
        if name.startswith("state.optimizer.")
    )

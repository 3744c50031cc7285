"""YOLOX recipes of MindYOLO become ours, and the report mentions every key."""

import copy
import hashlib
import json
import os
from pathlib import Path

import pytest
import yaml
from helpers import Command

from mindyolo_ext.cli import mindyolo_recipe
from mindyolo_ext.cli.mindyolo_recipe import translate
from mindyolo_ext.config import load_config
from mindyolo_ext.data.pipeline import check_steps
from mindyolo_ext.errors import ConfigError
from mindyolo_ext.models.registry import load_augmentations

pytestmark = pytest.mark.usefixtures("quiet_logging")
# A made-up network in MindYOLO's form: it only has to be recognized
LAYERS = {"backbone": [[-1, 1, "Focus", [64, 3]]], "head": [[[0], 1, "YOLOXHead", ["nc"]]]}
MOVE = {"func_name": "random_perspective", "degrees": 10.0, "translate": 0.1, "scale": 0.9}
TAIL = [
    {"func_name": "hsv_augment", "prob": 1.0, "hgain": 0.01, "sgain": 0.7, "vgain": 0.4},
    {"func_name": "fliplr", "prob": 0.5},
    {"func_name": "label_pad", "padding_size": 120, "padding_value": -1},
    {"func_name": "image_norm", "scale": 255.0},
    {"func_name": "image_transpose", "bgr2rgb": True, "hwc2chw": True},
]
BASE = {
    "optimizer": {
        "optimizer": "momentum",
        "group_param": "filter_bias_and_bn",
        "gp_weight_decay": 0.0004,
        "lr_scheduler": "yolox",
        "lr_init": 0.02,
        "start_factor": 0.5,
        "end_factor": 0.05,
        "warmup_epochs": 3,
        "cooldown_epochs": 10,
        "by_epoch": False,
    },
    "epochs": 100,
    "callback": [
        {"name": "YoloxSwitchTrain", "switch_epoch_num": 90},
        {"name": "EvalWhileTrain", "stage_epochs": [90, 10], "stage_intervals": [20, 2]},
    ],
    "loss": {"name": "YOLOXLoss", "input_size": [640, 640]},
    "data": {
        "train_set": "./set/train.txt",
        "val_set": "./coco/val2017.txt",
        "nc": 2,
        "names": ["cat", "dog"],
        "num_parallel_workers": 6,
        "train_transforms": {
            "stage_epochs": [90, 10],
            "trans_list": [
                [{"func_name": "mosaic", "prob": 1.0}, MOVE, {"func_name": "mixup", "prob": 0.4}]
                + TAIL,
                [{"func_name": "letterbox", "scaleup": False}, *TAIL],
            ],
        },
        "test_transforms": [{"func_name": "letterbox", "scaleup": False}],
    },
}
OWN = {
    "per_batch_size": 4,
    "img_size": 320,
    "network": {
        "model_name": "yolox",
        "stride": [8, 16, 32],
        "depth_multiple": 0.33,
        "width_multiple": 0.5,
        **LAYERS,
    },
}


@pytest.fixture(autouse=True)
def known_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps([LAYERS["backbone"], LAYERS["head"]])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    monkeypatch.setitem(mindyolo_recipe._LAYERS, digest, (False, False))


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with a parent, as in ``configs/yolox`` of MindYOLO, in the current folder."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (tmp_path / "hyp.yaml").write_text(yaml.safe_dump(BASE))
    path = folder / "yolox-s.yaml"
    path.write_text(yaml.safe_dump({"__BASE__": ["../hyp.yaml"], **OWN}))
    monkeypatch.chdir(tmp_path)
    return path


def merged(**changes) -> dict:
    return copy.deepcopy({**BASE, **OWN, **changes})


def test_a_recipe_and_its_parent_become_ours(theirs: Path, command: Command):
    status, output = command("migrate", theirs)
    assert status == 0, output
    config = load_config("yolox-s-migrated.yaml")
    train = config.train
    assert (config.model.name, config.input.size) == ("yolox_s", [320, 320])
    assert (config.input.color, config.input.scale) == ("rgb", 1 / 255)
    assert (train.epochs, train.per_batch_size, train.ema_decay) == (100, 4, 0.9999)
    optimizer, schedule = train.optimizer, train.schedule
    assert (optimizer.lr, optimizer.lr_per_image, optimizer.weight_decay) == (0.01, False, 0.0004)
    assert (optimizer.groups, optimizer.momentum, optimizer.nesterov) == ("by_kind", 0.9, False)
    assert (schedule.decay, schedule.final_ratio, schedule.flat_epochs) == ("cosine", 0.1, 10)
    assert (schedule.warmup_epochs, schedule.warmup_power) == (3, 2)
    mosaic, color, mirror = config.data.augment
    assert mosaic["name"] == "gold_yolo_mosaic" and mosaic["mixup_probability"] == 0.4
    assert (mosaic["scale"], mosaic["degrees"], mosaic["max_boxes"]) == (0.9, 10.0, 120)
    assert (color["name"], color["hue"], mirror["name"]) == ("hsv", 0.01, "horizontal_flip")
    (last,) = train.stages
    assert (last.from_epoch, last.loss, last.eval_interval) == (90, {"l1": True}, 2)
    assert last.augment == [color, mirror]
    assert (train.eval_interval, train.run_eval, train.multi_scale) == (20, False, [])
    assert config.data.train["images"] == "./set/train.txt"
    assert config.data.val["annotations"] == "./coco/annotations/instances_val2017.json"
    assert "Next: mindyolo-ext check-data --config yolox-s-migrated.yaml" in output


def test_keys_of_the_command_that_a_recipe_has_here():
    settings = translate(merged(recompute=True, opencv_threads_num=2), "x").settings
    assert settings["train.recompute"] is True and settings["data.opencv_threads"] == 2


def test_every_key_is_told(theirs: Path, command: Command):
    recipe = merged()
    rows = " ".join(row[0] for row in translate(recipe, "x").rows)
    for key in [*recipe, *recipe["optimizer"], *recipe["data"], *recipe["loss"]]:
        assert key in rows, key
    for step in TAIL:
        assert rows.count(step["func_name"]) == 2
    output = command("migrate", theirs)[1]
    assert "(default) run_eval: false" in output and "(always)" in output


@pytest.mark.parametrize(
    ("changes", "key", "reason"),
    [
        ({"overflow_still_update": True}, "overflow_still_update", "non-finite gradient"),
        (
            {"device_target": "Ascend"},
            "device_target",
            "not part of a recipe: pass --device_target",
        ),
        ({"strategy": 1}, "strategy", "not a key of MindYOLO's YOLOX recipes"),
        ({"callback": [{"name": "Mine"}]}, "callback: Mine", "results.csv"),
        ({"loss": {"name": "YOLOv7Loss"}}, "loss.name", "its own loss"),
        ({"optimizer": {"group_param": "yolov7"}}, "optimizer.group_param", "another family"),
        ({"optimizer": {"by_epoch": True}}, "optimizer.by_epoch", "changes every step"),
        (
            {"data": {"train_transforms": [{"func_name": "pastein"}]}},
            "data.train_transforms: pastein",
            "no such step",
        ),
        (
            {"data": {"train_transforms": [{"func_name": "fliplr", "axis": 1}]}},
            "data.train_transforms: fliplr.axis",
            "horizontal_flip has no such keyword",
        ),
    ],
)
def test_what_has_no_counterpart_is_named_with_a_reason(changes: dict, key: str, reason: str):
    recipe = merged(**changes)
    for name, section in changes.items():
        if isinstance(section, dict):
            recipe[name] = {**BASE[name], **section}
    made = translate(recipe, "x")
    assert key in made.left_out
    row = next(row for row in made.rows if row[0].removeprefix("(default) ").startswith(key))
    assert row[1] == "NOT TRANSLATED" and reason in row[2]


def test_mosaics_that_alone_are_moved():
    steps = [{"func_name": "mosaic", "prob": 0.5, "post_transform": [MOVE]}, *TAIL]
    made = translate(merged(data={**BASE["data"], "train_transforms": steps}), "x")
    mosaic, still, color, mirror = made.settings["data.augment"]
    assert (mosaic["name"], mosaic["probability"]) == ("yolox_mosaic", 0.5)
    assert mosaic["scale"] == pytest.approx([0.1, 1.9]) and mosaic["degrees"] == 10.0
    assert (still["name"], still["hue"], still["max_boxes"]) == ("yolox_hsv_flip", 0, 120)
    assert (color["name"], mirror["name"]) == ("hsv", "horizontal_flip")


def test_the_steps_exist_with_these_keywords():
    load_augmentations()
    alone = [{"func_name": "mosaic", "prob": 0.5, "post_transform": [MOVE]}, *TAIL]
    for transforms in (BASE["data"]["train_transforms"], alone):
        made = translate(merged(data={**BASE["data"], "train_transforms": transforms}), "x")
        check_steps(made.settings["data.augment"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {"model_name": "yolov8"}}, "only recipes of yolox can be"),
        (
            {"network": {**OWN["network"], "head": []}},
            "are not of a YOLOX model here; networks are written",
        ),
        ({"network": {**OWN["network"], "depth_multiple": 0.5}}, r"depth and width \(0.5, 0.5\)"),
        ({"network": 3}, "with the section network"),
        (
            {"optimizer": {**BASE["optimizer"], "lr_init": "fast"}},
            "optimizer.lr_init: 'fast' is not a value",
        ),
        ({"callback": 3}, "callback: 3 is not a value that MindYOLO takes"),
    ],
)
def test_recipes_that_cannot_be_ours(changes: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        translate(merged(**changes), "x")


def test_nothing_is_written_where_something_is_wrong(theirs: Path, command: Command):
    for text, message in (
        ("{__BASE__: [none.yaml]}", "none.yaml: no such file (named by "),
        ("{__BASE__: [yolox-s.yaml]}", "__BASE__ includes itself through"),
        ("- 1", "wanted a MindYOLO recipe, got list"),
        (yaml.safe_dump(merged(epochs="many")), "train.epochs wanted an integer, got 'many'"),
    ):
        theirs.write_text(text)
        status, output = command("migrate", theirs, "mine.yaml")
        assert status == 1 and message in output, output
        assert not os.path.exists("mine.yaml")
    Path("mine.yaml").write_text("mine")
    theirs.write_text(yaml.safe_dump(merged()))
    status, output = command("migrate", theirs, "mine.yaml")
    assert status == 1 and "never overwritten" in output
    assert Path("mine.yaml").read_text() == "mine"

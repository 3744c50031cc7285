"""DynamicDet's recipes: the numbers of the original's hyperparameter files and commands, and how
step 2 follows step 1.
"""

import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.backend.parameters import freeze, named_parameters, parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.config import Config, load_config
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.data.rectangles import rectangular_batches
from mindyolo_ext.engine.build import start_from, training_pipeline, with_input
from mindyolo_ext.engine.schedule import micro_batches, weight_decay
from mindyolo_ext.models.dynamicdet.variants import official_input
from mindyolo_ext.models.registry import check_loss_keywords, create_model

RECIPES = Path(__file__).resolve().parents[3] / "configs" / "dynamicdet"
# hyp.scratch.p5.yaml; p6 differs only in lrf. Also at 0 or 1 in them: degrees, shear, perspective,
# flipud, copy_paste and fl_gamma, cls_pw, obj_pw; nothing reads iou_t.
SCRATCH = {
    "lr0": 0.01,
    "lrf": 0.1,
    "momentum": 0.937,
    "weight_decay": 0.0005,
    "warmup_epochs": 3.0,
    "warmup_momentum": 0.8,
    "warmup_bias_lr": 0.1,
    "box": 0.05,
    "cls": 0.3,
    "obj": 0.7,
    "anchor_t": 4.0,
    "hsv_h": 0.015,
    "hsv_s": 0.7,
    "hsv_v": 0.4,
    "translate": 0.2,
    "scale": 0.9,
    "fliplr": 0.5,
    "mosaic": 1.0,
    "mixup": 0.15,
    "paste_in": 0.15,
}
# hyp.finetune.dynamic.adam.yaml
ROUTER = SCRATCH | {
    "lr0": 0.00001,
    "lrf": 1.0,
    "weight_decay": 0.005,
    "warmup_epochs": 0.01,
    "warmup_bias_lr": 0.01,
    "mosaic": 0.0,
    "mixup": 0.0,
    "paste_in": 0.0,
}
# recipe: model, side of the input, levels, lrf of step 1, published (easy share, GFLOPs, FPS, AP
# val, AP test)
SCALES = {
    "dy-yolov7": (
        "dy_yolov7",
        640,
        3,
        0.1,
        [
            ("90/10", 112.4, 110, 51.4, 52.1),
            ("50/50", 143.2, 96, 52.7, 53.3),
            ("10/90", 174.0, 85, 53.3, 53.8),
            ("0/100", 181.7, 83, 53.5, 53.9),
        ],
    ),
    "dy-yolov7x": (
        "dy_yolov7x",
        640,
        3,
        0.1,
        [
            ("90/10", 201.7, 98, 53.0, 53.3),
            ("50/50", 248.9, 78, 54.2, 54.4),
            ("10/90", 296.1, 65, 54.7, 55.0),
            ("0/100", 307.9, 64, 54.8, 55.0),
        ],
    ),
    "dy-yolov7-w6": (
        "dy_yolov7_w6",
        1280,
        4,
        0.2,
        [
            ("90/10", 384.2, 74, 54.9, 55.2),
            ("50/50", 480.8, 58, 55.9, 56.1),
            ("10/90", 577.4, 48, 56.4, 56.7),
            ("0/100", 601.6, 46, 56.5, 56.8),
        ],
    ),
}


def augmentation(config: Config) -> dict[str, dict]:
    """The steps by name, without those that never apply."""
    return {
        step["name"]: step
        for step in config.data.augment
        if step.get("probability", 1.0) > 0 or step["name"] == "dynamicdet_mosaic"
    }


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("scale", SCALES)
def test_numbers_of_the_original(scale: str, step: int) -> None:
    model, side, levels, last_rate, _ = SCALES[scale]
    hyp = SCRATCH | {"lrf": last_rate} if step == 1 else ROUTER
    config = load_config(RECIPES / f"{scale}-step{step}.yaml")
    assert asdict(config.model) == {"name": model, "keywords": {"router": step == 2}}
    assert config.input.size == [side, side] and config.data.max_boxes == 120
    train, optimizer, schedule = config.train, config.train.optimizer, config.train.schedule
    assert (train.epochs, train.per_batch_size * (8 if step == 1 else 1)) == (
        (300, 128) if step == 1 else (2, 1)
    )

    name = "dynamicdet_loss" if step == 1 else "dynamicdet_router_loss"
    gains = {key: value for key, value in train.loss.items() if key != "name"}
    assert train.loss["name"] == name and not check_loss_keywords(name, list(gains))
    assert gains == pytest.approx(
        {
            "box": hyp["box"] * 3 / levels,
            "classes": hyp["cls"] * 3 / levels,
            "objectness": hyp["obj"] * (side / 640) ** 2 * 3 / levels,
            "anchor_threshold": hyp["anchor_t"],
        },
        rel=1e-12,
    )

    assert (optimizer.lr, optimizer.lr_per_image, optimizer.groups, optimizer.clip_norm) == (
        hyp["lr0"],
        False,
        "by_kind",
        0.0,
    )
    if step == 1:
        assert (optimizer.name, optimizer.momentum, optimizer.nesterov) == (
            "sgd",
            hyp["momentum"],
            True,
        )
    else:
        assert (optimizer.name, optimizer.betas) == ("adamw", [hyp["momentum"], 0.999])
    assert (
        optimizer.nominal_batch,
        optimizer.accumulate_first_alone,
        optimizer.accumulate_within_epoch,
    ) == (64, True, True)
    for batch, wanted in ((1, 64), (16, 4), (128, 1)):
        assert micro_batches(optimizer, batch) == wanted
        assert weight_decay(optimizer, batch) == pytest.approx(
            hyp["weight_decay"] * max(batch, 64) / 64, rel=1e-12
        )

    assert (
        schedule.final_ratio,
        schedule.warmup_epochs,
        schedule.warmup_min_steps,
        schedule.warmup_momentum,
        schedule.warmup_accumulate,
    ) == (hyp["lrf"], hyp["warmup_epochs"], 1000, hyp["warmup_momentum"], True)
    # As in the original: without a group of scales the biases of step 2 warm up like the weights
    assert schedule.warmup_bias_lr == (hyp["warmup_bias_lr"] if step == 1 else None)
    assert (train.ema_decay, train.ema_warmup, train.seed) == (
        0.9999 if step == 1 else 0.0,
        2000,
        2,
    )
    assert (train.freeze, train.freeze_bn) == (
        (["backbone", "head"], True) if step == 2 else ([], False)
    )

    steps = augmentation(config)
    mosaic = steps["dynamicdet_mosaic"]
    assert mosaic["probability"] == hyp["mosaic"] and (mosaic["scale"], mosaic["translate"]) == (
        0.9,
        0.2,
    )
    assert (mosaic["degrees"], mosaic["shear"], mosaic["perspective"]) == (0, 0, 0)
    if step == 1:
        assert (mosaic["nine_probability"], mosaic["mixup_probability"]) == (0.2, hyp["mixup"])
        assert (
            steps["dynamicdet_paste_in"]["probability"] == hyp["paste_in"]
            and config.data.train["polygons"]
        )
    assert list(steps) == [
        "dynamicdet_mosaic",
        "hsv",
        *(["dynamicdet_paste_in"] if step == 1 else []),
        "horizontal_flip",
    ]
    assert steps["hsv"] == {
        "name": "hsv",
        "hue": hyp["hsv_h"],
        "saturation": hyp["hsv_s"],
        "value": hyp["hsv_v"],
    }
    assert (
        steps["horizontal_flip"]["probability"] == hyp["fliplr"]
        and not train.stages
        and not train.multi_scale
    )


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("scale", SCALES)
def test_evaluation_and_header(scale: str, step: int) -> None:
    _, side, levels, _, published = SCALES[scale]
    path = RECIPES / f"{scale}-step{step}.yaml"
    config = load_config(path)
    assert (
        config.eval.conf_thres,
        config.eval.iou_thres,
        config.eval.max_detections,
        config.eval.max_candidates,
        config.eval.multi_label,
        config.eval.rectangular,
    ) == (0.001, 0.65, 300, 30000, True, False)
    official = official_input((side, side), 8 * 2 ** (levels - 1))
    assert with_input(official, config.input) == official
    narrow = load_config(path, ["eval.rectangular=true"])
    _, frames = rectangular_batches(
        np.array([[480, 640]]), 1, official, narrow.eval.rectangular_pad
    )
    assert frames == [(512, 672) if side == 640 else (1024, 1344)]
    assert step == 1 or config.eval.per_batch_size == 1

    header = " ".join(
        path.read_text(encoding="utf-8").partition("__BASE__")[0].replace("#", "").split()
    )
    assert f"configs/dynamicdet/{path.name}" in header and f"{side} x {side}" in header
    rows = (
        [" ".join(map(str, row)) for row in published]
        if step == 2
        else [
            f"{published[-1][3]} % mAP on val2017 and {published[-1][4]} % on test-dev",
            f"{published[-1][1]} GFLOPs",
        ]
    )
    assert all(row in header for row in rows)


@pytest.mark.parametrize("router", [False, True])
def test_step_two_trains_the_router_alone(router: bool) -> None:
    model = create_model("dy_yolov7_w0125", num_classes=2, router=router)
    names = load_config(RECIPES / "dy-yolov7-step2.yaml").train.freeze
    freeze(model, names)
    left = [name for name, parameter in named_parameters(model).items() if parameter.requires_grad]
    assert left == (
        ["router.layer1.weight", "router.layer1.bias", "router.layer2.weight", "router.layer2.bias"]
        if router
        else []
    )


def test_step_two_starts_from_a_checkpoint_of_step_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The weights are the moving average; raw weights and optimizer state are ignored."""
    cascade, detector = (
        create_model("dy_yolov7_w0125", num_classes=2, router=router) for router in (False, True)
    )
    average = {name: value + np.float32(0.25) for name, value in parameter_values(cascade).items()}
    extra = {f"state.weights.{name}": value for name, value in parameter_values(cascade).items()}
    extra["state.optimizer.optimizer.0.momentum"] = np.zeros(3, np.float32)
    metadata = CheckpointMetadata(
        model="dy_yolov7_w0125",
        num_classes=2,
        class_names=["a", "b"],
        input_spec=cascade.input_spec,
        architecture=dict(cascade.architecture),
    )
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {**average, **extra}, metadata)
    fresh = {
        name: value
        for name, value in parameter_values(detector).items()
        if name.startswith("router.")
    }
    with caplog.at_level(logging.INFO):
        kept = start_from(detector, path)
    assert sorted(kept) == sorted(fresh) and len(fresh) == 4
    assert f"{len(average)} tensors loaded, 4 start fresh (router.layer1.weight" in caplog.text
    loaded = parameter_values(detector)
    assert set(loaded) == {*average, *fresh}
    for name, value in {**average, **fresh}.items():
        np.testing.assert_array_equal(loaded[name], value, err_msg=name)


def test_the_recipes_for_a_quick_run_read_their_pictures(shared: Path) -> None:
    folder = shared / "data" / "coco128"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    for step, steps_per_epoch in ((1, 16), (2, 128)):
        config = load_config(
            RECIPES / f"dy-yolov7-w0125-coco128-step{step}.yaml", [f"data.root={folder}"]
        )
        assert asdict(config.model) == {
            "name": "dy_yolov7_w0125",
            "keywords": {"router": step == 2},
        }
        assert config.train.loss["objectness"] == pytest.approx(0.7 * (256 / 640) ** 2, rel=1e-12)
        check_loss_keywords(
            config.train.loss["name"], [key for key in config.train.loss if key != "name"]
        )
        train, val = (
            build_dataset(part, config.data.root) for part in (config.data.train, config.data.val)
        )
        assert len(train) == len(val) == 128 and len(train.class_names) == 80
        spec = replace(official_input((640, 640), 32), size=tuple(config.input.size))
        pipeline = training_pipeline(config.data.augment, spec, train)
        batch_size = config.train.per_batch_size
        with Loader(
            pipeline, batch_size=batch_size, shuffle=True, drop_last=True, workers=0
        ) as loader:
            assert loader.steps_per_epoch == steps_per_epoch
            batch = next(loader.epoch(0))
        assert batch.images.shape == (batch_size, 3, 256, 256) and batch.mask.sum() > 0

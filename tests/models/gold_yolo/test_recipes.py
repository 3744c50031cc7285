"""Gold-YOLO's recipes: the numbers of the original's configurations and commands."""

from pathlib import Path

import pytest

from mindyolo_ext.config import load_config
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.engine.build import training_pipeline
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.registry import check_loss_keywords

RECIPES = Path(__file__).resolve().parents[3] / "configs" / "gold_yolo"
# load size of the published evaluation, IoU of the loss, weight of the class distillation, form of
# step 2, AP
SCALES = {
    "n": (636, "siou", 1.0, "distill", 39.9),
    "s": (634, "giou", 1.0, "distill", 46.4),
    "m": (636, "giou", 0.8, "plain", 51.1),
    "l": (636, "giou", 2.0, "plain", 53.3),
}


@pytest.mark.parametrize("step", ["", "-distill"])
@pytest.mark.parametrize("scale", SCALES)
def test_numbers_of_the_original(scale: str, step: str) -> None:
    load_size, iou, distill_class, second_form, published = SCALES[scale]
    path = RECIPES / f"gold_yolo-{scale}{step}.yaml"
    config = load_config(path)
    assert config.model.name == f"gold_yolo_{scale}"
    assert config.model.keywords == {"form": second_form if step else "fuse_ab"}
    assert config.input.size == [640, 640] and 640 - config.input.border == load_size
    assert (config.input.rounding, config.input.shrink) == ("down_whole", "area")
    wanted = {"name": "gold_yolo_loss", "iou": iou, "normaliser": "rank"}
    if step:
        wanted |= {
            "name": "gold_yolo_distill_loss",
            "distill_class": distill_class,
            "distill_dfl": 1.0,
            "temperature": 20,
        }
    assert config.train.loss == wanted
    check_loss_keywords(config.train.loss["name"], [key for key in wanted if key != "name"])
    optimizer = config.train.optimizer
    assert (optimizer.momentum, optimizer.nesterov, optimizer.groups, optimizer.clip_norm) == (
        0.937,
        True,
        "by_kind",
        0.0,
    )
    assert config.train.freeze == (["*.alpha"] if scale in "ml" else [])
    assert (config.train.sync_bn, config.train.ema_decay, config.train.ema_warmup) == (
        True,
        0.9999,
        2000,
    )
    assert (
        config.eval.conf_thres,
        config.eval.iou_thres,
        config.eval.max_detections,
        config.eval.multi_label,
        config.eval.rectangular,
    ) == (0.03, 0.65, 300, True, False)
    header = path.read_text(encoding="utf-8").partition("__BASE__")[0]
    assert f"published {published} % mAP" in " ".join(header.replace("#", "").split())
    assert f"configs/gold_yolo/{path.name}" in header


def test_the_recipe_for_a_quick_run_reads_its_pictures(shared: Path) -> None:
    folder = shared / "data" / "coco128"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    for name in ("gold_yolo-n-coco128", "gold_yolo-n-coco128-distill"):
        config = load_config(RECIPES / f"{name}.yaml", [f"data.root={folder}"])
        train, val = (
            build_dataset(part, config.data.root) for part in (config.data.train, config.data.val)
        )
        assert len(train) == len(val) == 128 and len(train.class_names) == 80
        spec = InputSpec(
            size=tuple(config.input.size),
            rounding=config.input.rounding,
            border=config.input.border,
        )
        pipeline = training_pipeline(config.data.augment, spec, train)
        with Loader(
            pipeline, batch_size=4, shuffle=True, drop_last=True, world_size=2, workers=0
        ) as loader:
            assert loader.steps_per_epoch == 16
            batch = next(loader.epoch(0))
        assert batch.images.shape == (4, 3, 320, 320) and batch.mask.sum() > 4

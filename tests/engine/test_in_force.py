"""The recipe with the values in force: nothing is left open, and it describes the same run."""

from dataclasses import asdict
from pathlib import Path

import pytest

from mindyolo_ext.config import load_config
from mindyolo_ext.engine.build import new_model, with_input
from mindyolo_ext.engine.in_force import in_force, notes_on, text_in_force
from mindyolo_ext.engine.stages import is_evaluated, stage_at
from mindyolo_ext.models.registry import default_loss

RECIPES = Path(__file__).resolve().parents[2] / "configs"
NAMES = ["RBC", "WBC", "Platelets"]
# One recipe of each family, at its smallest
SHOWN = (
    "yolo_fastestv2/yolo-fastestv2",
    "yolox/yolox-nano",
    "gold_yolo/gold_yolo-n",
    "dynamicdet/dy-yolov7-w0125-coco128-step2",
    "simple_yolo/simple-yolo-resnet18-bccd",
)


@pytest.mark.parametrize("name", SHOWN)
def test_reading_it_gives_the_same_run(name: str, tmp_path: Path) -> None:
    config = load_config(RECIPES / f"{name}.yaml", ["train.epochs=20"])
    model = new_model(config, len(NAMES))
    path = tmp_path / "in_force.yaml"
    path.write_text(
        text_in_force(config, model, NAMES, max_boxes=48, global_batch=64), encoding="utf-8"
    )
    shown = load_config(path)
    assert shown == in_force(config, model, NAMES, 48) == in_force(shown, model, NAMES, 48)
    assert (shown.data.class_names, shown.data.num_classes, shown.data.max_boxes) == (NAMES, 3, 48)
    assert None not in (shown.input.size, shown.input.color) and shown.input.mean
    again = new_model(shown, len(NAMES))
    assert again.input_spec == model.input_spec == with_input(again.input_spec, shown.input)
    assert again.architecture == model.architecture
    for epoch in range(20):
        loss, augment = stage_at(config, epoch)
        assert stage_at(shown, epoch) == ({"name": default_loss(model.family), **loss}, augment)
        assert is_evaluated(shown.train, epoch) == is_evaluated(config.train, epoch)
    assert all(stage.from_epoch >= 0 for stage in shown.train.stages)
    for key in ("optimizer", "schedule", "distill"):
        assert asdict(shown.train)[key] == asdict(config.train)[key]


def test_what_follows_from_the_number_of_images_per_step() -> None:
    yolox = load_config(RECIPES / "yolox" / "yolox-s.yaml")
    assert notes_on(yolox, 128) == {"train.optimizer.lr": "0.02 for 128 images per step"}
    dynamicdet = load_config(RECIPES / "dynamicdet" / "dy-yolov7-step1.yaml")
    assert notes_on(dynamicdet, 12) == {
        "train.optimizer.nominal_batch": "5 batch(es) of 12 images per update",
        "train.optimizer.weight_decay": "0.00046875 per update of 60 images",
    }
    assert notes_on(load_config(RECIPES / "yolo_fastestv2" / "yolo-fastestv2.yaml"), 16) == {}

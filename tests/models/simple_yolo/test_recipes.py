"""The simple YOLO's recipes: the numbers of the original's configuration and of its published
tables.
"""

from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.class_names import VOC_NAMES
from mindyolo_ext.config import load_config
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.engine.build import training_pipeline
from mindyolo_ext.engine.schedule import Schedule
from mindyolo_ext.models.registry import loss_keywords
from mindyolo_ext.models.simple_yolo.loss import simple_yolo_loss
from mindyolo_ext.models.simple_yolo.variants import official_input

RECIPES = Path(__file__).resolve().parents[3] / "configs" / "simple_yolo"
# recipe: model, width, assignment, published AP50 and AP, the same without ImageNet weights
PUBLISHED = {
    "resnet18": ("resnet18", 0.75, "nearby_grid", 71.6, 46.8, 69.0, 44.6),
    "resnet18-single-grid": ("resnet18", 0.75, "single_grid", 64.0, 39.0),
    "resnet18-all-grid": ("resnet18", 0.75, "all_grid", 66.2, 42.9),
    "resnet18-w025": ("resnet18", 0.25, "nearby_grid", 55.5, 32.8, 52.7, 30.8),
    "resnet18-w050": ("resnet18", 0.5, "nearby_grid", 68.0, 43.3, 66.2, 41.9),
    "resnet18-w100": ("resnet18", 1.0, "nearby_grid", 72.6, 47.9, 71.5, 46.9),
    "resnet34": ("resnet34", 0.75, "nearby_grid", 74.2, 50.5, 72.6, 48.7),
    "resnet50": ("resnet50", 0.75, "nearby_grid", 76.1, 52.0, 73.5, 49.4),
    "darknet-w025": ("darknet", 0.25, "nearby_grid", 66.9, 43.2),
    "darknet-w050": ("darknet", 0.5, "nearby_grid", 73.8, 49.6),
    "darknet": ("darknet", 0.75, "nearby_grid", 73.7, 49.8),
    "darknet-w100": ("darknet", 1.0, "nearby_grid", 74.0, 50.1),
}


def recipe(name: str):
    return load_config(RECIPES / f"simple-yolo-{name}.yaml")


def test_there_is_a_recipe_for_every_published_row():
    assert {p.stem for p in RECIPES.glob("*.yaml")} == {f"simple-yolo-{n}" for n in PUBLISHED} | {
        "base",
        "simple-yolo-resnet18-any-angle",
        "simple-yolo-resnet18-bccd",
        "simple-yolo-resnet18-sgd-step",
        "simple-yolo-resnet18-adamw-linear",
    }


def test_the_other_policies_of_the_original():
    step = recipe("resnet18-sgd-step").train
    schedule = Schedule(
        step.optimizer, step.schedule, steps_per_epoch=344, epochs=400, global_batch=2 * 24
    )
    assert step.optimizer.name == "sgd"
    for iteration, rate in ((0, 0.02), (45866, 0.02), (45867, 0.002), (344 * 400 - 1, 0.0002)):
        assert schedule.rates(iteration) == pytest.approx([rate], rel=1e-9)
    line = recipe("resnet18-adamw-linear").train
    schedule = Schedule(
        line.optimizer, line.schedule, steps_per_epoch=344, epochs=400, global_batch=2 * 24
    )
    assert (line.optimizer.name, line.optimizer.weight_decay) == ("adamw", 0.01)
    up = [schedule.rates(iteration)[0] for iteration in range(3 * 344)]
    assert np.diff(up) == pytest.approx(np.full(3 * 344 - 1, up[1] - up[0]), rel=1e-6)


@pytest.mark.parametrize("name", PUBLISHED)
def test_network_and_published_numbers(name):
    backbone, width, assignment, *numbers = PUBLISHED[name]
    config = recipe(name)
    assert config.model.name == f"simple_yolo_{backbone}"
    assert config.model.keywords == {"channel_sparsity": width, "assignment": assignment}
    header = (RECIPES / f"simple-yolo-{name}.yaml").read_text(encoding="utf-8").split("__BASE__")[0]
    assert all(f"{number:.1f} %" in header for number in numbers)


def test_training_as_the_original():
    config = recipe("resnet18")
    train = config.train
    assert (train.epochs, train.per_batch_size, train.ema_decay, train.ema_ramp) == (
        400,
        24,
        1.0,
        "linear",
    )
    assert (train.optimizer.name, train.optimizer.betas, train.optimizer.weight_decay) == (
        "adam",
        [0.9, 0.999],
        0.0,
    )
    schedule = Schedule(
        train.optimizer, train.schedule, steps_per_epoch=690, epochs=400, global_batch=2 * 24
    )
    assert schedule.rates(0)[0] == pytest.approx(2 * 0.001 / 25)
    assert max(schedule.rates(step)[0] for step in range(2000, 2140)) == pytest.approx(2 * 0.001)
    defaults = loss_keywords(train.loss["name"])
    assert set(train.loss) - {"name"} <= set(defaults)
    signature = simple_yolo_loss.__kwdefaults__
    assert {k: v for k, v in train.loss.items() if k != "name"} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in signature.items() if k in train.loss
    }


def test_evaluation_as_the_published_comparison():
    config = recipe("resnet18")
    assert (
        config.eval.conf_thres,
        config.eval.iou_thres,
        config.eval.max_detections,
        config.eval.multi_label,
    ) == (0.001, 0.6, 300, False)
    assert config.train.best_metric == "AP50" and config.eval.metrics == ["voc"]


def write_voc(folder: Path, years: dict[str, str]) -> None:
    """One image with one box per year, in both lists."""
    from mindyolo_ext.data.image_file import write_image

    for year, split in years.items():
        root = folder / year
        for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / part).mkdir(parents=True)
        for number in range(2):
            stem = f"{year[3:]}_{number}"
            write_image(root / "JPEGImages" / f"{stem}.jpg", np.full((60, 80, 3), 90, np.uint8))
            (root / "Annotations" / f"{stem}.xml").write_text(
                "<annotation><size><width>80</width><height>60</height><depth>3</depth></size>"
                "<object><name>dog</name><difficult>1</difficult><bndbox><xmin>10</xmin><ymin>10</ymin>"
                "<xmax>50</xmax><ymax>40</ymax></bndbox></object>"
                "<object><name>cat</name><bndbox><xmin>10</xmin><ymin>10</ymin><xmax>12</xmax><ymax>15</ymax></bndbox>"
                "</object></annotation>",
                encoding="utf-8",
            )
            with (root / "ImageSets" / "Main" / f"{split}.txt").open("a", encoding="utf-8") as file:
                file.write(stem + "\n")
        if year == "VOC2007":
            (root / "ImageSets" / "Main" / "test.txt").write_text("2007_0\n", encoding="utf-8")


def test_voc_is_read_as_the_original_reads_it(tmp_path):
    """Both years, difficult objects kept, objects of 10 square pixels or less dropped, coordinates
    unchanged.
    """
    write_voc(tmp_path, {"VOC2007": "trainval", "VOC2012": "trainval"})
    config = recipe("resnet18")
    train = build_dataset(config.data.train, tmp_path)
    assert len(train) == 4 and tuple(train.class_names) == VOC_NAMES
    truth = train.annotations(3)
    np.testing.assert_array_equal(truth.boxes, [[10, 10, 50, 40]])
    assert truth.labels.tolist() == [VOC_NAMES.index("dog")] and not truth.ignore.any()
    assert len(build_dataset(config.data.val, tmp_path)) == 1
    pipeline = training_pipeline(config.data.augment, official_input((64, 64)), train)
    assert pipeline.max_boxes <= 120
    assert pipeline(0).image.shape == (64, 64, 3)

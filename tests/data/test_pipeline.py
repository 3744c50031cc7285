"""The pipeline: which steps a recipe may name, and their output."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import Golden
from launching import ROOT
from photos import add_photo

from mindyolo_ext.data.augment import registry
from mindyolo_ext.data.augment.registry import Augmentation, AugmentContext, find_augmentation
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.pipeline import Pipeline, Step, build_pipeline
from mindyolo_ext.data.targets import padded_count, targets_of
from mindyolo_ext.data.types import Sample
from mindyolo_ext.errors import ConfigError
from mindyolo_ext.input_spec import InputSpec

SPEC = InputSpec(size=(64, 96), resize="stretch")


def test_preprocessing_equals_the_original(golden: Golden, tmp_path: Path) -> None:
    stored = golden.arrays("yolo_fastestv2/preprocess.npz")
    height, width = stored["image"].shape[:2]
    collector = Collector("golden", [str(label) for label in range(80)], relative=True, tolerance=0)
    rows = stored["labels"][:, 1:].astype(np.float64)
    boxes = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2], 1)
    add_photo(collector, tmp_path / "a.png", stored["image"], boxes, labels=rows[:, 0].astype(int))
    spec = InputSpec(size=(352, 352), resize="stretch")
    prepared = build_pipeline([], spec, collector.finish())(0)
    # the arrays were made with OpenCV 5, other versions may round a resized pixel the other way
    difference = np.abs(
        prepared.image.transpose(2, 0, 1)[None].astype(int) - stored["loader_output"]
    )
    assert difference.max() <= 1
    np.testing.assert_array_equal(
        spec.to_tensor(stored["loader_output"][0].transpose(1, 2, 0)), stored["input"][0]
    )
    np.testing.assert_allclose(targets_of(prepared), stored["labels"][:, 1:], atol=1e-6)
    np.testing.assert_allclose(
        (1 / prepared.placement.scale_x, 1 / prepared.placement.scale_y), stored["scale_wh"]
    )
    assert (height, width) == (prepared.placement.height, prepared.placement.width)


def test_pipeline_depends_on_seed_epoch_and_index_only(shapes: Dataset) -> None:
    steps = ["mosaic", {"name": "random_affine", "degrees": 10}, "hsv"]
    pipeline = build_pipeline(steps, SPEC, shapes, seed=4)
    first = pipeline(3, 2)
    pipeline(5, 0)
    np.testing.assert_array_equal(pipeline(3, 2).image, first.image)
    np.testing.assert_array_equal(
        build_pipeline(steps, SPEC, shapes, seed=4)(3, 2).boxes, first.boxes
    )
    for other in (
        pipeline(3, 1),
        pipeline(4, 2),
        build_pipeline(steps, SPEC, shapes, seed=5)(3, 2),
    ):
        assert (other.image != first.image).any()


def test_resize_comes_last_or_where_it_stands(shapes: Dataset) -> None:
    for steps, wanted in (
        (["hsv"], ["hsv", "resize"]),
        (["resize", "hsv"], ["resize", "hsv"]),
        ([], ["resize"]),
    ):
        built = build_pipeline(steps, SPEC, shapes).steps
        assert [step.augmentation.name for step in built] == wanted
    prepared = build_pipeline([], SPEC, shapes)(0)
    assert prepared.image.shape == (64, 96, 3)
    np.testing.assert_allclose(
        prepared.placement.to_photo(prepared.boxes), shapes.load(0).boxes, atol=1e-3
    )
    assert build_pipeline([], SPEC, shapes)(0, size=(96, 128)).image.shape == (96, 128, 3)


def _halved(sample: Sample, _: AugmentContext) -> Sample:
    return replace(sample, image=sample.image[::2, ::2])


def test_steps_after_resize_keep_the_size(shapes: Dataset) -> None:
    resize, halve = Step(find_augmentation("resize"), {}), Step(Augmentation(_halved), {})
    assert Pipeline([halve, resize], SPEC, shapes)(0).image.shape == (64, 96, 3)
    for steps in ([resize, halve], [halve]):
        with pytest.raises(ConfigError, match="steps after resize must keep the size"):
            Pipeline(steps, SPEC, shapes)(0)


def test_box_bound_counts_combined_images(shapes: Dataset) -> None:
    assert build_pipeline(["hsv"], SPEC, shapes).max_boxes == shapes.max_boxes()
    assert build_pipeline(["mosaic", "mixup"], SPEC, shapes).max_boxes == 8 * shapes.max_boxes()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            {"name": "horisontal_flip"},
            "step 2: unknown name 'horisontal_flip', did you mean horizontal_flip",
        ),
        ({"probability": 1}, "unknown name None"),
        ({"name": "hsv", "hu": 0.1}, r"\(hsv\): unknown keyword hu, did you mean hue"),
        ({"name": "resize", "size": 3}, r"\(resize\): unknown keyword size"),
        ({"name": "hsv", "probability": 1.5}, r"probability must be in 0..1, got 1.5"),
        ({"name": "hsv", "hue": "0.1"}, r"hue must be a number, got '0.1'"),
        (
            {"name": "random_affine", "scale": 0.5},
            r"scale must be a range \[low, high\], got 0.5",
        ),
        ({"name": "random_affine", "scale": [1.5, 0.5]}, "must be a range"),
        ({"name": ["hsv"]}, r"unknown name \['hsv'\]"),
        ("resize", "resize at most once"),
    ],
)
def test_faulty_steps(shapes: Dataset, step: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_pipeline(["resize", step], SPEC, shapes)


def test_rows_for_boxes_come_in_eights() -> None:
    assert [padded_count(boxes) for boxes in (0, 1, 8, 9, 17)] == [8, 8, 8, 16, 24]


def test_the_step_on_the_page_works(shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.setattr(registry, "_AUGMENTATIONS", dict(registry._AUGMENTATIONS))
    exec(program, {})
    image = build_pipeline([{"name": "gray", "probability": 1}], SPEC, shapes)(0).image
    assert (image == image[:, :, :1]).all() and image.std() > 5

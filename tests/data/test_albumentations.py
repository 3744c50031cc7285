"""The step ``albumentations``: boxes follow the image, samples are reproducible, and recipes hold
data, not code.
"""

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
from photos import assert_boxes_follow, blocks, made_sample, one_photo

from mindyolo_ext.data.augment import external
from mindyolo_ext.data.augment.external import albumentations
from mindyolo_ext.data.augment.registry import AugmentContext
from mindyolo_ext.data.pipeline import build_pipeline, check_steps
from mindyolo_ext.errors import ConfigError, MissingPackageError
from mindyolo_ext.input_spec import InputSpec

SPEC = InputSpec(size=(64, 64))
needs_it = pytest.mark.skipif(
    importlib.util.find_spec("albumentations") is None, reason="albumentations is not installed"
)


def changed(sample, *transforms, seed: int = 0, **keywords):
    context = AugmentContext(np.random.default_rng(seed), None, SPEC, 0, 0)
    return albumentations(sample, context, transforms=list(transforms), **keywords)


def problem(*transforms, **keywords) -> str:
    """The error of an invalid step."""
    with pytest.raises(ConfigError) as caught:
        check_steps([{"name": "albumentations", "transforms": list(transforms), **keywords}])
    assert str(caught.value).startswith("augmentation step 1 (albumentations): ")
    return str(caught.value).removeprefix("augmentation step 1 (albumentations): ")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'albumentations==2.0.8'"):
        check_steps([{"name": "albumentations", "transforms": ["HorizontalFlip"]}])


def test_no_list_and_no_transform():
    assert problem() == (
        "wanted transforms, a list such as [{name: CLAHE, p: 0.1}], got an empty list"
    )
    with pytest.raises(ConfigError, match="transforms must be a list, got 'CLAHE'"):
        check_steps([{"name": "albumentations", "transforms": "CLAHE"}])


@needs_it
def test_the_package_that_took_its_name_is_refused(monkeypatch: pytest.MonkeyPatch):
    import albumentations as package

    for version in ("2.0.9", "2.5.1", "unknown"):
        monkeypatch.setattr(package, "__version__", version)
        with pytest.raises(MissingPackageError, match=f"got {version}; AlbumentationsX has"):
            external._package()


@needs_it
@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ("HorizontalFlop", "no transform HorizontalFlop (no such name), did you mean HorizontalFl"),
        ({"name": "Lambda"}, "no transform Lambda (it needs Python code, or does not move boxes)"),
        ({"name": "FDA"}, "no transform FDA (it needs"),
        ({"name": "TextImage", "font_path": "/etc/passwd"}, "no transform TextImage (it needs"),
        ({"name": "ToTensorV2"}, "no transform ToTensorV2 ("),  # it comes with PyTorch
        ({"name": "Compose"}, "no transform Compose (it needs"),
        ({"name": "os"}, "no transform os (it needs"),
        ({"p": 1}, "wanted the name of a transform, or a mapping with name, got {'p': 1}"),
        (
            {"name": "Blur", "blurlimit": 3},
            "Blur: unknown argument blurlimit, did you mean blur_limit?",
        ),
        ({"name": "CLAHE", "p": "often"}, "CLAHE: "),
        ({"name": "CLAHE", "p": 3}, "CLAHE: "),
        ({"name": "MaskDropout"}, "MaskDropout: requires mask"),
        ({"name": "OneOf"}, "OneOf: wanted transforms, a list, got None"),
        ({"name": "OneOf", "transforms": [{"name": "Bluur"}]}, "no transform Bluur (no such"),
    ],
)
def test_wrong_transforms_are_told(transform, words: str):
    assert words in problem(transform)


@needs_it
@pytest.mark.parametrize(
    "transform",
    [
        {"name": "HorizontalFlip", "p": 1},
        {"name": "Transpose", "p": 1},
        {"name": "Affine", "scale": [0.6, 0.9], "translate_percent": 0.05, "p": 1},
        {"name": "OneOf", "transforms": [{"name": "VerticalFlip"}, {"name": "D4"}], "p": 1},
    ],
)
def test_boxes_follow_their_pixels(transform: dict):
    check_steps([{"name": "albumentations", "transforms": [transform]}])
    for seed in range(4):
        result = changed(blocks(), transform, seed=seed)
        assert len(result.boxes) == 3 and result.boxes.dtype == np.float32
        assert sorted(result.ignore.tolist()) == [False, False, True]
        assert result.ignore[result.labels == 1].all()
        assert_boxes_follow(result, 1.6)


@needs_it
def test_boxes_that_leave_go():
    sample = made_sample(np.zeros((64, 64, 3), np.uint8), [(0, 0, 20, 20), (30, 30, 60, 60)])
    crop = {"name": "Crop", "x_min": 19, "y_min": 19, "x_max": 64, "y_max": 64, "p": 1}
    result = changed(sample, crop)
    np.testing.assert_allclose(result.boxes, [(11, 11, 41, 41)], atol=1e-4)
    assert result.labels.tolist() == [1] and result.size == (45, 45)
    reaches_out = made_sample(np.zeros((64, 64, 3), np.uint8), [(50, 50, 64.0001, 64.0001)])
    assert len(changed(reaches_out, "HorizontalFlip").boxes) == 1
    assert changed(made_sample(np.zeros((64, 64, 3), np.uint8)), crop).boxes.shape == (0, 4)


@needs_it
def test_colors_are_rgb_inside_and_numbers_stay_bytes():
    blue = made_sample(np.full((32, 32, 3), (255, 0, 0), np.uint8))
    red_up = {"name": "RGBShift", "r_shift_limit": [90, 90], "g_shift_limit": [0, 0],
              "b_shift_limit": [0, 0], "p": 1}  # fmt: skip
    np.testing.assert_array_equal(changed(blue, red_up).image[0, 0], (255, 0, 90))
    with pytest.raises(ConfigError, match="wanted a uint8 image of three channels.*got float32"):
        changed(blue, {"name": "Normalize", "p": 1})


@needs_it
def test_a_sample_repeats_whatever_came_before(tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    dataset = one_photo(tmp_path, image, [(10, 10, 40, 40)])
    steps = [
        {
            "name": "albumentations",
            "transforms": [{"name": "RandomBrightnessContrast", "p": 1}, {"name": "GaussNoise"}],
        }
    ]
    pipeline = build_pipeline(steps, SPEC, dataset, seed=1)
    first = [pipeline(0, epoch).image for epoch in range(4)]
    again = pickle.loads(pickle.dumps(pipeline))  # as in a worker process
    for epoch in (2, 0, 3, 1):
        np.testing.assert_array_equal(again(0, epoch).image, first[epoch])
    assert any((first[0] != its).any() for its in first[1:])

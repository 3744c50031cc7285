"""Copy-paste: the pixels inside an outline are copied with their box, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from photos import add_photo, made_sample

from mindyolo_ext.data.augment.outlines import copy_paste
from mindyolo_ext.data.augment.registry import AugmentContext
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.pipeline import build_pipeline
from mindyolo_ext.errors import ConfigError
from mindyolo_ext.input_spec import InputSpec

SPEC = InputSpec(size=(64, 64))
OBJECT, WHOLE, CROWD = (10, 10, 40, 40), (50, 10, 60, 20), (5, 45, 25, 60)


@pytest.fixture
def photo(tmp_path: Path) -> Dataset:
    """An image of 64 x 80: a white triangle with an outline, a box without one, and a crowd."""
    image = np.full((64, 80, 3), 90, np.uint8)
    triangle = np.array([[10, 10], [40, 10], [10, 40]], float)
    for y in range(10, 40):
        image[y, 10 : 50 - y] = 255
    collector = Collector("cut", ["a", "b"], relative=False, tolerance=0)
    square = np.array([[5, 45], [25, 45], [25, 60], [5, 60]], float)
    add_photo(
        collector,
        tmp_path / "a.png",
        image,
        [OBJECT, WHOLE, CROWD],
        labels=[1, 0, 0],
        ignore=[False, False, True],
        polygons=[triangle, None, square],
    )
    return collector.finish()


def pasted(dataset: Dataset, sample, seed: int = 0, **keywords):
    context = AugmentContext(np.random.default_rng(seed), dataset, SPEC, 0, 0)
    return copy_paste(sample, context, **{"probability": 1.0, "share": 1.0, **keywords})


def test_an_object_comes_over_along_its_outline(photo: Dataset):
    black = made_sample(np.zeros((128, 160, 3), np.uint8), [(100, 90, 150, 120)])
    result = pasted(photo, black)
    np.testing.assert_allclose(result.boxes, [(100, 90, 150, 120), (20, 20, 80, 80)], atol=1e-4)
    assert result.labels.tolist() == [0, 1] and result.boxes.dtype == np.float32
    assert result.image[24, 24:70].min() == 255  # twice as large as in its photo
    assert not result.image[70:, 40:].any()  # the other half of its box is outside it
    assert not result.image[90:120, 10:50].any()  # nor is the crowd
    assert not black.image.any()
    small = made_sample(np.zeros((32, 80, 3), np.uint8))
    np.testing.assert_allclose(pasted(photo, small).boxes, [(25, 5, 40, 20)], atol=1e-4)


def test_boxes_are_not_hidden(photo: Dataset):
    """Pasting would cover 36 % of the box."""
    sample = made_sample(np.zeros((64, 80, 3), np.uint8), [(28, 28, 48, 48)])
    assert len(pasted(photo, sample).boxes) == 1
    assert len(pasted(photo, sample, max_covered=0.4).boxes) == 2


def test_shares_are_random_and_repeat(photo: Dataset):
    sample = made_sample(np.zeros((64, 80, 3), np.uint8))
    counts = [len(pasted(photo, sample, seed, share=0.5).boxes) for seed in range(40)]
    assert 8 < sum(counts) < 32
    assert counts == [len(pasted(photo, sample, seed, share=0.5).boxes) for seed in range(40)]
    assert pasted(photo, sample, probability=0.0) is sample


def test_a_set_without_outlines_is_refused(shapes: Dataset):
    with pytest.raises(ConfigError) as caught:
        build_pipeline(["copy_paste"], SPEC, shapes)
    assert "step 1 (copy_paste): wanted outlines of the objects" in str(caught.value)
    assert "polygons: true" in str(caught.value)


def test_in_a_pipeline(photo: Dataset):
    pipeline = build_pipeline([{"name": "copy_paste", "probability": 1.0}], SPEC, photo)
    assert pipeline.max_boxes == 4 and pipeline(0).image.shape == (64, 64, 3)

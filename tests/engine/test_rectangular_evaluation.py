"""Rectangular evaluation: each image is evaluated once, in the frame of its batch, and boxes are
mapped back.
"""

import numpy as np
import pytest
from photos import add_photo

from mindyolo_ext.backend.launch import World
from mindyolo_ext.config import EvalConfig
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.evaluate import evaluate
from mindyolo_ext.input_spec import InputSpec

SIZES = [(60, 90), (90, 60), (64, 64), (40, 100), (100, 41), (75, 80), (50, 90)]


class FindsThePhoto:
    """Stands in for a predictor: one box of class 0 around everything that is not padding."""

    num_classes = 1

    def __init__(self, input_spec: InputSpec):
        self.input_spec, self.shapes = input_spec, []

    def compile(self, shape: tuple[int, ...], dtype: np.dtype) -> bool:
        assert dtype == np.uint8
        self.shapes.append(shape[1:3])
        return False

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes = np.zeros((len(images), 1, 4), np.float32)
        for row, image in enumerate(images):
            photo = np.abs(image[:, :, 0].astype(int) - 114) > 25
            rows, columns = np.flatnonzero(photo.any(1)), np.flatnonzero(photo.any(0))
            boxes[row, 0] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return boxes, np.full((len(images), 1, 1), 0.9, np.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """White images of many shapes, each with one box that covers it."""
    folder = tmp_path_factory.mktemp("white")
    collector = Collector("white", ["a"], relative=False, tolerance=0)
    for number, (height, width) in enumerate(SIZES):
        image = np.full((height, width, 3), 255, np.uint8)
        path = folder / f"{number}.png"
        add_photo(collector, path, image, [(0, 0, width, height)], image_id=number + 1)
    return collector.finish()


@pytest.mark.parametrize("border", [None, 0, 4])
@pytest.mark.parametrize("rounding", ["down", "down_height", "down_whole"])
def test_boxes_come_back_from_their_frames(
    dataset: Dataset, border: int | None, rounding: str
) -> None:
    spec = InputSpec(size=(96, 96), color="rgb", rounding=rounding, shrink="area", border=border)
    predictor = FindsThePhoto(spec)
    settings = EvalConfig(per_batch_size=2, rectangular=True, metrics=["darknet"])
    result = evaluate(predictor, dataset, settings, workers=0)
    # height / width 0.4 0.56 | 0.67 0.94 | 1 1.5 | 2.44, plus half a stride
    assert predictor.shapes == [(96, 128), (128, 128), (128, 128), (128, 64)]
    assert len(result.detections) == len(SIZES)
    for (height, width), found in zip(SIZES, result.detections):
        assert found.shape == (1, 6)
        np.testing.assert_allclose(found[0, :4], [0, 0, width, height], atol=1.6)
    assert result.coco.stats["AP75"] == pytest.approx(1.0) and result.darknet.ap == pytest.approx(
        1.0, abs=0.01
    )
    square = FindsThePhoto(spec)
    evaluate(square, dataset, EvalConfig(per_batch_size=2), workers=0)
    assert square.shapes == [(96, 96)] * 4


def test_in_few_sizes(dataset: Dataset) -> None:
    predictor = FindsThePhoto(InputSpec(size=(96, 96)))
    settings = EvalConfig(
        per_batch_size=1, rectangular=True, rectangular_pad=0, rectangular_sizes=2
    )
    result = evaluate(predictor, dataset, settings, workers=0)
    assert predictor.shapes == [(64, 96)] * 3 + [(96, 96)] * 4  # upright ones join the square
    for (height, width), found in zip(SIZES, result.detections):
        np.testing.assert_allclose(found[0, :4], [0, 0, width, height], atol=1.6)


def test_without_the_extra_pad(dataset: Dataset) -> None:
    predictor = FindsThePhoto(InputSpec(size=(96, 96), rounding="down_height", border=0))
    evaluate(
        predictor,
        dataset,
        EvalConfig(per_batch_size=1, rectangular=True, rectangular_pad=0.0),
        workers=0,
    )
    assert predictor.shapes == [
        (64, 96),
        (64, 96),
        (64, 96),
        (96, 96),
        (96, 96),
        (96, 64),
        (96, 64),
    ]


def test_ranks_share_the_batches_of_one(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, settings = (
        InputSpec(size=(96, 96), rounding="down_height", border=0),
        EvalConfig(per_batch_size=2, rectangular=True),
    )
    alone = FindsThePhoto(spec)
    wanted = evaluate(alone, dataset, settings, workers=0).detections
    found: list[np.ndarray] = [np.zeros((0, 6))] * len(SIZES)
    for rank in range(3):  # 4 batches: ranks 1 and 2 end with one without images
        predictor = FindsThePhoto(spec)
        monkeypatch.setattr("mindyolo_ext.engine.evaluate.world", lambda rank=rank: World(rank, 3))
        part = evaluate(predictor, dataset, settings, workers=0).detections
        assert predictor.shapes == [alone.shapes[min(batch, 3)] for batch in (rank, rank + 3)]
        assert not any(len(a) and len(b) for a, b in zip(found, part))
        found = [np.concatenate(pair) for pair in zip(found, part)]
    for ours, theirs in zip(found, wanted):
        np.testing.assert_array_equal(ours, theirs)

"""Evaluation of a network that does not store its class names, or stores them in another order."""

import numpy as np
import pytest
from photos import add_photo

from mindyolo_ext.config import EvalConfig
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.evaluate import evaluate
from mindyolo_ext.errors import DataError, UsageError
from mindyolo_ext.evaluation.class_order import exchanged_classes
from mindyolo_ext.input_spec import InputSpec

BOXES = [(8, 8, 24, 24), (30, 30, 60, 60)]  # of a dog and a cat


class Finds:
    """Stands in for a predictor: finds both boxes of every image, with its own class numbers."""

    num_classes = 2

    def __init__(self, *labels: int):
        self.input_spec = InputSpec(size=(64, 64), color="rgb")
        self.scores = np.zeros((2, 2), np.float32)
        self.scores[np.arange(2), labels] = 0.9

    def compile(self, _shape: tuple[int, ...], _dtype: np.dtype) -> bool:
        return False

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes = np.array(BOXES, np.float32)
        return np.stack([boxes] * len(images)), np.stack([self.scores] * len(images))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("black")
    collector = Collector("black", ["dog", "cat"], relative=False, tolerance=0)
    for number in range(2):
        picture = np.zeros((64, 64, 3), np.uint8)
        add_photo(
            collector, folder / f"{number}.png", picture, BOXES, image_id=number + 1, labels=[0, 1]
        )
    return collector.finish()


def test_labels_are_matched_by_name(dataset):
    result = evaluate(Finds(1, 0), dataset, EvalConfig(), workers=0, class_names=["cat", "dog"])
    assert result.coco.ap50 == pytest.approx(1)
    result = evaluate(Finds(0, 1), dataset, EvalConfig(), workers=0, class_names=["dog", "cat"])
    assert result.coco.ap50 == pytest.approx(1)
    with pytest.raises(UsageError, match="only the network has cow"):
        evaluate(Finds(1, 0), dataset, EvalConfig(), workers=0, class_names=["cow", "dog"])


@pytest.mark.parametrize("names", [None, [], ["class0", "class1"]])
def test_a_network_without_names_that_numbers_otherwise_is_told(dataset, names):
    with pytest.raises(DataError, match="it finds dog as class 1, cat as class 0.*--names"):
        evaluate(Finds(1, 0), dataset, EvalConfig(), workers=0, class_names=names)


@pytest.mark.parametrize("labels", [(0, 1), (0, 0)])
def test_a_network_without_names_that_is_right_or_only_bad_is_evaluated(dataset, labels):
    result = evaluate(Finds(*labels), dataset, EvalConfig(), workers=0)
    assert (result.coco.ap50 > 0.99) == (labels == (0, 1))


def found(*rows: tuple[int, int]) -> np.ndarray:
    """Detections at the places in ``rows``: (place, class)."""
    return np.array(
        [[100 * place, 0, 100 * place + 9, 9, 0.9, label] for place, label in rows], np.float32
    ).reshape(-1, 6)


def truth(*labels: int) -> np.ndarray:
    return np.array(
        [[label, 100 * place, 0, 100 * place + 9, 9] for place, label in enumerate(labels)],
        np.float32,
    )


@pytest.mark.parametrize(
    "detections, objects, exchanged",
    [
        (found((0, 1), (1, 2), (2, 0)), truth(0, 1, 2), {0: 1, 1: 2, 2: 0}),
        (found((0, 0), (1, 1), (2, 2)), truth(0, 1, 2), {}),
        (found((0, 1), (1, 0), (2, 2)), truth(0, 1, 2), {}),  # a third is right
        (found((0, 1)), truth(0, 1, 2), {}),  # most objects are not found
        (found((0, 1), (1, 1), (2, 1)), truth(0, 2, 2), {}),  # no permutation fits
        (found(), truth(0, 1), {}),
        (found((0, 1)), truth(), {}),
    ],
)
def test_only_clear_cases_count(detections, objects, exchanged):
    assert exchanged_classes([detections], [objects.reshape(-1, 5)], 3) == exchanged

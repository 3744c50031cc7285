"""A network with many classes, evaluated on some of them, gives the detections of these classes."""

import numpy as np

from mindyolo_ext.engine.part_of_classes import PartOfClasses, columns_of
from mindyolo_ext.input_spec import InputSpec


class Numbers:
    """Stands in for a predictor with four classes whose scores identify class and box."""

    num_classes, input_spec = 4, InputSpec()

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = np.arange(3)[:, None] / 100 + np.arange(4) / 10
        return np.zeros((len(images), 3, 4)), np.stack([scores] * len(images))

    def compile(self, shape: tuple, dtype: type) -> tuple:
        return shape, dtype


def test_classes_by_name():
    names = ["cat", "dog", "owl", "bee"]
    assert columns_of(["bee", "cat"], names) == [3, 0]
    assert columns_of(["bee", "ant"], names) is None
    assert columns_of(["airplane"], [*names, "aeroplane"]) == [4]
    assert columns_of(names, names) is None  # all classes in their order are not a selection


def test_scores_of_some_classes():
    part = PartOfClasses(Numbers(), [3, 0])
    assert part.num_classes == 2
    boxes, scores = part(np.zeros((2, 64, 64, 3), np.uint8))
    assert boxes.shape == (2, 3, 4) and scores.shape == (2, 3, 2)
    np.testing.assert_allclose(scores[1], [[0.3, 0.0], [0.31, 0.01], [0.32, 0.02]])
    assert part.compile((1, 2), np.uint8) == ((1, 2), np.uint8)

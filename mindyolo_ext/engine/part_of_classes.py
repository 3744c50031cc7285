"""Evaluate a network on some of its classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from mindyolo_ext.class_match import place_of
from mindyolo_ext.contracts import Model, Predictor


def columns_of(wanted: Sequence[str], class_names: Sequence[str]) -> list[int] | None:
    """Indices of the ``wanted`` classes among those of a network, by name; None if some are
    missing or all are wanted.
    """
    if not len(wanted) < len(class_names):
        return None
    found = [place_of(name, class_names) for name in wanted]
    places = [place for place in found if place is not None]
    return places if len(places) == len(found) else None


class PartOfClasses:
    """A predictor restricted to some classes.

    Args:
        predictor: of all classes.
        columns: indices of the classes to keep, in their new order.
    """

    def __init__(self, predictor: Predictor, columns: Sequence[int]):
        self._predictor, self._columns = predictor, list(columns)
        self.input_spec = predictor.input_spec
        self.num_classes = len(self._columns)

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shape: as the predictor, with scores (B, A, len(columns))."""
        boxes, scores = self._predictor(images)
        return boxes, scores[:, :, self._columns]

    def compile(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> bool:
        """As in the predictor."""
        return self._predictor.compile(shape, dtype)

    def update(self, model: Model) -> None:
        """As in the predictor."""
        self._predictor.update(model)

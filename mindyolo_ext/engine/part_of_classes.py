"""A network of many classes, evaluated on some of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from mindyolo_ext.class_match import place_of
from mindyolo_ext.contracts import Model, Predictor


def columns_of(wanted: Sequence[str], class_names: Sequence[str]) -> list[int] | None:
    """Which classes of a network, by name, the ``wanted`` ones are; None if it has not all of them,
    or no others.
    """
    if not len(wanted) < len(class_names):
        return None
    found = [place_of(name, class_names) for name in wanted]
    places = [place for place in found if place is not None]
    return places if len(places) == len(found) else None


class PartOfClasses:
    """A predictor that gives the scores of some classes alone.

    Args:
        predictor: of all classes.
        columns: numbers of those that stay, in their new order.
    """

    def __init__(self, predictor: Predictor, columns: Sequence[int]):
        self._predictor, self._columns = predictor, list(columns)
        self.input_spec = predictor.input_spec
        self.num_classes = len(self._columns)

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shape: as of the predictor, with scores (B, A, len(columns))."""
        boxes, scores = self._predictor(images)
        return boxes, scores[:, :, self._columns]

    def compile(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> bool:
        """As of the predictor."""
        return self._predictor.compile(shape, dtype)

    def update(self, model: Model) -> None:
        """As of the predictor."""
        self._predictor.update(model)

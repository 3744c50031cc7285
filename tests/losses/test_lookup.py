"""Lookups by index, against NumPy."""

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.losses.assign.lookup import (
    match_matrix,
    of_matched_box,
    rows_of_classes,
    value_of_class,
)

pytestmark = pytest.mark.graph
BATCH, CLASSES, BOXES, PREDICTIONS = 2, 3, 4, 5
RNG = np.random.RandomState(0)
VALUES = RNG.rand(BATCH, CLASSES, PREDICTIONS).astype(np.float32)
COLUMNS = RNG.rand(6, BATCH, BOXES).astype(np.float32)
INDEX = RNG.randint(BOXES, size=(BATCH, PREDICTIONS)).astype(np.int32)
MATCHED = np.array([[1, 0, 1, 1, 0], [0, 0, 1, 0, 1]], np.float32)


class Lookup(nn.Cell):
    """All lookups in one graph."""

    def construct(self, values, own, of_boxes, columns, index, matched):
        return (
            value_of_class(values, own),
            rows_of_classes(values, of_boxes),
            of_matched_box(columns, index),
            match_matrix(matched, index, BOXES),
        )


def test_lookups_equal_indexing():
    own = RNG.randint(CLASSES, size=(BATCH, PREDICTIONS)).astype(np.float32)
    of_boxes = RNG.randint(CLASSES, size=(BATCH, BOXES)).astype(np.float32)
    value, rows, columns, matches = Lookup()(
        *[Tensor(x) for x in (VALUES, own, of_boxes, COLUMNS, INDEX, MATCHED)]
    )
    for image in range(BATCH):
        places = np.arange(PREDICTIONS)
        np.testing.assert_array_equal(
            value.asnumpy()[image], VALUES[image, own[image].astype(int), places]
        )
        np.testing.assert_array_equal(
            rows.asnumpy()[image], VALUES[image, of_boxes[image].astype(int)]
        )
        for number, column in enumerate(columns):
            np.testing.assert_array_equal(
                column.asnumpy()[image], COLUMNS[number, image, INDEX[image]]
            )
        for box in range(BOXES):
            np.testing.assert_array_equal(
                matches.asnumpy()[image, box], (INDEX[image] == box) * MATCHED[image]
            )

"""What an export computes in the graph for images of any size equals the constants of one size."""

import numpy as np
import pytest

from mindyolo_ext.layers import grid, resize
from mindyolo_ext.models.simple_yolo import network

pytestmark = pytest.mark.needs_torch
SIZES, STRIDES = ((6, 10), (3, 5), (1, 1)), (8, 16, 32)
ANCHORS = tuple((2.0 + i, 1.5 * i + 0.5) for i in range(6))


def test_cells():
    wanted = grid.cell_positions(3, 5)
    np.testing.assert_array_equal(grid._computed_positions(3, 5).asnumpy(), wanted.asnumpy())
    for which in range(3):
        for repeats in (1, 3):
            found = grid._computed_row(SIZES, STRIDES, repeats, which).asnumpy()
            wanted = grid._grid_row(SIZES, STRIDES, repeats, which).asnumpy()
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)


def test_anchors():
    found = network._computed_anchor_rows(ANCHORS, SIZES).asnumpy()
    np.testing.assert_array_equal(found, network._anchor_rows(ANCHORS, SIZES).asnumpy())


@pytest.mark.parametrize(("source", "target"), [(5, 10), (10, 5), (7, 3), (3, 7), (1, 4), (4, 1)])
def test_weights_of_resizing(source: int, target: int):
    for computed, constant in (
        (resize._computed_bilinear, resize._bilinear_matrix),
        (resize._computed_bins, resize._bin_matrix),
    ):
        found = computed(source, target).asnumpy()
        np.testing.assert_allclose(found, constant(source, target).asnumpy(), atol=1e-6)

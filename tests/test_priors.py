"""Cells, levels and anchors of predictions: their order, and what is refused."""

import numpy as np
import pytest

from mindyolo_ext.priors import Priors, grid_priors


def test_order_is_level_row_column_anchor():
    priors = grid_priors(64, 96, (16, 32), [[(10, 20), (30, 40)], [(50, 60), (70, 80)]])
    assert len(priors) == 2 * (4 * 6 + 2 * 3) and priors.strides == [16, 32]
    place = 2 * (1 * 6 + 2) + 1  # row 1, column 2, second anchor of stride 16
    assert (priors.x[place], priors.y[place], priors.stride[place], priors.level[place]) == (
        40,
        24,
        16,
        0,
    )
    assert (priors.width[place], priors.height[place]) == (30, 40)
    assert (priors.x[-1], priors.y[-1], priors.stride[-1], priors.level[-1]) == (80, 48, 32, 1)
    np.testing.assert_array_equal(priors.cells()[place], [32, 16, 48, 32])
    np.testing.assert_array_equal(priors.anchors()[place], [25, 4, 55, 44])
    assert priors.level.dtype == np.int64 and priors.x.dtype == np.float32


def test_order_with_all_cells_of_an_anchor_together():
    sizes = [[(10, 20), (30, 40)], [(50, 60), (70, 80)]]
    usual, planes = (
        grid_priors(64, 96, (16, 32), sizes, anchors_fastest=fastest) for fastest in (True, False)
    )
    # all cells of stride 16 with the first anchor
    first = np.arange(48).reshape(24, 2).T.reshape(-1)
    second = 48 + np.arange(12).reshape(6, 2).T.reshape(-1)
    for name in ("x", "y", "stride", "level", "width", "height"):
        np.testing.assert_array_equal(
            getattr(planes, name), getattr(usual, name)[np.concatenate((first, second))]
        )
    assert planes.width[23] == 10 and planes.width[24] == 30


def test_without_anchors_there_is_one_prediction_per_cell():
    priors = grid_priors(32, 64, (8, 16, 32))
    assert (
        len(priors) == 4 * 8 + 2 * 4 + 1 * 2 and not priors.width.any() and not priors.height.any()
    )
    np.testing.assert_array_equal(priors.x[:9], [4, 12, 20, 28, 36, 44, 52, 60, 4])
    np.testing.assert_array_equal(np.bincount(priors.level), [32, 8, 2])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"multiples of \[16, 32\], got 48 x 64"):
        grid_priors(48, 64, (16, 32))
    with pytest.raises(ValueError, match="anchors for 2 levels, got 1"):
        grid_priors(64, 64, (16, 32), [[(1, 2)]])
    with pytest.raises(ValueError, match="vectors of one length"):
        Priors(*np.zeros((5, 3)), np.zeros(4))

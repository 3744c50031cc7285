"""Overlaps computed by hand."""
import mindspore
import numpy as np
import pytest

from mindyolo_ext.backend import Tensor
from mindyolo_ext.losses.iou import box_from_center, ciou, diou, giou, iou


def tensors(*rows):
    """xyxy rows -> four coordinate tensors."""
    return tuple(Tensor(column) for column in np.array(rows, np.float32).T)


# Squares of side 2 that share a quarter; apart; equal; one twice as wide and 1 high around the same centre.
FIRST = tensors((0, 0, 2, 2), (0, 0, 1, 1), (3, 4, 5, 8), (0, 0, 2, 2))
SECOND = tensors((1, 1, 3, 3), (2, 0, 3, 1), (3, 4, 5, 8), (-1, 0.5, 3, 1.5))
IOU = np.array([1 / 7, 0, 1, 2 / 6])
DISTANCE = np.array([2 / 18, 4 / 10, 0, 0])
ASPECT = 4 / np.pi ** 2 * (np.arctan(4) - np.arctan(1)) ** 2


@pytest.mark.parametrize("function,wanted", [
    (iou, IOU),
    (giou, IOU - np.array([2 / 9, 1 / 3, 0, (8 - 6) / 8])),
    (diou, IOU - DISTANCE),
    (ciou, IOU - DISTANCE - np.array([0, 0, 0, ASPECT ** 2 / (1 - 2 / 6 + ASPECT)])),
])
def test_by_hand(function, wanted):
    np.testing.assert_allclose(function(FIRST, SECOND).asnumpy(), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(function(SECOND, FIRST).asnumpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", [iou, giou, diou, ciou])
def test_coordinates_broadcast(function):
    column = tuple(x.reshape(-1, 1) for x in FIRST)
    table = function(column, SECOND).asnumpy()
    assert table.shape == (4, 4)
    np.testing.assert_allclose(np.diag(table), function(FIRST, SECOND).asnumpy(), rtol=1e-6, atol=1e-7)


def test_box_from_center():
    got = [x.asnumpy().item() for x in box_from_center(*tensors((5, 6, 2, 4)))]
    assert got == [4, 4, 6, 8]


def test_the_weight_of_the_aspect_carries_no_gradient():
    """Around a common centre only the overlap and the aspect term change with the width."""
    def value(width):
        half = width * 0.5
        return ciou((1 - half, Tensor(0.0), 1 + half, Tensor(2.0)), tensors((-1, 0.5, 3, 1.5))).sum()

    got = mindspore.grad(value)(Tensor(2.0, mindspore.float32)).asnumpy()
    overlap, step = 2 / 6, np.arctan(4) - np.arctan(1)
    d_overlap = (1 * 6 - 2 * (2 - 1)) / 36              # inter = w, union = 2 w + 4 - w
    d_aspect = 4 / np.pi ** 2 * 2 * step * (-0.5 / (1 + 1))
    weight = ASPECT / (1 - overlap + ASPECT)
    np.testing.assert_allclose(got, d_overlap - weight * d_aspect, rtol=1e-5)

"""Overlaps computed by hand."""

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, float32
from mindyolo_ext.backend.gradients import grad
from mindyolo_ext.losses.iou import box_from_center, ciou, diou, giou, iou, pairwise_iou, siou


def tensors(*rows):
    """xyxy rows -> four coordinate tensors."""
    return tuple(Tensor(column) for column in np.array(rows, np.float32).T)


# Squares of side 2: overlapping by a quarter; apart; equal; one against a 4 x 1 box around the same
# center.
FIRST = tensors((0, 0, 2, 2), (0, 0, 1, 1), (3, 4, 5, 8), (0, 0, 2, 2))
SECOND = tensors((1, 1, 3, 3), (2, 0, 3, 1), (3, 4, 5, 8), (-1, 0.5, 3, 1.5))
IOU = np.array([1 / 7, 0, 1, 2 / 6])
DISTANCE = np.array([2 / 18, 4 / 10, 0, 0])
ASPECT = 4 / np.pi**2 * (np.arctan(4) - np.arctan(1)) ** 2


@pytest.mark.parametrize(
    "function,wanted",
    [
        (iou, IOU),
        (giou, IOU - np.array([2 / 9, 1 / 3, 0, (8 - 6) / 8])),
        (diou, IOU - DISTANCE),
        (ciou, IOU - DISTANCE - np.array([0, 0, 0, ASPECT**2 / (1 - 2 / 6 + ASPECT)])),
    ],
)
def test_by_hand(function, wanted):
    np.testing.assert_allclose(function(FIRST, SECOND).asnumpy(), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(function(SECOND, FIRST).asnumpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", [iou, giou, diou, ciou])
def test_coordinates_broadcast(function):
    column = tuple(x.reshape(-1, 1) for x in FIRST)
    table = function(column, SECOND).asnumpy()
    assert table.shape == (4, 4)
    np.testing.assert_allclose(
        np.diag(table), function(FIRST, SECOND).asnumpy(), rtol=1e-6, atol=1e-7
    )


def test_box_from_center():
    got = [x.asnumpy().item() for x in box_from_center(*tensors((5, 6, 2, 4)))]
    assert got == [4, 4, 6, 8]


def test_the_weight_of_the_aspect_carries_no_gradient():
    """Around a common center only the overlap and the aspect term change with the width."""

    def value(width):
        half = width * 0.5
        return ciou(
            (1 - half, Tensor(0.0), 1 + half, Tensor(2.0)), tensors((-1, 0.5, 3, 1.5))
        ).sum()

    got = grad(value)(Tensor(2.0, float32)).asnumpy()
    overlap, step = 2 / 6, np.arctan(4) - np.arctan(1)
    d_overlap = (1 * 6 - 2 * (2 - 1)) / 36  # inter = w, union = 2 w + 4 - w
    d_aspect = 4 / np.pi**2 * 2 * step * (-0.5 / (1 + 1))
    weight = ASPECT / (1 - overlap + ASPECT)
    np.testing.assert_allclose(got, d_overlap - weight * d_aspect, rtol=1e-5)


def siou_by_definition(box, other):
    """One pair, following the original's code: the angle by its arc sine, and a branch between two
    sines.
    """
    box, other = np.asarray(box, np.float64), np.asarray(other, np.float64)
    size, other_size = box[2:] - box[:2], other[2:] - other[:2]
    inter = np.prod(
        np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    )
    enclosing = np.maximum(box[2:], other[2:]) - np.minimum(box[:2], other[:2])
    offset = (other[:2] + other[2:] - box[:2] - box[2:]) / 2 + 1e-10
    sines = np.abs(offset) / np.hypot(*offset)
    sine = sines[1] if sines[0] > np.sqrt(0.5) else sines[0]
    angle = np.cos(2 * np.arcsin(sine) - np.pi / 2)
    distance = 2 - np.exp((angle - 2) * (offset / enclosing) ** 2).sum()
    shape = ((1 - np.exp(-np.abs(size - other_size) / np.maximum(size, other_size))) ** 4).sum()
    return inter / (size.prod() + other_size.prod() - inter) - (distance + shape) / 2


def test_siou_by_hand():
    """Diagonal, sideways, equal, concentric."""
    unlike = (1 - np.exp(-0.5)) ** 4
    # Angle 1 and offsets of 1 in 3; angle 0 and 2 in 3; all equal; sides that differ by half of the
    # larger
    wanted = IOU - np.array([1 - np.exp(-1 / 9), (1 - np.exp(-2 * 4 / 9)) / 2, 0, unlike])
    np.testing.assert_allclose(siou(FIRST, SECOND).asnumpy(), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(siou(SECOND, FIRST).asnumpy(), wanted, rtol=1e-5, atol=1e-6)


def test_siou_of_random_pairs():
    random = np.random.RandomState(0)
    low = random.uniform(0, 4, (2, 200, 2))
    boxes, others = np.concatenate((low, low + random.uniform(0.1, 3, (2, 200, 2))), 2)
    wanted = [siou_by_definition(*pair) for pair in zip(boxes, others, strict=True)]
    np.testing.assert_allclose(
        siou(tensors(*boxes), tensors(*others)).asnumpy(), wanted, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("function", [giou, diou, ciou, siou])
@pytest.mark.parametrize("box", [(1, 1, 1, 1), (0, 0, 2, 0), (3, 3, 1, 1), (1, 0, 3, 2)])
def test_gradients_of_degenerate_boxes_are_finite(function, box):
    """A point, no height, swapped corners, and centers on one line, beside a normal box."""
    other = tensors((0, 0, 4, 2))

    def value(*corners):
        return function(corners, other, 1e-10).sum()

    for gradient in grad(value, (0, 1, 2, 3))(*tensors(box)):
        assert np.isfinite(gradient.asnumpy()).all()


def test_pairwise_iou():
    """Every pair, in any batch; a box with swapped corners has no area and no overlap."""
    random = np.random.RandomState(1)
    low = random.uniform(0, 4, (2, 5, 2))
    boxes = np.concatenate((low, low + random.uniform(0.5, 3, (2, 5, 2))), 2).astype(np.float32)
    others = boxes[:, ::-1] + np.float32(0.25)
    others[0, 0] = (3, 3, 1, 1)
    rows, columns = (
        tuple(map(Tensor, np.ascontiguousarray(b.transpose(2, 0, 1)))) for b in (boxes, others)
    )
    got = pairwise_iou(rows, columns).asnumpy()
    assert got.shape == (2, 5, 5) and not got[0, :, 0].any()
    for image in range(2):
        for row in range(5):
            for column in range(1 - image, 5):
                pair = iou(tensors(boxes[image, row]), tensors(others[image, column])).asnumpy()
                np.testing.assert_allclose(got[image, row, column], pair[0], rtol=1e-5, atol=1e-7)

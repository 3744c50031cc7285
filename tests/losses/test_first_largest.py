"""The largest values, and the first of equal ones, against a stable sort."""

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor
from mindyolo_ext.losses.assign.atss import ATSSAssigner
from mindyolo_ext.losses.assign.robust import finite, finite_targets, first_largest
from mindyolo_ext.losses.assign.task_aligned import TaskAlignedAssigner


@pytest.mark.parametrize("above", [None, 1.5])
@pytest.mark.parametrize("size", [3, 40, 5000])
def test_equal_values_are_taken_by_their_place(size: int, above: float | None) -> None:
    random = np.random.RandomState(size)
    values = random.randint(-2, 4, (2, 5, size)).astype(np.float32)
    values[0, 0], values[0, 1] = 0.0, -np.inf
    most = min(size, 13)
    number = random.randint(1, most + 1, (2, 5, 1)).astype(np.int32)
    taken, places = (
        part.asnumpy() for part in first_largest(Tensor(values), Tensor(number), most, above=above)
    )
    assert taken.shape == places.shape == (2, 5, 2 * most)
    assert places.min() >= 0 and places.max() < size
    for row in np.ndindex(2, 5):
        wanted = np.argsort(-values[row], kind="stable")[: number[row][0]]
        if above is not None:
            wanted = wanted[values[row][wanted] > above]
        assert sorted(places[row][taken[row] > 0]) == sorted(wanted)


def test_what_is_finite() -> None:
    parts = [Tensor(np.array(row, np.float32)) for row in ([0, np.nan, 1, np.inf], [1, 2, 3e38, 0])]
    assert finite(*parts).asnumpy().tolist() == [1, 0, 1, 0]
    opposite = [Tensor(np.array([sign * np.inf], np.float32)) for sign in (1, -1)]
    assert finite(*opposite).asnumpy().tolist() == [0]
    targets = np.ones((1, 2, 5), np.float32)
    targets[0, 1, 2] = np.nan
    rows, mask = finite_targets(Tensor(targets), Tensor(np.ones((1, 2), np.float32)))
    assert mask.asnumpy().tolist() == [[1, 0]]
    assert rows.asnumpy().tolist() == [[[1] * 5, [0] * 5]]


def test_a_box_in_a_flat_image_takes_the_first_cells() -> None:
    """All predictions are equal, as from a fresh network on an image of one color."""
    cells, count = 24, 24 * 24
    points = tuple(
        Tensor((part.reshape(-1) * 8 + 4).astype(np.float32))
        for part in np.mgrid[:cells, :cells][::-1]
    )
    box = tuple(Tensor(np.full((1, 1), side, np.float32)) for side in (0, 16, 16, 112, 112))
    boxes = tuple(Tensor(np.full((1, count), side, np.float32)) for side in (16, 16, 112, 112))
    scores = Tensor(np.full((1, 2, count), 0.25, np.float32))
    one = Tensor(np.ones((1, 1), np.float32))
    matched, _, _ = TaskAlignedAssigner(13)(scores, boxes, points, box, one)
    inside = [row * cells + column for row in range(2, 14) for column in range(2, 14)]
    assert np.flatnonzero(matched.asnumpy()).tolist() == inside[:13]


def test_atss_takes_the_first_of_equally_near_cells() -> None:
    """The center of the box is a corner of cells: of eight cells at the same distance, two are
    taken.
    """
    cells, count = 6, 36
    row, column = np.divmod(np.arange(count), cells)
    points = tuple(Tensor((part * 8 + 4).astype(np.float32)) for part in (column, row))
    box = tuple(Tensor(np.full((1, 1), side, np.float32)) for side in (0, 8, 8, 40, 40))
    assigner = ATSSAssigner(6)
    chosen, places = assigner._nearest(box[1:], points, (count,))
    found = places.asnumpy()[chosen.asnumpy() > 0]
    assert sorted(found.tolist()) == [8, 9, 14, 15, 20, 21]

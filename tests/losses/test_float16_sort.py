"""Every assigner gives the same matches on a device that sorts float32 in float16, at real sizes:
8400 predictions and 160 boxes per image.

Integer values stay exact there, as MindSpore documents for ``ops.sort``. Costs and overlaps of the
scenes are equal or differ by more than a rounding of float16; if real ones are closer, such a
device may choose another prediction that is as good.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, float16, float32, nn, ops
from mindyolo_ext.losses.assign.atss import ATSSAssigner
from mindyolo_ext.losses.assign.grid import CONFLICTS, PRIME, AnchorBoxAssigner, CellAssigner
from mindyolo_ext.losses.assign.ota import OTAAssigner
from mindyolo_ext.losses.assign.robust import EXACT, first_largest, first_marked, modulo
from mindyolo_ext.losses.assign.simota import AREAS, SimOTAAssigner
from mindyolo_ext.losses.assign.task_aligned import TaskAlignedAssigner
from mindyolo_ext.models.dynamicdet.loss import _matched_first

SIDE, BOXES, CLASSES = 640, 160, 80
STRIDES = (8, 16, 32)
SIZES = tuple((SIDE // stride) ** 2 for stride in STRIDES)  # 8400 predictions
SCALE = 0.95792  # ten overlaps, its even powers, add up to 7.0004; in float16 to 6.9998
ANCHORS = [[24, 30], [40, 44], [62, 50]]


@pytest.fixture
def in_float16(monkeypatch) -> Iterator[Callable[[], None]]:
    """Run a call in which ``ops.sort`` and ``ops.topk`` compare float32 in float16 and return it
    so.
    """

    def rounded(operator):
        def call(x, *arguments, **keywords):
            if x.dtype == float32:
                x = ops.cast(ops.cast(x, float16), float32)
            return operator(x, *arguments, **keywords)

        return call

    def switch() -> None:
        for name, operator in (("sort", ops.sort), ("topk", ops.topk)):
            monkeypatch.setattr(ops, name, rounded(operator))

    yield switch


def tensors(*arrays) -> tuple[Tensor, ...]:
    return tuple(Tensor(np.ascontiguousarray(array, np.float32)) for array in arrays)


def points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and stride of every prediction."""
    parts = []
    for stride in STRIDES:
        y, x = np.mgrid[: SIDE // stride, : SIDE // stride] * stride + stride / 2
        parts.append(np.stack((x.ravel(), y.ravel(), np.full(x.size, stride))))
    return tuple(np.concatenate(parts, 1))


def boxes_apart() -> np.ndarray:
    """(4, 160) cx, cy, w, h of boxes in 16 columns and 10 rows that do not overlap."""
    x, y = (part.ravel() for part in np.meshgrid(np.arange(16) * 40 + 20, np.arange(10) * 64 + 32))
    return np.stack((x, y, np.full(BOXES, 36), np.full(BOXES, 56))).astype(np.float32)


def corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate((boxes[:2] - boxes[2:] / 2, boxes[:2] + boxes[2:] / 2))


def task_aligned() -> tuple[Tensor, ...]:
    """All predictions are equal, as from a fresh network: many equal metrics."""
    x, y, _ = points()
    rng = np.random.RandomState(0)
    begin, size = rng.uniform(0, 250, (2, BOXES)), rng.uniform(300, 380, (2, BOXES))
    wanted = np.concatenate((begin, begin + size))[:, None]
    label = rng.randint(0, CLASSES, (1, BOXES))
    whole = np.array([60.0, 60, 580, 580]).reshape(4, 1, 1) + np.zeros((4, 1, len(x)))
    return TaskAlignedAssigner(13)(
        *tensors(np.full((1, CLASSES, len(x)), 0.25)),
        tensors(*whole),
        tensors(x, y),
        tensors(label, *wanted),
        *tensors(np.ones((1, BOXES))),
    )


def atss() -> tuple[Tensor, ...]:
    """Centers at multiples of 4 pixels: cells at equal distances."""
    x, y, stride = points()
    rng = np.random.RandomState(1)
    wanted = np.stack((*rng.randint(10, 150, (2, BOXES)) * 4, *rng.randint(4, 40, (2, BOXES)) * 4))
    predicted = np.stack((x, y, stride * 5, stride * 5))[:, None]
    return ATSSAssigner(9)(
        tensors(*corners(predicted)),
        tensors(x, y),
        (*tensors(stride), SIZES),
        tensors(np.zeros((1, BOXES)), *corners(wanted)[:, None]),
        *tensors(np.ones((1, BOXES))),
    )


def simota(area: str) -> tuple[Tensor, ...]:
    """Each prediction scales the box with the nearest center, each by a different factor."""
    x, y, stride = points()
    boxes = boxes_apart()
    far = np.maximum(abs(x - boxes[0][:, None]), abs(y - boxes[1][:, None])) / stride
    owner = far.argmin(0)
    near = far.min(0) < 1.5
    order = np.lexsort((np.random.RandomState(2).uniform(size=len(x)), ~near, owner))
    rank = np.empty(len(x))
    rank[order] = np.arange(len(x)) - np.searchsorted(owner[order], owner[order])
    predicted = boxes[:, owner]
    predicted[2:] *= SCALE**rank
    lines = tuple((*tensors(*2 * [np.arange(SIDE // stride)]), float(stride)) for stride in STRIDES)
    return SimOTAAssigner(area)(
        tensors(*predicted[:, None]),
        tensors(np.zeros((1, len(x))), np.zeros((1, CLASSES, len(x)))),
        tensors(np.zeros((1, BOXES)), *boxes[:, None]),
        *tensors(np.ones((1, BOXES))),
        lines,
    )


def ota() -> tuple[Tensor, ...]:
    """7200 slots, of which three each of a box overlap it equally."""
    slots = 3 * 5 * 3 * BOXES
    rng = np.random.RandomState(3)
    boxes = boxes_apart()
    predicted = boxes[:, np.arange(slots) % BOXES]
    predicted[2:] *= 0.95 ** (rng.permutation(slots) % 15)
    matched, box = OTAAssigner()(
        (tensors(*corners(predicted)[:, None]), *tensors(rng.uniform(size=(1, slots)) < 0.6)),
        tensors(np.zeros((1, slots)), np.zeros((1, CLASSES, slots))),
        tensors(np.zeros((1, BOXES)), *corners(boxes)[:, None]),
        *tensors(np.ones((1, BOXES))),
    )
    return (matched, box, *_matched_first(matched, 10 * BOXES))


def cells(assigner: nn.Cell) -> tuple[Tensor, ...]:
    rng = np.random.RandomState(4)
    targets = rng.uniform(0.05, 0.95, (4, BOXES, 5))
    targets[..., 0] = rng.randint(0, CLASSES, (4, BOXES))
    kinds = rng.uniform(0.04, 0.2, (6, 2))[rng.randint(0, 6, (4, BOXES))]
    targets[..., 3:] = kinds * rng.uniform(1, 1.0003, kinds.shape)  # closer than float16 resolves
    order = Tensor(np.array([12345, 6789], np.int32))
    return assigner(*tensors(targets, np.ones((4, BOXES))), order, (20, 20), CLASSES)


ASSIGNERS: dict[str, Callable[[], tuple[Tensor, ...]]] = {
    "task_aligned": task_aligned,
    "atss": atss,
    "ota": ota,
    **{f"simota {area}": lambda area=area: simota(area) for area in AREAS},
    **{
        f"cell {conflict}": lambda conflict=conflict: cells(
            CellAssigner(ANCHORS, 32, threshold=0.0625, nearby=True, conflict=conflict)
        )
        for conflict in CONFLICTS
    },
    **{
        f"anchor box {conflict}": lambda conflict=conflict: cells(
            AnchorBoxAssigner(ANCHORS, 32, threshold=0.0625, conflict=conflict)
        )
        for conflict in CONFLICTS
        if conflict != "sorted"
    },
}


@pytest.mark.parametrize("name", ASSIGNERS)
def test_matches_are_the_same(name: str, in_float16) -> None:
    wanted = [part.asnumpy() for part in ASSIGNERS[name]()]
    in_float16()
    found = [part.asnumpy() for part in ASSIGNERS[name]()]
    assert wanted[0].sum() > 300
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("above", [None, 1.5])
@pytest.mark.parametrize("size", [EXACT, EXACT + 1, 5000, 8400])
def test_the_first_of_equal_values(size: int, above: float | None, in_float16) -> None:
    in_float16()
    random = np.random.RandomState(size)
    values = random.randint(-2, 4, (2, 5, size)).astype(np.float32)
    number = random.randint(1, 14, (2, 5, 1)).astype(np.int32)
    taken, places = (
        part.asnumpy() for part in first_largest(Tensor(values), Tensor(number), 13, above=above)
    )
    for row in np.ndindex(2, 5):
        best = np.argsort(-values[row], kind="stable")[: number[row][0]]
        assert sorted(places[row][taken[row] > 0]) == sorted(best)


def test_as_many_are_taken_where_values_are_too_close(in_float16) -> None:
    """None is worse than the best by more than a rounding."""
    in_float16()
    values = (100 + np.random.RandomState(5).uniform(0, 1, (2, 3, 8400))).astype(np.float32)
    number = np.array([1, 4, 13], np.int32).reshape(1, 3, 1).repeat(2, 0)
    taken, places = (part.asnumpy() for part in first_largest(Tensor(values), Tensor(number), 13))
    np.testing.assert_array_equal(taken.sum(2), number[:, :, 0])
    for row in np.ndindex(2, 3):
        worst = np.sort(values[row])[-number[row][0]]
        chosen = places[row][taken[row] > 0]
        assert len(set(chosen)) == len(chosen)
        assert values[row][chosen].min() > worst - 0.0625  # float16 near 100


@pytest.mark.parametrize("size", [13, EXACT, EXACT + 1, 8400])
def test_the_first_marked(size: int, in_float16) -> None:
    in_float16()
    marks = np.random.RandomState(0).uniform(size=(2, 4, size)) < 0.4
    marks[0, 0], marks[0, 1, : size - 1], marks[1, 0, :-3] = False, False, False
    found, places = (part.asnumpy() for part in first_marked(*tensors(marks), 10))
    assert places.min() >= 0 and places.max() < size
    for row in np.ndindex(2, 4):
        wanted = np.flatnonzero(marks[row])[:10]
        assert found[row].tolist() == [1] * len(wanted) + [0] * (10 - len(wanted))
        assert places[row][: len(wanted)].tolist() == wanted.tolist()


def test_matched_slots_keep_their_order() -> None:
    matched = np.random.RandomState(0).uniform(size=(3, 9600)) < 0.1
    matched[1], matched[2, :-2] = False, False
    filled, slots = (part.asnumpy() for part in _matched_first(*tensors(matched), 1600))
    assert filled.shape == slots.shape == (3, 1600)
    for row in range(3):
        wanted = np.flatnonzero(matched[row])
        assert filled[row].sum() == len(wanted) and filled[row, : len(wanted)].all()
        assert slots[row, : len(wanted)].tolist() == wanted.tolist()
        assert not slots[row, len(wanted) :].any()


@pytest.mark.parametrize("divisor", [1, 7, 160, PRIME])
def test_remainders_are_exact(divisor: int) -> None:
    rng = np.random.RandomState(divisor)
    near = divisor * rng.randint(0, min(2**22, 2**30 // divisor) - 1, 2000)
    numbers = np.concatenate((near, near + divisor - 1, [0, divisor])).astype(np.int32)
    got = modulo(Tensor(numbers), divisor).asnumpy()
    np.testing.assert_array_equal(got, numbers % divisor)

"""Predictions that are not finite, and boxes whose area overflows, take no matches from any other
box.

One level has 4 x 4 cells of 8 pixels. In image 0, box 0 fills the upper left quarter and box 1 the
lower right one; in image 1, box 0 is in the middle. Around each box, four cells predict it with the
right center and 1.0, 0.9, 0.8 and 0.7 of its sides: overlaps of 1, 0.81, 0.64 and 0.49. The others
predict boxes of one pixel on themselves.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, float32, int32, nn
from mindyolo_ext.losses.assign.anchor_ratio import AnchorRatioAssigner, Assignment
from mindyolo_ext.losses.assign.atss import ATSSAssigner
from mindyolo_ext.losses.assign.grid import CONFLICTS, AnchorBoxAssigner, CellAssigner
from mindyolo_ext.losses.assign.ota import OTAAssigner
from mindyolo_ext.losses.assign.simota import SimOTAAssigner
from mindyolo_ext.losses.assign.task_aligned import TaskAlignedAssigner

pytestmark = pytest.mark.graph(when="all_cases")
STRIDE, CELLS, CLASSES = 8.0, 4, 3
SCALES = (1.0, 0.9, 0.8, 0.7)
# image -> class, cx, cy, w, h, and the cells that predict the box, best first
BOXES = {
    0: [((2, 8, 8, 16, 16), (5, 0, 1, 4)), ((1, 24, 24, 16, 16), (10, 11, 14, 15))],
    1: [((0, 16, 16, 16, 16), (5, 6, 9, 10))],
}
BEST = 5  # of image 0, for its box 0
INF, NAN = np.float32(np.inf), np.float32(np.nan)
# (what, number of its part): value
FAULTS = {
    "nothing": {},
    "centre NaN": {("box", 0): NAN},
    "centre -inf": {("box", 1): -INF},
    "width inf": {("box", 2): INF},
    "width inf, height 0": {("box", 2): INF, ("box", 3): 0.0},
    "width NaN": {("box", 2): NAN},
    "area inf": {("box", 2): 1e30, ("box", 3): 1e30},
    "objectness NaN": {("objectness", 0): NAN},
    "class NaN": {("class", 1): NAN},
    "class of the box inf": {("class", 2): INF},
    "classes inf and -inf": {("class", 0): INF, ("class", 1): -INF},
}


class Scene:
    """Arrays of the scene with a fault in one prediction."""

    def __init__(self, fault: dict[tuple[str, int], float]):
        count = CELLS * CELLS
        row, column = np.divmod(np.arange(count), CELLS)
        self.points = ((column + 0.5) * STRIDE, (row + 0.5) * STRIDE)
        parts = {
            "box": np.ones((4, 2, count), np.float32),
            "objectness": np.zeros((1, 2, count), np.float32),
            "class": np.zeros((CLASSES, 2, count), np.float32),
        }
        parts["box"][0], parts["box"][1] = self.points
        self.targets, self.mask = np.zeros((5, 2, 3), np.float32), np.zeros((2, 3), np.float32)
        for image, boxes in BOXES.items():
            for number, (values, cells) in enumerate(boxes):
                self.targets[:, image, number], self.mask[image, number] = values, 1
                for cell, scale in zip(cells, SCALES, strict=True):
                    parts["box"][:2, image, cell] = values[1:3]
                    parts["box"][2:, image, cell] = scale * values[3]
        for (what, number), value in fault.items():
            parts[what][number, 0, BEST] = value
        self.boxes, self.objectness, self.classes = (
            parts["box"],
            parts["objectness"],
            parts["class"],
        )

    def center_boxes(self) -> tuple[Tensor, ...]:
        return tuple(Tensor(part) for part in self.boxes)

    def corner_boxes(self) -> tuple[Tensor, ...]:
        return tensors(corners(self.boxes))

    def wanted(self, *, as_corners: bool) -> tuple[Tensor, ...]:
        boxes = corners(self.targets[1:]) if as_corners else self.targets[1:]
        return tensors([self.targets[0], *boxes])

    def logits(self) -> tuple[Tensor, Tensor]:
        return Tensor(self.objectness[0]), Tensor(by_image(self.classes))

    def scores(self) -> Tensor:
        """Probabilities, 0.5 where there is no fault."""
        return Tensor(by_image(1 / (1 + np.exp(-self.classes))))


def tensors(arrays) -> tuple[Tensor, ...]:
    return tuple(Tensor(np.asarray(array, np.float32)) for array in arrays)


def by_image(parts: np.ndarray) -> np.ndarray:
    """(K, B, A) -> (B, K, A)."""
    return np.ascontiguousarray(parts.transpose(1, 0, 2))


def corners(boxes: np.ndarray) -> list[np.ndarray]:
    half = boxes[2:] / 2
    with np.errstate(invalid="ignore"):
        return [*(boxes[:2] - half), *(boxes[:2] + half)]


def simota(scene: Scene, area: str):
    line = Tensor(np.arange(CELLS, dtype=np.float32))
    return SimOTAAssigner(area)(
        scene.center_boxes(),
        scene.logits(),
        scene.wanted(as_corners=False),
        Tensor(scene.mask),
        ((line, line, STRIDE),),
    )


def ota(scene: Scene):
    valid = Tensor(np.ones(scene.boxes.shape[1:], np.float32))
    return OTAAssigner()(
        (scene.corner_boxes(), valid),
        scene.logits(),
        scene.wanted(as_corners=True),
        Tensor(scene.mask),
    )


def task_aligned(scene: Scene):
    return TaskAlignedAssigner(2)(
        scene.scores(),
        scene.corner_boxes(),
        tensors(scene.points),
        scene.wanted(as_corners=True),
        Tensor(scene.mask),
    )


def atss(scene: Scene):
    """With squares of 16 pixels around the points."""
    count = CELLS * CELLS
    return ATSSAssigner(9)(
        scene.corner_boxes(),
        tensors(scene.points),
        (Tensor(np.full(count, 3.2, np.float32)), (count,)),
        scene.wanted(as_corners=True),
        Tensor(scene.mask),
    )


def owners(matched: Tensor, index: Tensor) -> list[dict[int, int]]:
    """Of each image the matched predictions and their boxes."""
    assert (matched.dtype, index.dtype) == (float32, int32)
    hits, boxes = matched.asnumpy(), index.asnumpy()
    assert set(np.unique(hits)) <= {0.0, 1.0} and boxes.min() >= 0
    return [
        {int(a): int(box[a]) for a in np.flatnonzero(hit)}
        for hit, box in zip(hits, boxes, strict=True)
    ]


UNTOUCHED = [{10: 1, 11: 1}, {5: 0, 6: 0}]  # box 1 of image 0, and image 1


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("assigner", ["center", "box_or_center", "ota"])
def test_dynamic_k(assigner: str, fault: str) -> None:
    """The overlaps of box 0 add up to 2.94 with its best prediction and to 1.94 without it."""
    scene = Scene(FAULTS[fault])
    found = ota(scene) if assigner == "ota" else simota(scene, assigner)
    own = {5: 0, 0: 0} if fault == "nothing" else {0: 0}
    assert owners(*found) == [{**own, **UNTOUCHED[0]}, UNTOUCHED[1]]


@pytest.mark.parametrize("fault", FAULTS)
def test_task_aligned(fault: str) -> None:
    """The two best of each box. An infinite logit is a probability of 1 or 0."""
    matched, index, score = task_aligned(Scene(FAULTS[fault]))
    stays = fault == "nothing" or "inf" in fault and "class" in fault or "objectness" in fault
    own = {5: 0, 0: 0} if stays else {0: 0, 1: 0}
    assert owners(matched, index) == [{**own, **UNTOUCHED[0]}, UNTOUCHED[1]]
    score = score.asnumpy()
    np.testing.assert_allclose(score[0, [10, 11]], [1.0, 0.81**6], rtol=1e-4)
    assert np.isfinite(score).all() and (score[0, list(own)] > 0).all()


@pytest.mark.parametrize("fault", FAULTS)
def test_atss(fault: str) -> None:
    """The four cells around each center, whose squares overlap the box by 144 of 368 pixels."""
    matched, index, score = atss(Scene(FAULTS[fault]))
    own = dict.fromkeys((0, 1, 4, 5), 0)
    if any(what == "box" and not np.isfinite(v) for (what, _), v in FAULTS[fault].items()):
        del own[BEST]
    others = dict.fromkeys((10, 11, 14, 15), 1)
    assert owners(matched, index) == [{**own, **others}, dict.fromkeys((5, 6, 9, 10), 0)]
    score = score.asnumpy()
    np.testing.assert_allclose(score[0, [0, 1, 4]], [0.81, 0.64, 0.49], rtol=1e-5)
    assert score[0, BEST] == pytest.approx(
        float(fault == "nothing" or "box" not in str(FAULTS[fault]))
    )


def test_targets_that_are_not_finite_want_no_cell() -> None:
    """Nor do they change what the other box matches."""
    fine = (1, 0.3, 0.6, 0.25, 0.25)
    order, size = Tensor(np.array([1, 0], np.int32)), (4, 4)
    for bad in ((0, NAN, 0.6, 0.25, 0.25), (0, 0.3, INF, 0.25, 0.25), (NAN, 0.3, 0.6, 0.25, 0.25)):
        for assigner in cell_assigners():
            alone, beside = (
                assigner(Tensor(np.array([rows], np.float32)), ones(2), order, size, CLASSES)
                for rows in ([fine, (0, 0, 0, 0, 0)], [fine, bad])
            )
            for got, wanted in zip(beside, alone, strict=True):
                np.testing.assert_array_equal(got.asnumpy(), wanted.asnumpy())
            assert alone[0].asnumpy().sum() >= 1
        found = Assignment(
            *AnchorRatioAssigner([[8, 8]], 8, 4.0)(
                Tensor(np.array([[fine, bad]], np.float32)), ones(2), *size
            )
        )
        matched = found.matched.asnumpy()[:, 0]
        # own cell, the one on its left and the one above
        assert matched.tolist() == [[1, 0], [1, 0], [1, 0], [0, 0], [0, 0]]
        for part in (found.cell_x, found.cell_y):
            assert part.asnumpy().min() >= 0 and part.asnumpy().max() < 4


def test_a_centre_beyond_all_integers_counts_at_the_border() -> None:
    order = Tensor(np.array([1, 0], np.int32))
    assigner = CellAssigner([[8, 8]], 8, threshold=0.5, nearby=False, conflict="last")
    for centre, cell in ((1e30, 3), (-1e30, 0)):
        rows = np.array([[(0, centre, 0.6, 0.25, 0.25)]], np.float32)
        matched, _, _ = assigner(Tensor(rows), ones(1), order, (4, 4), CLASSES)
        assert np.flatnonzero(matched.asnumpy()).tolist() == [2 * 4 + cell]


def ones(boxes: int) -> Tensor:
    return Tensor(np.ones((1, boxes), np.float32))


def cell_assigners() -> Iterator[nn.Cell]:
    for conflict in CONFLICTS:
        yield CellAssigner([[8, 8]], 8, threshold=0.5, nearby=True, conflict=conflict)
        if conflict != "sorted":
            yield AnchorBoxAssigner([[8, 8]], 8, threshold=0.1, conflict=conflict)

"""OTA on anchor-ratio candidates: find the anchors that fit a box, then choose the cheapest of them
for every box.
"""

from collections.abc import Sequence
from typing import NamedTuple

from mindyolo_ext.backend import Tensor, float32, int32, nn, ops
from mindyolo_ext.losses.assign.anchor_ratio import COPIES, AnchorRatioAssigner
from mindyolo_ext.losses.assign.dynamic_k import EXCLUDED, cheapest, dynamic_k
from mindyolo_ext.losses.assign.lookup import rows_of_classes
from mindyolo_ext.losses.assign.robust import filled, finite
from mindyolo_ext.losses.iou import Box, pairwise_iou
from mindyolo_ext.losses.pairs import of_boxes, of_predictions

_SMALLEST = 2.0**-24  # distance from 1 to the next float32 below it
_IOU_WEIGHT = 3.0


class Candidates(NamedTuple):
    """Names for the results of ``AnchorCandidates``, in C = L * 5 * a * M slots: level, copy,
    anchor, box (fastest).

    Shapes, all (B, C): ``valid`` 0/1; ``x``, ``y`` column and row of the cell; ``level``; ``box``
    that the slot belongs to; ``anchor_width``, ``anchor_height`` in cells; ``stride`` in pixels; as
    int ``row``, the prediction counted over all levels (level, anchor, y, x), ``place``, the
    prediction's first value in the flat vector of all maps, and ``step``, from one of its values to
    the next. Slots that are not valid name an arbitrary prediction.
    """

    valid: Tensor
    x: Tensor
    y: Tensor
    level: Tensor
    box: Tensor
    anchor_width: Tensor
    anchor_height: Tensor
    stride: Tensor
    row: Tensor
    place: Tensor
    step: Tensor


class AnchorCandidates(nn.Cell):
    """Find the predictions of all levels that may match a box: those of anchors with similar sides,
    in the cell of the box and beside it.

    Args:
        anchors: per level, (width, height) of its anchors in pixels.
        strides: per level, pixels per cell.
        ratio_threshold: see ``AnchorRatioAssigner``.
        values: numbers per prediction, 5 + K.

    Shape: targets (B, M, 5) class, cx, cy, w, h in 0..1; mask (B, M); (height, width) of every
        level's map in cells -> the floats (8, B, C) and the ints (3, B, C) of ``Candidates``. The
        flat vector that ``place`` counts in holds the maps (B, a * values, h, w) one after the
        other.
    """

    def __init__(
        self,
        anchors: Sequence[Sequence[Sequence[float]]],
        strides: Sequence[int],
        ratio_threshold: float,
        values: int,
    ):
        super().__init__()
        self.strides, self.values = tuple(strides), values
        self.anchors_per_level = len(anchors[0])
        self.assigners = nn.CellList(
            [
                AnchorRatioAssigner(level, stride, ratio_threshold)
                for level, stride in zip(anchors, strides)
            ]
        )

    def construct(
        self, targets: Tensor, mask: Tensor, sizes: tuple[tuple[int, int], ...]
    ) -> tuple[Tensor, Tensor]:
        floats, integers, first_row, first_place = (), (), 0, 0
        for level, assigner in enumerate(self.assigners):
            height, width = sizes[level]
            found = assigner(targets, mask, height, width)
            floats = floats + (self._floats(found, mask, level, assigner),)
            integers = integers + (
                self._integers(found, mask, (height, width), first_row, first_place),
            )
            first_row += self.anchors_per_level * height * width
            first_place += mask.shape[0] * self.anchors_per_level * self.values * height * width
        return ops.cat(floats, 2), ops.cat(integers, 2)

    def _floats(
        self, found: tuple[Tensor, ...], mask: Tensor, level: int, assigner: nn.Cell
    ) -> Tensor:
        """Compute the floats of one level, (8, B, 5 * a * M)."""
        boxes = ops.reshape(ops.cast(ops.arange(mask.shape[1]), float32), (1, 1, 1, -1))
        ones = ops.ones_like(ops.reshape(found[0], self._shape(mask)))
        parts = (
            ops.reshape(found[0], self._shape(mask)),
            ones * ops.reshape(ops.cast(found[3], float32), (COPIES, 1, *mask.shape)),
            ones * ops.reshape(ops.cast(found[4], float32), (COPIES, 1, *mask.shape)),
            ones * float(level),
            ones * boxes,
            ones * ops.reshape(assigner.anchor_width, (1, -1, 1, 1)),
            ones * ops.reshape(assigner.anchor_height, (1, -1, 1, 1)),
            ones * float(self.strides[level]),
        )
        return self._by_image(parts, mask)

    def _integers(
        self,
        found: tuple[Tensor, ...],
        mask: Tensor,
        size: tuple[int, int],
        first_row: int,
        first_place: int,
    ) -> Tensor:
        """``row``, ``place`` and ``step`` of one level, (3, B, 5 * a * M)."""
        cells = size[0] * size[1]
        cell = ops.reshape(found[4] * size[1] + found[3], (COPIES, 1, *mask.shape))
        anchor = ops.reshape(ops.arange(self.anchors_per_level, dtype=int32), (1, -1, 1, 1))
        image = ops.reshape(ops.arange(mask.shape[0], dtype=int32), (1, 1, -1, 1))
        row = cell + (anchor * cells + ops.zeros_like(image))
        place = cell + (image * self.anchors_per_level + anchor) * (self.values * cells)
        return self._by_image(
            (row + first_row, place + first_place, ops.zeros_like(row) + cells), mask
        )

    def _shape(self, mask: Tensor) -> tuple[int, ...]:
        """(5, a, B, M)."""
        return COPIES, self.anchors_per_level, mask.shape[0], mask.shape[1]

    def _by_image(self, parts: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """n tensors (5, a, B, M) -> (n, B, 5 * a * M)."""
        return ops.reshape(
            ops.transpose(ops.stack(parts, 0), (0, 3, 1, 2, 4)), (len(parts), mask.shape[0], -1)
        )


class OTAAssigner(nn.Cell):
    """Choose the matches among the candidates.

    The cost of a candidate for a box of its image is the class loss plus three times -log IoU. A
    box takes the cheapest candidates of ALL boxes, as many as the sum of its ten best overlaps
    says, at least one. A candidate that several boxes take goes to the box of the image for which
    it is cheapest. The original leaves the choice between equal costs open; here the first one
    wins. A candidate whose box or logits are not finite is not valid.

    Shape: candidates' boxes x1, y1, x2, y2, each (B, C), valid (B, C) 0/1; logits of objectness (B,
        C) and of classes (B, K, C); boxes class, x1, y1, x2, y2, each (B, M), in pixels like the
        candidates, and mask (B, M) 0/1 -> matched (B, C) float 0/1, number of the box (B, C) int;
        no tensor carries a gradient.
    Source: arXiv:2103.14259; YOLOv7's ``ComputeLossOTA`` as in DynamicDet ``utils/loss.py``. Unlike
        the original, probabilities that round to 1 cost as much as the largest number below 1,
        instead of an infinity.
    """

    def construct(
        self,
        candidates: tuple[Box, Tensor],
        logits: tuple[Tensor, Tensor],
        wanted: tuple[Tensor, ...],
        mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        cost, iou = self.pair_costs(candidates, logits, wanted, mask)
        matched, box = cheapest(cost, dynamic_k(iou, candidates[1]), first_of_equal=True)
        return ops.stop_gradient(matched), ops.stop_gradient(box)

    def pair_costs(
        self,
        candidates: tuple[Box, Tensor],
        logits: tuple[Tensor, Tensor],
        wanted: tuple[Tensor, ...],
        mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Compute cost and overlap of all pairs, both (B, M, C); a pair that cannot match costs
        ``EXCLUDED`` or more.
        """
        boxes, valid = candidates
        objectness, classes = logits
        usable = finite(*boxes, objectness, ops.sum(classes, 1))
        # a box without area overlaps nothing
        iou = pairwise_iou(wanted[1:], filled(usable, boxes, 0.0), 1e-16)
        object_probability = of_predictions(ops.sigmoid(objectness), classes.shape[1])
        probability = ops.sqrt(ops.sigmoid(classes) * object_probability)
        yes = ops.log(ops.maximum(probability, 1e-30))
        no = ops.log(ops.maximum(1.0 - probability, _SMALLEST))  # (B, K, C)
        common = (1.0 - valid * usable) * EXCLUDED - ops.sum(no, 1)
        cost = (
            rows_of_classes(no - yes, wanted[0])
            + of_predictions(common, iou.shape[1])
            - _IOU_WEIGHT * ops.log(iou + 1e-8)
        )
        return cost + of_boxes((1.0 - mask) * EXCLUDED, iou.shape[2]), iou

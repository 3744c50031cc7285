"""SimOTA: assign predictions to boxes by cost; the overlaps decide how many predictions a box
takes.
"""

from typing import NamedTuple

from mindyolo_ext.backend import Tensor, float32, nn, ops
from mindyolo_ext.losses.assign.dynamic_k import EXCLUDED, cheapest, dynamic_k
from mindyolo_ext.losses.assign.lookup import rows_of_classes
from mindyolo_ext.losses.assign.robust import filled, finite
from mindyolo_ext.losses.iou import center_iou
from mindyolo_ext.losses.pairs import of_predictions

# Which predictions may match: those near the center of a box, or (original up to tag 0.3.0) inside
# a box or near its center.
AREAS = ("center", "box_or_center")
_RADIUS = {"center": 1.5, "box_or_center": 2.5}  # in strides of the prediction's level
_PENALTY = {
    "center": 1e6,
    "box_or_center": 1e5,
}  # added to the cost of a pair that is not preferred

Center = tuple[Tensor, Tensor, Tensor, Tensor]
Levels = tuple[tuple[Tensor, Tensor, float], ...]  # columns (w,), rows (h,), stride in pixels


class PairCosts(NamedTuple):
    """Names for the results of ``SimOTAAssigner.pair_costs``.

    Shapes: ``cost``, ``iou`` (B, M, A); ``candidate`` (B, A) float 0/1.
    """

    cost: Tensor
    iou: Tensor
    candidate: Tensor


class SimOTAAssigner(nn.Cell):
    """Match the boxes of a batch with the predictions of all levels.

    A prediction is a candidate if it lies in the area of some box of its image. Its cost for a box
    is the class loss plus three times -log IoU, and a penalty outside the box's own area. A box
    takes its cheapest candidates, as many as the sum of its ten best overlaps says, at least one. A
    prediction that several boxes take goes to the box of the image for which it is cheapest, and to
    the first of equal ones. Which of several predictions with equal cost a box takes is undefined,
    as in the original. A prediction with a non-finite box or logit is never a candidate.

    Args:
        area: ``center``: the prediction's cell center lies less than 1.5 strides from the box
            center along both axes. ``box_or_center``: inside the box or less than 2.5 strides from
            its center; predictions for which both hold are preferred. The weights of tag 0.1.1rc0
            were trained this way.

    Shape: predicted boxes cx, cy, w, h, each (B, A); logits of objectness (B, A) and classes (B, K,
        A); wanted boxes class, cx, cy, w, h, each (B, M), and mask (B, M) 0/1; per level, the
        column indices (w,), the row indices (h,) and the stride -> matched (B, A) float 0/1, index
        of its box (B, A) int. Lengths in pixels; no tensor carries a gradient.
    Raises: ValueError for an unknown area.
    Source: arXiv:2107.08430 and 2103.14259; original ``yolox/models/yolo_head.py``. Unlike the
        original, an image whose boxes have no candidate at all is allowed.
    """

    def __init__(self, area: str = "center"):
        super().__init__()
        if area not in AREAS:
            raise ValueError(f"SimOTAAssigner: area must be one of {AREAS}, got {area!r}")
        self.with_box = area == "box_or_center"
        self.radius, self.penalty = _RADIUS[area], _PENALTY[area]

    def construct(
        self,
        boxes: Center,
        logits: tuple[Tensor, Tensor],
        wanted: tuple[Tensor, ...],
        mask: Tensor,
        levels: Levels,
    ) -> tuple[Tensor, Tensor]:
        cost, iou, candidate = self.pair_costs(boxes, logits, wanted, mask, levels)
        matched, box = cheapest(cost, dynamic_k(iou, candidate), first_of_equal=False)
        return ops.stop_gradient(matched), ops.stop_gradient(box)

    def pair_costs(
        self,
        boxes: Center,
        logits: tuple[Tensor, Tensor],
        wanted: tuple[Tensor, ...],
        mask: Tensor,
        levels: Levels,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the parts of ``PairCosts`` as a tuple; a pair that cannot match costs
        ``EXCLUDED`` or more.
        """
        label, x, y, width, height = (ops.expand_dims(part, 2) for part in wanted)  # (B, M, 1)
        barrier, distance = self._barriers((x, y, width, height), ops.expand_dims(mask, 2), levels)
        usable = finite(*boxes, logits[0], ops.sum(logits[1], 1))
        candidate = ops.cast(ops.min(distance, 1)[0] < 0.5, float32) * usable  # (B, A)
        boxes = filled(candidate, boxes, 1.0)
        _, count, predictions = barrier.shape
        pairs = (
            tuple(of_predictions(part, count) for part in boxes),
            tuple(ops.tile(part, (1, 1, predictions)) for part in (x, y, width, height)),
        )
        # minimum and maximum of tiled tensors take a tenth of the time that broadcasting takes
        iou = center_iou(*pairs, eps=0.0)
        change, common = self._class_costs(logits, label)
        cost = (
            change
            + of_predictions(common + (1.0 - candidate) * EXCLUDED, count)
            - 3.0 * ops.log(iou + 1e-8)
        )
        return cost + barrier, iou, candidate

    def _barriers(self, wanted: Center, present: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
        """Compute the penalty of each pair's position, and a distance that is 0 where a box makes
        the prediction a candidate, both (B, M, A).

        "Near" and "inside" are separate conditions on column and row, so all operations of a level
        but one work on vectors.
        """
        x, y, width, height = wanted
        absent = (1.0 - present) * EXCLUDED
        barriers, distances = (), ()
        for columns, rows, stride in levels:
            offset_x = ops.abs((columns + 0.5) * stride - x)  # (B, M, w)
            offset_y = ops.abs((rows + 0.5) * stride - y)  # (B, M, h)
            far_x, far_y = (
                self._unless(offset_x < self.radius * stride),
                self._unless(offset_y < self.radius * stride),
            )
            if self.with_box:
                out_x, out_y = (
                    self._unless(offset_x < width * 0.5),
                    self._unless(offset_y < height * 0.5),
                )
                away = ops.minimum(self._crossed(far_x, far_y), self._crossed(out_x, out_y))
                distances = distances + (away + ops.tile(absent, (1, 1, away.shape[2])),)
                far_x, far_y = ops.maximum(far_x, out_x), ops.maximum(far_y, out_y)
            barriers = barriers + (self._crossed(far_x + absent, far_y + absent),)
        barrier = ops.cat(barriers, 2)
        return barrier, ops.cat(distances, 2) if self.with_box else barrier

    def _unless(self, condition: Tensor) -> Tensor:
        """Return the penalty where ``condition`` does not hold, else 0."""
        return (1.0 - ops.cast(condition, float32)) * self.penalty

    def _crossed(self, along_x: Tensor, along_y: Tensor) -> Tensor:
        """Take the larger of the column's and the row's number in every cell: (B, M, w) and (B, M,
        h) -> (B, M, h * w).
        """
        batch, count, width = along_x.shape
        height = along_y.shape[2]
        cells = ops.maximum(
            ops.tile(ops.expand_dims(along_x, 2), (1, 1, height, 1)),
            ops.tile(ops.expand_dims(along_y, 3), (1, 1, 1, width)),
        )
        return ops.reshape(cells, (batch, count, height * width))

    def _class_costs(self, logits: tuple[Tensor, Tensor], label: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the binary cross-entropy with each box's class, summed over the classes, as two
        summands (B, M, A) and (B, A).
        """
        objectness, classes = logits
        object_probability = of_predictions(ops.sigmoid(objectness), classes.shape[1])
        probability = ops.sqrt(ops.sigmoid(classes) * object_probability)
        yes = ops.maximum(ops.log(probability), -100.0)  # as PyTorch limits it
        no = ops.maximum(ops.log(1.0 - probability), -100.0)
        return rows_of_classes(no - yes, ops.squeeze(label, 2)), -ops.sum(no, 1)

"""Assign boxes to cells and anchors by IoU: in the cell of the box center, in the nine cells around
it, or in every cell of the level.

Several boxes may match the same anchor of a cell. The assigner's ``conflict`` decides which one
gets it:

``last``: the last box of the image's list, with the classes of all.
``random``: as ``last``, with the boxes in a random order that differs in every step.
``best``: the box with the largest IoU (the last of equal ones), with only its own class.
``sorted``: as in the original's filter of ``nearby_grid``. Candidates are sorted by falling IoU
    over the whole batch. A candidate for the same cell as the one right before it is dropped. The
    last remaining candidate gets the cell, with the classes of all remaining ones, so the box with
    the LOWEST IoU wins.
"""

from collections.abc import Sequence

import numpy as np

from mindyolo_ext.backend import Tensor, float32, int32, nn, ops
from mindyolo_ext.losses.assign.lookup import of_matched_box
from mindyolo_ext.losses.assign.robust import finite_targets, modulo
from mindyolo_ext.losses.pairs import of_boxes

CONFLICTS = ("last", "random", "best", "sorted")
EPS = 1e-6
PRIME = 32749  # up to this many boxes of a batch get distinct numbers
_MOST_CANDIDATES = 46340  # its square is the largest that int32 holds
_WHOLE = 2.0**30  # float32 values in 1/128..1 are multiples of its inverse


class CellAssigner(nn.Cell):
    """Match boxes with the anchors of one level by shape: ``single_grid`` and ``nearby_grid``.

    A box matches an anchor if their IoU, with both at the same center, is at least ``threshold``.
    The match is in the cell of the box center and, with ``nearby``, in the eight cells around it.
    Cells outside the grid are moved to its border. A non-finite box matches nothing.

    Args:
        anchors: (width, height) of the level's anchors in pixels.
        stride: pixels per cell.
        threshold: lowest IoU of a match.
        nearby: use nine cells instead of one.
        conflict: see the module.

    Shape: targets (B, M, 5) class, cx, cy, w, h in 0..1; mask (B, M) 0/1; order (2,) int, the
        factor and summand of a drawn order; height and width of the grid in cells; number of
        classes K -> matched (B, R) float 0/1, number of the box (B, R) int, its classes (B, K, R)
        float 0/1, all 0 where nothing matches. R = a * height * width, anchors slowest. No tensor
        carries a gradient.
    Raises: ValueError for a batch with more candidates than an exact sort supports.
    Source: ``single_grid_assignment`` and ``nearby_grid_assignment`` of the original's
        ``core/loss.py``, with a stable sort. Unlike the original, a center on the right or lower
        border has a cell.
    """

    def __init__(
        self,
        anchors: Sequence[Sequence[float]],
        stride: int,
        *,
        threshold: float,
        nearby: bool,
        conflict: str,
    ):
        super().__init__()
        self.threshold, self.conflict = threshold, conflict
        self.sizes = np.asarray(anchors, np.float32)
        self.stride = stride
        self.shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)] if nearby else [(0, 0)]
        self.shift_y = Tensor([[y for y, _ in self.shifts]], int32)  # (1, s)
        self.shift_x = Tensor([[x for _, x in self.shifts]], int32)

    def construct(
        self, targets: Tensor, mask: Tensor, order: Tensor, size: tuple[int, int], num_classes: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, boxes = mask.shape
        targets, mask = finite_targets(targets, mask)
        anchors, rows = len(self.sizes), len(self.sizes) * size[0] * size[1]
        iou = self._shape_iou(targets, size)  # (B, M, a)
        valid = ops.logical_and(iou >= self.threshold, ops.expand_dims(mask, 2) > 0.5)
        places = ops.reshape(
            self._places(targets, size), (batch * boxes * anchors, len(self.shifts))
        )
        valid = ops.reshape(ops.cast(valid, int32), (-1,))
        box = ops.reshape(ops.arange(boxes, dtype=int32), (1, boxes, 1))
        image = ops.reshape(ops.arange(batch, dtype=int32), (batch, 1, 1))
        label = ops.expand_dims(ops.cast(targets[:, :, 0], int32), 2)
        rank = drawn_order(batch, boxes, order) if self.conflict == "random" else box
        box, image, label, rank = (
            ops.reshape(
                ops.tile(part, (batch // part.shape[0], boxes // part.shape[1], anchors)), (-1,)
            )
            for part in (box, image, label, rank)
        )
        kept = ops.expand_dims(valid, 1)  # (n, 1)
        if self.conflict in ("sorted", "best"):
            by_iou = falling_order(ops.reshape(iou, (-1,)), valid)
            places, kept, box, image, label = (
                ops.gather(part, by_iou, 0) for part in (places, kept, box, image, label)
            )
            rank = ops.arange(batch * boxes * anchors, dtype=int32)
            if self.conflict == "best":
                rank = batch * boxes * anchors - 1 - rank
            else:
                kept = kept * self._unlike_the_one_before(places)
        kept = ops.broadcast_to(kept, places.shape)
        last = ops.unsorted_segment_max(
            ops.reshape(ops.expand_dims(rank * boxes + box + 1, 1) * kept, (-1,)),
            ops.reshape(places, (-1,)),
            batch * rows,
        )
        last = ops.maximum(last, 0)  # cells without a candidate hold the lowest integer
        matched = ops.cast(ops.reshape(last, (batch, rows)) > 0, float32)
        index = ops.reshape(modulo(ops.maximum(last, 1) - 1, boxes), (batch, rows))
        if self.conflict == "best":
            classes = classes_of(targets, matched, index, num_classes)
        else:
            # (image, anchor and cell) -> (image, class, anchor and cell)
            ahead = ops.expand_dims(
                (image * (num_classes - 1) + ops.clamp(label, 0, num_classes - 1)) * rows, 1
            )
            hits = ops.unsorted_segment_sum(
                ops.reshape(ops.cast(kept, float32), (-1,)),
                ops.reshape(places + ahead, (-1,)),
                batch * num_classes * rows,
            )
            classes = ops.reshape(ops.minimum(hits, 1.0), (batch, num_classes, rows))
        return ops.stop_gradient(matched), ops.stop_gradient(index), ops.stop_gradient(classes)

    def _shape_iou(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """IoU of box and anchor on one center, (B, M, a)."""
        normalized = self.sizes / np.array(
            [size[1] * self.stride, size[0] * self.stride], np.float32
        )
        ones = ops.ones((*targets.shape[:2], len(self.sizes)), float32)
        width, height = (
            ops.expand_dims(targets[:, :, 3], 2) * ones,
            ops.expand_dims(targets[:, :, 4], 2) * ones,
        )
        anchor_width = ops.reshape(Tensor(normalized[:, 0]), (1, 1, -1)) * ones
        anchor_height = ops.reshape(Tensor(normalized[:, 1]), (1, 1, -1)) * ones
        inter = ops.minimum(width, anchor_width) * ops.minimum(height, anchor_height)
        return inter / (width * height + anchor_width * anchor_height - inter + EPS)

    def _places(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """Number every candidate's cell over images, anchors and positions, (B, M, a, s) int."""
        batch, boxes = targets.shape[:2]
        x, y = (
            # clamp to one cell beyond the border, so that every value fits into an integer
            ops.expand_dims(ops.cast(ops.clamp(center * cells, -2.0, cells + 1.0), int32), 2)
            for center, cells in ((targets[:, :, 1], size[1]), (targets[:, :, 2], size[0]))
        )
        column, row = x + self.shift_x, y + self.shift_y  # (B, M, s)
        cell = ops.clamp(row, 0, size[0] - 1) * size[1] + ops.clamp(column, 0, size[1] - 1)
        maps = ops.reshape(ops.arange(batch * len(self.sizes), dtype=int32), (batch, 1, -1, 1)) * (
            size[0] * size[1]
        )
        return ops.tile(ops.expand_dims(cell, 2), (1, 1, len(self.sizes), 1)) + ops.tile(
            maps, (1, boxes, 1, len(self.shifts))
        )

    def _unlike_the_one_before(self, places: Tensor) -> Tensor:
        """Return 1 where a candidate (n, s) has another cell than the one before it, else 0."""
        flat = ops.reshape(places, (-1,))
        same = ops.cast(flat[1:] == flat[:-1], int32)
        return ops.reshape(1 - ops.cat((ops.zeros((1,), int32), same), 0), places.shape)


class AnchorBoxAssigner(nn.Cell):
    """Match boxes with the anchors in every cell of one level by overlap: ``all_grid``.

    A box matches every anchor that, centered in its cell, overlaps it with an IoU above
    ``threshold``.

    Args: as for ``CellAssigner``, but ``conflict`` must not be ``sorted``.

    Shape: as ``CellAssigner``.
    Source: ``all_grid_assignment`` of the original's ``core/loss.py``. Unlike the original, a batch
        without any match is allowed.
    """

    def __init__(
        self, anchors: Sequence[Sequence[float]], stride: int, *, threshold: float, conflict: str
    ):
        super().__init__()
        self.threshold, self.conflict, self.stride = threshold, conflict, stride
        self.sizes = np.asarray(anchors, np.float32)

    def construct(
        self, targets: Tensor, mask: Tensor, order: Tensor, size: tuple[int, int], num_classes: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        boxes = mask.shape[1]
        targets, mask = finite_targets(targets, mask)
        if self.conflict == "best":  # boxes in reverse, because the first of equal maxima is found
            largest, place = ops.max(
                self._iou(ops.flip(targets, (1,)), ops.flip(mask, (1,)), size), 1
            )
            matched = ops.cast(largest > self.threshold, float32)
            index = (boxes - 1 - ops.cast(place, int32)) * ops.cast(matched, int32)
            classes = classes_of(targets, matched, index, num_classes)
        else:
            claims = ops.cast(self._iou(targets, mask, size) > self.threshold, float32)
            rank = ops.reshape(ops.arange(boxes, dtype=int32), (1, boxes, 1))
            if self.conflict == "random":
                rank = drawn_order(mask.shape[0], boxes, order) * boxes + rank
            last = ops.max(ops.cast(claims, int32) * (rank + 1), 1)[0]
            matched = ops.cast(last > 0, float32)
            index = modulo(ops.maximum(last, 1) - 1, boxes)
            kinds = ops.reshape(ops.arange(num_classes, dtype=int32), (1, num_classes, 1))
            one_hot = ops.cast(
                ops.expand_dims(ops.cast(targets[:, :, 0], int32), 1) == kinds, float32
            )
            classes = ops.minimum(ops.matmul(one_hot, claims), 1.0)
        return ops.stop_gradient(matched), ops.stop_gradient(index), ops.stop_gradient(classes)

    def _iou(self, targets: Tensor, mask: Tensor, size: tuple[int, int]) -> Tensor:
        """IoU of every box with every anchor in every cell, 0 where ``mask`` is 0, (B, M, R)."""
        sides = [
            targets[:, :, 1] - targets[:, :, 3] / 2,
            targets[:, :, 2] - targets[:, :, 4] / 2,
            targets[:, :, 1] + targets[:, :, 3] / 2,
            targets[:, :, 2] + targets[:, :, 4] / 2,
        ]
        (left, right), (top, bottom) = (
            self._anchor_sides(size[1], 0),
            self._anchor_sides(size[0], 1),
        )
        batch, boxes, anchors = *mask.shape, len(self.sizes)
        across = self._overlap(sides[0], sides[2], left, right) * ops.reshape(
            mask, (batch, boxes, 1, 1)
        )
        down = self._overlap(sides[1], sides[3], top, bottom)
        # Matrix products of columns and rows take a third of the time of broadcasting
        inter = ops.matmul(
            ops.reshape(down, (batch * boxes * anchors, size[0], 1)),
            ops.reshape(across, (batch * boxes * anchors, 1, size[1])),
        )
        inter = ops.reshape(inter, (batch, boxes, anchors * size[0] * size[1]))
        area = (right - left)[:, None, :] * (bottom - top)[:, :, None]  # (a, H, W)
        own = of_boxes((sides[2] - sides[0]) * (sides[3] - sides[1]), inter.shape[2])
        area = ops.tile(Tensor(np.reshape(area, (1, 1, -1))), (batch, boxes, 1))
        return inter / (own + area - inter + EPS)

    def _anchor_sides(self, cells: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """First and last coordinate of the anchors in every cell along an axis, each (a, cells),
        in 0..1.
        """
        center = (np.arange(cells, dtype=np.float32) + np.float32(0.5)) / np.float32(cells)
        half = self.sizes[:, axis : axis + 1] / np.float32(cells * self.stride) / np.float32(2)
        return center - half, center + half

    def _overlap(self, low: Tensor, high: Tensor, first: np.ndarray, last: np.ndarray) -> Tensor:
        """Length of the overlap of boxes (B, M) and anchors (a, n) along an axis, (B, M, a, n)."""
        batch, boxes = low.shape
        # Minimum and maximum of tiled tensors take a tenth of the time that broadcasting takes
        low, high = (
            ops.tile(ops.reshape(side, (batch, boxes, 1, 1)), (1, 1, *first.shape))
            for side in (low, high)
        )
        first, last = (
            ops.tile(Tensor(side[None, None]), (batch, boxes, 1, 1)) for side in (first, last)
        )
        return ops.relu(ops.minimum(high, last) - ops.maximum(low, first))


def falling_order(values: Tensor, valid: Tensor) -> Tensor:
    """Return the places of the values (n,) in 0..1, sorted by falling value, equal values in their
    order, invalid ones last.

    Values are sorted as integers, which, unlike float32, are documented to sort exactly on every
    device. The integers keep all bits of values above 1/128. A second sort makes the order stable,
    because the first one is not stable on every device.

    Raises: ValueError for more than 46340 values.
    """
    number = values.shape[0]
    if number > _MOST_CANDIDATES:
        raise ValueError(
            f"simple_yolo: boxes times anchors of a batch must not exceed {_MOST_CANDIDATES}, got "
            f"{number}; lower data.max_boxes or train.per_batch_size"
        )
    whole = ops.cast(values * _WHOLE, int32)
    falling, places = ops.sort(ops.where(valid > 0, whole, -1), 0, True)
    new = ops.cast(falling[1:] != falling[:-1], float32)
    group = ops.cast(ops.cumsum(ops.cat((ops.zeros((1,), float32), new), 0), 0), int32)
    keys, _ = ops.sort(group * number + ops.cast(places, int32), 0)
    return keys - group * number


def drawn_order(batch: int, boxes: int, order: Tensor) -> Tensor:
    """Number the boxes of a batch in a drawn order, (B, M, 1) int below ``PRIME``; ``order`` (2,)
    is the factor and summand that define it.
    """
    box = ops.reshape(ops.arange(batch * boxes, dtype=int32), (batch, boxes, 1))
    return modulo(modulo(box, PRIME) * order[0] + order[1], PRIME)


def classes_of(targets: Tensor, matched: Tensor, index: Tensor, num_classes: int) -> Tensor:
    """Encode the class of each prediction's box as (B, K, R) float 0/1."""
    (label,) = of_matched_box(
        ops.cast(ops.expand_dims(targets[:, :, 0], 0), int32), index
    )  # (B, R)
    kinds = ops.reshape(ops.arange(num_classes, dtype=int32), (1, num_classes, 1))
    return ops.cast(ops.expand_dims(label, 1) == kinds, float32) * ops.expand_dims(matched, 1)

"""Loss of Yolo-FastestV2: CIoU, objectness and class terms over anchor-ratio matches."""

from collections.abc import Sequence

from mindyolo_ext.backend import Tensor, float32, int32, nn, ops
from mindyolo_ext.backend.distributed import GlobalSum
from mindyolo_ext.losses.assign.anchor_ratio import AnchorRatioAssigner
from mindyolo_ext.losses.iou import box_from_center, ciou
from mindyolo_ext.models.registry import register_trainable


class YoloFastestV2Loss(nn.Cell):
    """Trainable of a ``yolo_fastestv2`` model.

    Args: as ``yolo_fastestv2_loss``.

    Shape: images (B, 3, H, W), targets (B, M, 5) class, cx, cy, w, h in 0..1, mask (B, M) 0/1
        -> total (), terms (3,) in the order of ``term_names``, weighted, so that they sum to the
        total.
    Source: original ``utils/loss.py``. Each level's box and class terms are means over its matches,
        the objectness term is a mean over its map; nothing is multiplied by the batch size. Unlike
        the original, everything is float32 (there, the matching and the box term are float64), and
        a batch without any box is allowed.
    """

    term_names = ("box", "object", "class")

    def __init__(
        self,
        model: nn.Cell,
        *,
        box_weight: float,
        object_weight: float,
        class_weight: float,
        balance: Sequence[float],
        ratio_threshold: float,
    ):
        super().__init__(auto_prefix=False)  # keeps the model's parameter names
        self.model = model
        self.box_weight, self.object_weight, self.class_weight = (
            box_weight,
            object_weight,
            class_weight,
        )
        self.balance = tuple(float(share) for share in balance)
        self.num_classes = model.num_classes
        levels = len(model.strides)
        self.anchors_per_level = len(model.anchors) // levels
        per_level = [
            model.anchors[i * self.anchors_per_level : (i + 1) * self.anchors_per_level]
            for i in range(levels)
        ]
        self.assigners = nn.CellList(
            [
                AnchorRatioAssigner(anchors, stride, ratio_threshold)
                for anchors, stride in zip(per_level, model.strides)
            ]
        )
        self.anchor_width = Tensor(
            [
                [[[anchor[0] / stride] for anchor in anchors]]
                # (L, 1, a, 1)
                for anchors, stride in zip(per_level, model.strides)
            ],
            float32,
        )
        self.anchor_height = Tensor(
            [
                [[[anchor[1] / stride] for anchor in anchors]]
                for anchors, stride in zip(per_level, model.strides)
            ],
            float32,
        )
        self.coordinates = Tensor([[[[0]]], [[[1]]], [[[2]]], [[[3]]]], int32)  # (4, 1, 1, 1)
        # (a, 1)
        self.anchor_numbers = Tensor([[number] for number in range(self.anchors_per_level)], int32)
        self.global_sum = GlobalSum()

    def construct(self, images: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss(self.model(images), targets, mask)

    def loss(self, heads: Sequence[Tensor], targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Compute total and terms from the six raw heads."""
        found = (self.assign(heads, targets, mask, 0), self.assign(heads, targets, mask, 1))
        matched = ops.stack((found[0][0], found[1][0]), 0)  # (L, 5, a, T)
        batch = ops.full((1,), float(mask.shape[0]), dtype=float32)
        counts = self.global_sum(ops.cat((ops.sum(matched, (1, 2, 3)), batch), 0))
        matches = ops.maximum(counts[:2], 1.0)  # (L,)
        box = ops.sum(self._box_sums(heads, found, matched) / matches) * self.box_weight
        objectness = self._object_term(heads, found) / counts[2] * self.object_weight
        if self.num_classes > 1:
            classes = ops.sum(self._class_sums(heads, found) / matches) * (
                self.class_weight / self.num_classes
            )
        else:
            classes = ops.zeros_like(box)
        return box + objectness + classes, ops.stack((box, objectness, classes), 0)

    def assign(
        self, heads: Sequence[Tensor], targets: Tensor, mask: Tensor, level: int
    ) -> tuple[Tensor, ...]:
        """Compute the matches of one level (0 is stride 16), the parts of
        ``assign.anchor_ratio.Assignment``.
        """
        return self.assigners[level](
            targets, mask, heads[3 * level].shape[2], heads[3 * level].shape[3]
        )

    def matches(self, images: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Return which prediction is trained on which box, (B, M, A) 0/1, with A in the order of
        the model's ``predict``.

        The matching depends only on boxes and anchors, not on predictions.
        """
        return ops.cat(
            (
                self._level_matches(images, targets, mask, 0),
                self._level_matches(images, targets, mask, 1),
            ),
            2,
        )

    def _level_matches(self, images: Tensor, targets: Tensor, mask: Tensor, level: int) -> Tensor:
        """Compute ``matches`` of one level, (B, M, h * w * a), cells row by row, anchors
        fastest.
        """
        stride = self.model.strides[level]
        height, width = images.shape[2] // stride, images.shape[3] // stride
        found = self.assigners[level](targets, mask, height, width)
        batch, boxes = mask.shape
        predictions = height * width * self.anchors_per_level
        rows = ops.reshape(ops.cast(ops.arange(batch * boxes), int32), (1, 1, -1)) * predictions
        cells = ops.expand_dims(found[4] * width + found[3], 1)  # (5, 1, T)
        # (5, a, T)
        index = rows + cells * self.anchors_per_level + ops.expand_dims(self.anchor_numbers, 0)
        hits = ops.unsorted_segment_sum(
            ops.reshape(found[0], (-1,)), ops.reshape(index, (-1,)), batch * boxes * predictions
        )
        return ops.stop_gradient(ops.reshape(ops.minimum(hits, 1.0), (batch, boxes, predictions)))

    def _positions(self, found: Sequence[Tensor], width: int) -> tuple[Tensor, Tensor]:
        """Return the map (image and anchor) of the candidates (a, T) and the cell in it (5, T),
        both counted from 0.
        """
        maps = ops.expand_dims(found[1], 0) * self.anchors_per_level + self.anchor_numbers
        return maps, found[4] * width + found[3]

    def _box_logits(self, reg: Tensor, found: Sequence[Tensor]) -> Tensor:
        """Return the logits x, y, w, h of the candidates of one level, (4, 5, a, T); 0 where there
        is no match.
        """
        _, _, height, width = reg.shape
        maps, cells = self._positions(found, width)
        first = ops.expand_dims(maps, 0) * (4 * height * width) + ops.expand_dims(cells, 1)
        index = ops.expand_dims(first, 0) + self.coordinates * (height * width)
        return ops.gather(ops.reshape(reg, (-1,)), index, 0) * ops.expand_dims(found[0], 0)

    def _box_sums(
        self, heads: Sequence[Tensor], found: Sequence[Sequence[Tensor]], matched: Tensor
    ) -> Tensor:
        """Sum 1 - CIoU over the matches of each level, (L,)."""
        logits = ops.stack(
            (self._box_logits(heads[0], found[0]), self._box_logits(heads[3], found[1])), 1
        )
        x, y, width, height = ops.unbind(2.0 * ops.sigmoid(logits), 0)  # (L, 5, a, T)
        predicted = box_from_center(
            x - 0.5,
            y - 0.5,
            width * width * self.anchor_width,
            height * height * self.anchor_height,
        )
        x = ops.expand_dims(ops.stack((found[0][5], found[1][5]), 0), 2)  # (L, 5, 1, T)
        y = ops.expand_dims(ops.stack((found[0][6], found[1][6]), 0), 2)
        sizes = ops.stack((found[0][7], found[1][7], found[0][8], found[1][8]), 0)
        width, height = ops.split(ops.reshape(sizes, (4, 1, 1, -1)), 2, 0)  # (L, 1, 1, T)
        unmatched = 1.0 - matched  # sides of 1 there, so that their ratio is finite
        wanted = box_from_center(x, y, width * matched + unmatched, height * matched + unmatched)
        return ops.sum((1.0 - ciou(predicted, wanted)) * matched, (1, 2, 3))

    def _object_term(self, heads: Sequence[Tensor], found: Sequence[Sequence[Tensor]]) -> Tensor:
        """Sum the mean cross-entropy per image over the levels, weighted by ``balance``, times the
        batch size, ().
        """
        return (
            self._object_sum(heads[1], found[0]) * self.balance[0]
            + self._object_sum(heads[4], found[1]) * self.balance[1]
        )

    def _object_sum(self, obj: Tensor, found: Sequence[Tensor]) -> Tensor:
        """Compute the binary cross-entropy of one level, summed over the images and averaged over
        an image's map, ().
        """
        _, anchors, height, width = obj.shape
        logits = ops.reshape(obj, (-1,))
        maps, cells = self._positions(found, width)
        index = ops.expand_dims(maps, 0) * (height * width) + ops.expand_dims(cells, 1)  # (5, a, T)
        hits = ops.unsorted_segment_sum(
            ops.reshape(found[0], (-1,)), ops.reshape(index, (-1,)), logits.shape[0]
        )
        wanted = ops.stop_gradient(ops.minimum(hits, 1.0))
        return ops.sum(ops.softplus(logits) - logits * wanted) / (anchors * height * width)

    def _class_sums(self, heads: Sequence[Tensor], found: Sequence[Sequence[Tensor]]) -> Tensor:
        """Sum the softmax cross-entropy over the matches of each level, (L,)."""
        return ops.stack(
            (self._class_sum(heads[2], found[0]), self._class_sum(heads[5], found[1])), 0
        )

    def _class_sum(self, cls: Tensor, found: Sequence[Tensor]) -> Tensor:
        """Sum the softmax cross-entropy of the candidates' cells with their labels over one level,
        ().
        """
        batch, classes, height, width = cls.shape
        rows = ops.transpose(ops.reshape(cls, (batch, classes, height * width)), (0, 2, 1))
        # along axis 1, the gradient is 6 times slower
        log_probabilities = ops.reshape(ops.log_softmax(rows, -1), (-1,))
        _, cells = self._positions(found, width)
        index = (ops.expand_dims(found[1], 0) * (height * width) + cells) * classes + found[2]
        matches = ops.sum(found[0], 1)  # (5, T)
        return -ops.sum(ops.gather(log_probabilities, index, 0) * matches)


@register_trainable
def yolo_fastestv2_loss(
    model: nn.Cell,
    *,
    box_weight: float = 3.2,
    object_weight: float = 64.0,
    class_weight: float = 32.0,
    balance: Sequence[float] = (1.0, 0.4),
    ratio_threshold: float = 2.0,
) -> YoloFastestV2Loss:
    """Build the trainable of Yolo-FastestV2 with the original's loss weights.

    Args:
        model: a model of the family ``yolo_fastestv2`` in training form.
        box_weight, object_weight, class_weight: factors of the three terms.
        balance: factor of each level's objectness, stride 16 first.
        ratio_threshold: a box and an anchor do not match if their sides differ by this factor or
            more.

    Raises: ValueError for a model of another family, other than two balances, or a threshold that
        matches nothing.
    """
    if model.family != "yolo_fastestv2":
        raise ValueError(
            f"yolo_fastestv2_loss: wanted a yolo_fastestv2 model, got family {model.family!r}"
        )
    if len(balance) != len(model.strides):
        raise ValueError(
            f"yolo_fastestv2_loss: balance needs {len(model.strides)} factors, got {balance}"
        )
    if not ratio_threshold > 1:
        raise ValueError(
            f"yolo_fastestv2_loss: ratio_threshold must be above 1, got {ratio_threshold}"
        )
    return YoloFastestV2Loss(
        model,
        box_weight=box_weight,
        object_weight=object_weight,
        class_weight=class_weight,
        balance=balance,
        ratio_threshold=ratio_threshold,
    )

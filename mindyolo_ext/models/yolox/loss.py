"""Loss of YOLOX: IoU, objectness and class terms over SimOTA matches, L1 in the last epochs."""

from mindyolo_ext.backend import Tensor, float32, nn, ops
from mindyolo_ext.backend.distributed import GlobalSum
from mindyolo_ext.losses.assign.lookup import match_matrix, of_matched_box, value_of_class
from mindyolo_ext.losses.assign.simota import SimOTAAssigner
from mindyolo_ext.losses.iou import center_iou
from mindyolo_ext.models.registry import register_trainable


class YOLOXLoss(nn.Cell):
    """Trainable of a ``yolox`` model.

    Args: as ``yolox_loss``.

    Shape: images (B, 3, H, W), targets (B, M, 5) class, cx, cy, w, h in 0..1, mask (B, M) 0/1
        -> total (), terms (4,) in the order of ``term_names``, weighted, so that they sum to the
        total.
    Source: original ``yolox/models/yolo_head.py`` and ``losses.py``. All terms are sums over the
        matched predictions (objectness: over all) divided by the number of matched predictions of
        the batch. Unlike the original, that number counts the batches of all ranks.
    """

    term_names = ("iou", "object", "class", "l1")

    def __init__(self, model: nn.Cell, *, box_weight: float, l1: bool, area: str):
        super().__init__(auto_prefix=False)  # keeps the model's parameter names
        self.model = model
        self.box_weight = box_weight
        self.l1 = l1
        self.assigner = SimOTAAssigner(area)
        self.global_sum = GlobalSum()

    def construct(self, images: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss(self.model(images), targets, mask)

    def loss(
        self, heads: tuple[Tensor, ...], targets: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute total and terms from the nine raw heads."""
        reg, objectness, classes = self.model.flat(heads)
        matched, index = self.assign(heads, targets, mask)
        label, x, y, width, height = self._matched_targets(heads, targets, index)
        column, row, stride = grid = self.model.grid(heads)
        hit = ops.expand_dims(matched, 1)
        # Zero logits where nothing matches: a box that overflows there must not yield 0 * inf = NaN
        reg = ops.where(hit > 0.5, reg, ops.zeros_like(reg))
        iou = center_iou(self.model.boxes_of(reg, grid), (x, y, width, height))
        count = ops.maximum(self.global_sum(ops.sum(matched)), 1.0)
        box_term = ops.sum((1.0 - iou * iou) * matched) * self.box_weight
        object_term = ops.sum(ops.softplus(objectness) - objectness * matched)
        at_label = value_of_class(classes, label)
        class_term = ops.sum(
            (ops.sum(ops.softplus(classes), 1) - at_label * ops.stop_gradient(iou)) * matched
        )
        l1_term = ops.zeros_like(object_term)
        if self.l1:
            wanted = (
                x / stride - column,
                y / stride - row,
                ops.log(width / stride + 1e-8),
                ops.log(height / stride + 1e-8),
            )
            l1_term = ops.sum(ops.abs(reg - ops.stack(wanted, 1)) * hit)
        terms = ops.stack((box_term, object_term, class_term, l1_term), 0) / count
        return ops.sum(terms), terms

    def assign(
        self, heads: tuple[Tensor, ...], targets: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return matched (B, A) float 0/1 and the matched box index (B, A) int, see
        ``SimOTAAssigner``.
        """
        return self.assigner(*self.assigner_input(heads, targets, mask))

    def assigner_input(self, heads: tuple[Tensor, ...], targets: Tensor, mask: Tensor) -> tuple:
        """Compute the arguments of the assigner, predictions without gradient."""
        reg, objectness, classes = (ops.stop_gradient(part) for part in self.model.flat(heads))
        return (
            self.model.boxes_of(reg, self.model.grid(heads)),
            (objectness, classes),
            ops.unbind(self._in_pixels(heads, targets), 2),
            mask,
            self.model.levels(heads),
        )

    def matches(self, images: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Return which prediction is matched with which box, (B, M, A) float 0/1, without
        gradient.
        """
        matched, index = self.assign(self.model(images), targets, mask)
        return match_matrix(matched, index, mask.shape[1])

    def _in_pixels(self, heads: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Convert the boxes of targets (B, M, 5) to pixels of the input."""
        height, width = (float(side * self.model.strides[0]) for side in heads[0].shape[2:])
        return targets * Tensor([1.0, width, height, width, height], float32)

    def _matched_targets(
        self, heads: tuple[Tensor, ...], targets: Tensor, index: Tensor
    ) -> tuple[Tensor, ...]:
        """Return class, cx, cy, w, h of the box of every prediction, in pixels, each (B, A)."""
        return of_matched_box(ops.transpose(self._in_pixels(heads, targets), (2, 0, 1)), index)


@register_trainable
def yolox_loss(
    model: nn.Cell, *, box_weight: float = 5.0, l1: bool = False, area: str = "center"
) -> YOLOXLoss:
    """Build the trainable of YOLOX with the original's loss weights.

    Args:
        model: a model of the family ``yolox`` in training form.
        box_weight: factor of the IoU term; the others have factor 1.
        l1: add the L1 distance of the box logits, as in the last epochs of the recipe.
        area: which predictions may match, ``center`` or ``box_or_center``, see
            ``losses.assign.simota``.

    Raises: ValueError for a model of another family or an unknown area.
    """
    if model.family != "yolox":
        raise ValueError(f"yolox_loss: wanted a yolox model, got family {model.family!r}")
    return YOLOXLoss(model, box_weight=box_weight, l1=l1, area=area)

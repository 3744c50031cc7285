"""Loss of the simple YOLO: box, objectness and class terms over one of three label assignments."""

from collections.abc import Sequence

import numpy as np

from mindyolo_ext.backend import Parameter, Tensor, float32, nn, ops
from mindyolo_ext.backend.distributed import GlobalSum
from mindyolo_ext.backend.selection import at_matches, to_matches
from mindyolo_ext.contracts import StepClock
from mindyolo_ext.losses.assign.grid import CONFLICTS, PRIME, AnchorBoxAssigner, CellAssigner
from mindyolo_ext.losses.assign.lookup import match_matrix, of_matched_box
from mindyolo_ext.losses.iou import Box, box_from_center, diou, giou, iou
from mindyolo_ext.losses.terms import focal_cross_entropy
from mindyolo_ext.models.registry import register_trainable

BOX_LOSSES = ("iou", "giou", "diou", "ciou", "siou")
# as in the original's filter
FILTERS = {"single_grid": "last", "nearby_grid": "sorted", "all_grid": "best"}
EPS = 1e-6


class SimpleYOLOLoss(nn.Cell):
    """Trainable of a ``simple_yolo`` model.

    Args: as for ``simple_yolo_loss``; ``conflict`` as in ``losses.assign.grid``.

    Shape: images (B, 3, H, W), targets (B, M, 5) class, cx, cy, w, h in 0..1, mask (B, M) 0/1
        -> total (), terms (3,) in the order of ``term_names``, weighted, so that they sum to the
        total.
    Source: original ``core/loss.py``. Per level the box and class terms are means over the matches,
        the objectness term is a mean over the level. Unlike the original, a level without matches
        counts 0, where the original's loss is NaN, and matches are counted over all ranks.
    """

    term_names = ("box", "object", "class")

    def __init__(
        self,
        model: nn.Cell,
        *,
        threshold: float,
        conflict: str,
        weights: tuple[float, float, float],
        level_weights: Sequence[float],
        box_loss: str,
        focal_gamma: float,
        confidence_target: str,
    ):
        super().__init__(auto_prefix=False)  # keeps the model's parameter names
        self.model = model
        self.box_weight, self.object_weight, self.noobj_weight = weights
        self.level_weights = Tensor(np.asarray(level_weights, np.float32))
        self.box_loss, self.gamma, self.confidence_target = box_loss, focal_gamma, confidence_target
        self.num_classes = model.num_classes
        self.drawn = conflict == "random"
        self.order = Parameter(
            Tensor(np.array([1, 0], np.int32)), name="trainable.tie_order", requires_grad=False
        )
        per_level = np.split(np.asarray(model.anchors, np.float32), len(model.strides))
        if model.assignment == "all_grid":
            assigners = [
                AnchorBoxAssigner(anchors, stride, threshold=threshold, conflict=conflict)
                for anchors, stride in zip(per_level, model.strides)
            ]
        else:
            assigners = [
                CellAssigner(
                    anchors,
                    stride,
                    threshold=threshold,
                    conflict=conflict,
                    nearby=model.assignment == "nearby_grid",
                )
                for anchors, stride in zip(per_level, model.strides)
            ]
        self.assigners = nn.CellList(assigners)
        self.global_sum = GlobalSum()

    def begin_step(self, clock: StepClock) -> None:
        """Draw the order in which boxes claim a cell that several of them match."""
        if self.drawn:
            random = np.random.default_rng((clock.seed, clock.iteration, clock.rank))
            self.order.set_data(Tensor(random.integers((1, 0), PRIME).astype(np.int32)))

    def construct(self, images: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss(self.model(images), targets, mask)

    def loss(
        self, heads: tuple[Tensor, ...], targets: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute total and terms from the raw heads."""
        levels = self.level_terms(heads, targets, mask)  # (3, L)
        weights = Tensor([[self.box_weight], [self.object_weight], [1.0]], float32)
        terms = ops.sum(levels * weights * self.level_weights, 1)
        return ops.sum(terms), terms

    def level_terms(self, heads: tuple[Tensor, ...], targets: Tensor, mask: Tensor) -> Tensor:
        """Compute this rank's share of box, objectness and class term of every level, unweighted,
        (3, L).
        """
        size = (
            heads[0].shape[2] * self.model.strides[0],
            heads[0].shape[3] * self.model.strides[0],
        )
        objectness, sides, class_logits = ops.split(  # (B, 1, A), (B, 4, A) and (B, K, A)
            self.model.flat(heads), (1, 4, self.num_classes), 1
        )
        matched, index, classes = self.assign(size, targets, mask)
        counts = [
            logits.shape[2] * logits.shape[3] * self.model.anchors_per_level for logits in heads
        ]
        matches = ops.stack(self._sums(matched, counts), 0)
        batch = ops.full((1,), float(mask.shape[0]), dtype=float32)
        found = self.global_sum(ops.cat((matches, batch), 0))
        matches, images = ops.maximum(found[:3], 1.0), found[3:]

        overlap = self._overlap(sides, size, targets, matched, index)
        box = ops.stack(self._sums((1.0 - overlap) * matched, counts), 0) / matches
        target = matched
        if self.confidence_target == "iou":
            target = ops.stop_gradient(ops.clamp(overlap, 0.0, 1.0)) * matched
        entropy = focal_cross_entropy(ops.squeeze(objectness, 1), target, self.gamma)
        if self.noobj_weight > 0.0:
            entropy = entropy * (1.0 + (1.0 - target) * (self.noobj_weight / self.object_weight))
        confidence = ops.stack(self._sums(entropy, counts), 0) / (images * Tensor(counts, float32))
        if self.num_classes > 1:
            class_logits, wanted = at_matches(matched, class_logits, classes)
            entropy = ops.sum(focal_cross_entropy(class_logits, wanted, self.gamma), 1)
            kinds = ops.stack(self._sums(to_matches(matched, entropy), counts), 0) / (
                matches * self.num_classes
            )
        else:
            kinds = ops.zeros_like(confidence)
        return ops.stack((box, confidence, kinds), 0)

    def assign(
        self, size: tuple[int, int], targets: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Assign boxes for an input of ``size`` (height, width): matched (B, A) float 0/1, box
        index (B, A) int and its classes (B, K, A) float 0/1, with A in the order of the model's
        ``predict``.
        """
        found = ()
        for level, assigner in enumerate(self.assigners):
            stride = self.model.strides[level]
            found = found + (
                assigner(
                    targets,
                    mask,
                    self.order,
                    (size[0] // stride, size[1] // stride),
                    self.num_classes,
                ),
            )
        return tuple(ops.cat((found[0][i], found[1][i], found[2][i]), -1) for i in (0, 1, 2))

    def matches(self, images: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Return which prediction is trained on which box, (B, M, A) 0/1; it depends only on boxes
        and anchors.
        """
        matched, index, _ = self.assign(images.shape[2:], targets, mask)
        return match_matrix(matched, index, mask.shape[1])

    def _overlap(
        self, logits: Tensor, size: tuple[int, int], targets: Tensor, matched: Tensor, index: Tensor
    ) -> Tensor:
        """Compute the measure of ``box_loss`` between predictions and their boxes in coordinates of
        0..1, (B, A); undefined where nothing matches.
        """
        x, y, width, height = self.model.boxes_of(logits, size)
        wanted = of_matched_box(ops.transpose(targets, (2, 0, 1))[1:], index)
        # Where nothing matches, both are the same box: a box that overflows there must not yield 0
        # * inf = NaN
        hit, free = matched > 0.5, 1.0 - matched
        wanted = tuple(value * matched + free * 0.5 for value in wanted)
        predicted = tuple(
            ops.where(hit, value / length, other)
            for value, length, other in zip(
                (x, y, width, height), (size[1], size[0], size[1], size[0]), wanted
            )
        )
        return overlap(self.box_loss, box_from_center(*predicted), box_from_center(*wanted))

    def _sums(self, values: Tensor, counts: Sequence[int]) -> tuple[Tensor, ...]:
        """Sum values (B, A) over the rows of each level, L tensors ()."""
        return tuple(ops.sum(part) for part in ops.split(values, counts, 1))


def overlap(kind: str, first: Box, second: Box) -> Tensor:
    """Compute the measure whose distance from 1 is the box loss, with the original's constants.

    ``ciou`` and ``siou`` lower DIoU and IoU by the squared difference of the angles whose tangents
    are width over height, divided by (2 pi)^2. Neither is the published measure.
    """
    if kind == "giou":
        return giou(first, second, EPS)
    value = iou(first, second, EPS) if kind in ("iou", "siou") else diou(first, second, EPS)
    if kind in ("iou", "diou"):
        return value
    angle = _angle(first) - _angle(second)
    return value - angle * angle * float(1.0 / (4.0 * np.pi**2))


def _angle(box: Box) -> Tensor:
    """Return the angle whose tangent is width over height; sides count as at least EPS."""
    return ops.atan(ops.maximum(box[2] - box[0], EPS) / ops.maximum(box[3] - box[1], EPS))


@register_trainable
def simple_yolo_loss(
    model: nn.Cell,
    *,
    match_iou_thres: float = 0.0625,
    filter_by_max_iou: bool = True,
    filter_rule: str = "original",
    tie_rule: str = "last",
    box_weight: float = 0.1,
    object_weight: float = 1.0,
    noobj_weight: float = 0.0,
    level_weights: Sequence[float] = (1.0, 1.0, 1.0),
    box_loss: str = "ciou",
    focal_gamma: float = 3.5,
    confidence_target: str = "iou",
) -> SimpleYOLOLoss:
    """Build the trainable of the simple YOLO with the values of the original's recipe. The model
    defines the assignment.

    Args:
        model: a model of the family ``simple_yolo`` in training form.
        match_iou_thres: lowest IoU at which box and anchor match; with ``all_grid`` they match
            above it.
        filter_by_max_iou: whether the IoU decides which of several boxes gets an anchor of a cell.
        filter_rule: how it decides. ``original``: as in the original's code, see
            ``losses.assign.grid``: with ``nearby_grid`` the box of the lowest IoU keeps the cell,
            with ``single_grid`` the last one. ``best``: as in the original's description, the box
            of the highest IoU, with its class alone.
        tie_rule: without the filter, the ``last`` box of the list, or a ``random`` one, drawn in
            every step from the seed.
        box_weight, object_weight: factors of the box and objectness terms; the class term has
            factor 1.
        noobj_weight: additional weight of objectness in empty places, times 1 - target.
        level_weights: factors of strides 8, 16 and 32.
        box_loss: ``iou``, ``giou``, ``diou``, ``ciou`` or ``siou``, see ``overlap``.
        focal_gamma: exponent of the focal loss, 0 for plain cross-entropy.
        confidence_target: ``iou``, the measure of ``box_loss``, or ``constant`` 1 for all matches.

    Raises: ValueError for a model of another family or values outside these rules.
    """
    if model.family != "simple_yolo":
        raise ValueError(
            f"simple_yolo_loss: wanted a simple_yolo model, got family {model.family!r}"
        )
    for name, value, allowed in (
        ("filter_rule", filter_rule, ("original", "best")),
        ("tie_rule", tie_rule, CONFLICTS[:2]),
        ("box_loss", box_loss, BOX_LOSSES),
        ("confidence_target", confidence_target, ("iou", "constant")),
    ):
        if value not in allowed:
            raise ValueError(f"simple_yolo_loss: {name} must be one of {allowed}, got {value!r}")
    if len(level_weights) != len(model.strides):
        raise ValueError(
            f"simple_yolo_loss: level_weights needs {len(model.strides)} factors, got "
            f"{level_weights}"
        )
    if noobj_weight < 0 or focal_gamma < 0 or not 0 <= match_iou_thres < 1 or object_weight <= 0:
        raise ValueError(
            "simple_yolo_loss: wanted noobj_weight and focal_gamma of at least 0, object_weight "
            f"above 0 and match_iou_thres in 0..1, got {noobj_weight}, {focal_gamma}, "
            f"{object_weight} and {match_iou_thres}"
        )
    conflict = tie_rule
    if filter_by_max_iou:
        conflict = "best" if filter_rule == "best" else FILTERS[model.assignment]
    return SimpleYOLOLoss(
        model,
        threshold=match_iou_thres,
        conflict=conflict,
        weights=(box_weight, object_weight, noobj_weight),
        level_weights=level_weights,
        box_loss=box_loss,
        focal_gamma=focal_gamma,
        confidence_target=confidence_target,
    )

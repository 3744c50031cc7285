"""Losses of Gold-YOLO: base training with or without the auxiliary anchor branch, and
self-distillation.
"""

import math

import numpy as np

from mindyolo_ext.backend import Parameter, Tensor, float32, nn, ops
from mindyolo_ext.backend.distributed import GlobalSum
from mindyolo_ext.backend.launch import world
from mindyolo_ext.contracts import StepClock
from mindyolo_ext.layers.distances import DistanceBins
from mindyolo_ext.losses.assign.atss import ATSSAssigner
from mindyolo_ext.losses.assign.chunks import MOST_PAIRS, chunks
from mindyolo_ext.losses.assign.lookup import match_matrix, of_matched_box
from mindyolo_ext.losses.assign.task_aligned import TaskAlignedAssigner
from mindyolo_ext.losses.iou import Box, ciou, diou, giou, siou
from mindyolo_ext.losses.terms import divergence, feature_divergence, varifocal
from mindyolo_ext.models.registry import register_trainable

IOUS = {"giou": giou, "siou": siou, "ciou": ciou, "diou": diou}
ASSIGNERS = ("tal", "atss")
NORMALISERS = ("global", "rank")
LARGEST_BATCH = 512  # images per rank for which drop-path factors are stored
TEACHER_PREFIX = "teacher."  # prefix of the names of a teacher's parameters
ANCHOR_FREE_TOPK, ANCHOR_TOPK = 13, 26
IOU_EPS = 1e-10
LAST_WEIGHT = 0.01  # weight of the distillation after the last epoch

# point x, y in cells, stride, predictions per level
Grid = tuple[Tensor, Tensor, Tensor, tuple[int, ...]]
Wanted = tuple[Tensor, ...]  # class, x1, y1, x2, y2 in pixels, each (B, M)


class BranchSums(nn.Cell):
    """Assign the predictions of one branch, and compute its class and IoU terms without weights and
    normalizer.

    Args:
        assigner: ``tal`` or ``atss``.
        topk: predictions per box of ``tal``.
        iou: key of ``IOUS``.

    Shape: probabilities (B, K, A); distances (B, 4, A) of left, top, right and bottom side from the
        point, in cells; ``Grid``; ``Wanted``; mask (B, M) -> sums of the class and the IoU term ();
        matched (B, A); score (B, A); target distances (B, 4, A), 1 where nothing matches.
    """

    def __init__(self, assigner: str, topk: int, iou: str):
        super().__init__()
        self.atss = assigner == "atss"
        self.assigner = ATSSAssigner() if self.atss else TaskAlignedAssigner(topk)
        self.overlap = IOUS[iou]
        self.most_pairs = MOST_PAIRS

    def construct(
        self, classes: Tensor, distances: Tensor, grid: Grid, wanted: Wanted, mask: Tensor
    ) -> tuple[Tensor, ...]:
        matched, index, score = self.assign(classes, distances, grid, wanted, mask)
        label, target = self._matched_targets(grid, wanted, index)
        target = ops.where(ops.expand_dims(matched, 1) > 0.5, target, ops.ones_like(target))
        return (
            varifocal(classes, label, matched, score),
            self.iou_sum(distances, target, matched, score),
            matched,
            score,
            target,
        )

    def assign(
        self, classes: Tensor, distances: Tensor, grid: Grid, wanted: Wanted, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """matched (B, A) 0/1, number of the box (B, A) int and target score (B, A), without
        gradient; a few images at a time.
        """
        distances, classes = ops.stop_gradient(distances), ops.stop_gradient(classes)
        boxes, found = ops.stack(wanted, 1), ()
        for begin, end in chunks(*mask.shape, distances.shape[2], self.most_pairs):
            parts = (distances[begin:end], classes[begin:end], boxes[begin:end], mask[begin:end])
            if begin > 0:  # wait until the previous chunk has released its memory
                parts = ops.depend(parts, found[-1])
            found = found + (self._assign_chunk(parts, grid),)
        if len(found) == 1:
            return found[0]
        return tuple(ops.cat([chunk[part] for chunk in found], 0) for part in range(3))

    def _assign_chunk(self, parts: tuple[Tensor, ...], grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """``assign`` for distances, probabilities, ``wanted`` (B, 5, M) and mask of some images."""
        distances, classes, boxes, mask = parts
        x, y, stride, sizes = grid
        left, top, right, bottom = ops.unbind(distances, 1)
        predicted = (
            (x - left) * stride,
            (y - top) * stride,
            (x + right) * stride,
            (y + bottom) * stride,
        )
        points, wanted = (x * stride, y * stride), ops.unbind(boxes, 1)
        if self.atss:
            return self.assigner(predicted, points, (stride, sizes), wanted, mask)
        return self.assigner(classes, predicted, points, wanted, mask)

    def iou_sum(self, distances: Tensor, target: Tensor, matched: Tensor, score: Tensor) -> Tensor:
        """Sum 1 - IoU over the matches, times their scores; boxes are relative to their points, in
        cells.
        """
        # Unit boxes where nothing matches: a degenerate box there must not yield 0 * inf = NaN
        distances = ops.where(
            ops.expand_dims(matched, 1) > 0.5, distances, ops.ones_like(distances)
        )
        return ops.sum(
            (1.0 - self.overlap(_around_zero(distances), _around_zero(target), IOU_EPS)) * score
        )

    def _matched_targets(self, grid: Grid, wanted: Wanted, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return class (B, A) and distances in cells (B, 4, A) of the box of every prediction."""
        x, y, stride, _ = grid
        label, x1, y1, x2, y2 = of_matched_box(ops.stack(wanted, 0), index)
        return label, ops.stack(
            (x - x1 / stride, y - y1 / stride, x2 / stride - x, y2 / stride - y), 1
        )


def _around_zero(distances: Tensor) -> Box:
    """Compute the corners of boxes around the origin from the distances (B, 4, A) of their
    sides.
    """
    left, top, right, bottom = ops.unbind(distances, 1)
    return -left, -top, right, bottom


class GoldYOLOLoss(nn.Cell):
    """Trainable of a ``gold_yolo`` model of the form ``plain`` or ``fuse_ab``.

    Args: as ``gold_yolo_loss``.

    Shape: images (B, 3, H, W), targets (B, M, 5) class, cx, cy, w, h in 0..1, mask (B, M) 0/1
        -> total (), terms (T,) in the order of ``term_names``, weighted, so that they sum to the
        total.
    Source: original ``yolov6/models/losses/loss.py`` and ``loss_fuseab.py``. The terms of a branch
        are divided by the sum S of its target scores, unless S is 0.
    """

    def __init__(
        self,
        model: nn.Cell,
        *,
        assigner: str,
        iou: str,
        weights: tuple[float, float, float],
        normaliser: str,
        drop_path: bool,
    ):
        super().__init__(auto_prefix=False)  # keeps the model's parameter names
        self.model = model
        self.iou_weight, self.dfl_weight, self.class_weight = (float(weight) for weight in weights)
        self.branch = BranchSums(assigner, ANCHOR_FREE_TOPK, iou)
        self.with_anchors = model.form == "fuse_ab"
        self.anchor_branch = BranchSums("tal", ANCHOR_TOPK, iou) if self.with_anchors else None
        self.term_names = ("iou", "dfl", "class") + (
            ("iou_ab", "class_ab") if self.with_anchors else ()
        )
        self.bins = Tensor(np.arange(model.reg_max + 1, dtype=np.float32).reshape((1, 1, -1, 1)))
        self.expected = DistanceBins(model.reg_max)
        self.longest = model.reg_max - 0.01  # longest distance that the bins can represent
        self.global_sum = GlobalSum()
        self.parts = float(world().size) if normaliser == "rank" else 1.0
        rates = model.drop_rates if drop_path else ()
        self.drop_rates = np.array(rates, np.float32).reshape((-1, 1))
        self.with_drop_path = len(rates) > 0
        if self.with_drop_path:
            self.drop_factors = _state(
                "trainable.drop_path", np.ones((len(rates), LARGEST_BATCH), np.float32)
            )

    def construct(self, images: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss(self.heads_of(images), targets, mask)

    def begin_step(self, clock: StepClock) -> None:
        """Draw the drop-path factors of a step: 0, or 1 / (1 - rate) for residuals that are
        kept.
        """
        if self.with_drop_path:
            random = np.random.default_rng((clock.seed, clock.iteration, clock.rank))
            drawn = random.random((len(self.drop_rates), LARGEST_BATCH), dtype=np.float32)
            kept = (drawn >= self.drop_rates).astype(np.float32)
            self.drop_factors.set_data(Tensor(kept / (1.0 - self.drop_rates)))

    def drop_path_factors(self, images: Tensor) -> Tensor | None:
        """Return the factors of the residuals, (calls, B), or None without drop-path. Raises:
        ValueError for a batch that is too large.
        """
        if not self.with_drop_path:
            return None
        if images.shape[0] > LARGEST_BATCH:
            raise ValueError(
                f"gold_yolo: at most {LARGEST_BATCH} images per rank with drop_path, got "
                f"{images.shape[0]}; set train.loss.drop_path to false"
            )
        return self.drop_factors[:, : images.shape[0]]

    def heads_of(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the raw heads of the network, with this step's drop-path."""
        return self.model(images, self.drop_path_factors(images))

    def loss(
        self, heads: tuple[Tensor, ...], targets: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute total and terms from the raw heads."""
        wanted = self.wanted(heads, targets, mask)
        terms = self.anchor_free_terms(self.model.flat(heads), self.grid(heads), wanted, mask)
        if self.with_anchors:
            ours = self.anchor_terms(
                self.model.flat_ab(heads), self.model.points_ab(heads), wanted, mask
            )
            terms = ops.cat((terms, ours), 0)
        return ops.sum(terms), terms

    def anchor_free_terms(
        self, flat: tuple[Tensor, ...], grid: Grid, wanted: Wanted, mask: Tensor
    ) -> Tensor:
        """Compute the terms IoU, DFL and class, weighted and normalized, (3,).

        Args:
            flat: probabilities (B, K, A) and logits of the distance bins (B, 4 R, A), or distances
                (B, 4, A) in cells, which have no DFL term.
        """
        classes, reg = flat[0], flat[1]
        distances, log_sum = self.decode(reg)
        class_sum, iou_sum, _, score, target = self.branch(classes, distances, grid, wanted, mask)
        dfl_sum = self.dfl_sum(reg, log_sum, target, score)
        return self.weighted(iou_sum, dfl_sum, class_sum, score)

    def anchor_terms(
        self, flat: tuple[Tensor, Tensor], points: tuple[Tensor, ...], wanted: Wanted, mask: Tensor
    ) -> Tensor:
        """Compute the terms IoU and class of the anchor branch, weighted and normalized, (2,).

        Args:
            flat: probabilities (B, K, 3 A) and boxes (B, 4, 3 A): center minus point, width and
                height, in cells.
        """
        x, y, width, height = ops.unbind(flat[1], 1)
        half_width, half_height = width * 0.5, height * 0.5
        distances = ops.stack((half_width - x, half_height - y, half_width + x, half_height + y), 1)
        class_sum, iou_sum, _, score, _ = self.anchor_branch(
            flat[0], distances, (*points, ()), wanted, mask
        )
        return self.weighted(iou_sum, None, class_sum, score)

    def weighted(
        self, iou_sum: Tensor, dfl_sum: Tensor | None, class_sum: Tensor, score: Tensor
    ) -> Tensor:
        """Weight the sums, divide them by the normalizer, and stack them."""
        terms = (iou_sum * self.iou_weight,) + (
            () if dfl_sum is None else (dfl_sum * self.dfl_weight,)
        )
        return ops.stack(terms + (class_sum * self.class_weight,), 0) / self.normaliser(score)

    def normaliser(self, values: Tensor) -> Tensor:
        """Sum ``values`` over all ranks, divided by the number of ranks for ``rank``; 1 if the sum
        is 0. No gradient.
        """
        total = self.global_sum(ops.sum(values)) / self.parts
        return total + ops.cast(total <= 0.0, float32)

    def decode(self, reg: Tensor) -> tuple[Tensor, Tensor]:
        """Compute distances in cells and the log of the summed exponentials of their bins, both (B,
        4, A).
        """
        return (reg, reg) if reg.shape[1] == 4 else self.expected(reg)

    def dfl_sum(self, reg: Tensor, log_sum: Tensor, target: Tensor, score: Tensor) -> Tensor:
        """Compute the cross-entropy of the two bins around every target distance, averaged over the
        sides, times the score, summed.
        """
        if reg.shape[1] == 4:
            return ops.zeros_like(ops.sum(score))
        target = ops.clamp(target, 0.0, self.longest)
        share = ops.relu(1.0 - ops.abs(ops.expand_dims(target, 2) - self.bins))  # (B, 4, R, A)
        entropy = log_sum - ops.sum(self._by_side(reg) * share, 2)
        return ops.sum(entropy * ops.expand_dims(score, 1)) * 0.25

    def _by_side(self, reg: Tensor) -> Tensor:
        """(B, 4 R, A) -> (B, 4, R, A)."""
        return ops.reshape(reg, (reg.shape[0], 4, -1, reg.shape[2]))

    def grid(self, heads: tuple[Tensor, ...]) -> Grid:
        """Return points, strides and sizes of the anchor-free predictions."""
        levels = len(self.model.strides)
        first = heads[:: len(heads) // levels]
        return (
            *self.model.points(heads),
            tuple(level.shape[2] * level.shape[3] for level in first),
        )

    def wanted(self, heads: tuple[Tensor, ...], targets: Tensor, mask: Tensor) -> Wanted:
        """Return classes and corners in pixels, each (B, M); class 0 where ``mask`` is 0."""
        height, width = (float(side * self.model.strides[0]) for side in heads[0].shape[2:])
        return corners_in_pixels(targets, mask, height, width)

    def assign(
        self, heads: tuple[Tensor, ...], targets: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return matched (B, A) 0/1, box index (B, A) int and target score (B, A) of the
        anchor-free branch.
        """
        flat = self.model.flat(heads)
        return self.branch.assign(
            flat[0],
            self.decode(flat[1])[0],
            self.grid(heads),
            self.wanted(heads, targets, mask),
            mask,
        )

    def matches(self, images: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Return which prediction is matched with which box, (B, M, A) float 0/1, without gradient
        or drop-path.
        """
        matched, index, _ = self.assign(self.model(images), targets, mask)
        return match_matrix(matched, index, mask.shape[1])


class GoldYOLODistillLoss(GoldYOLOLoss):
    """Trainable of a student of the form ``distill`` or ``plain`` with a frozen teacher.

    Args: as ``gold_yolo_distill_loss``.

    Shape: as ``GoldYOLOLoss``. The terms ``distill_dfl``, ``distill_class`` and ``feature`` compare
        with the teacher; ``iou`` includes the distances that the ``distill`` form predicts in
        addition to the bins.
    Source: original ``loss_distill_ns.py`` and ``loss_distill.py``. Unlike the original, a batch
        without boxes is allowed in the ``distill`` form, and the teacher's drop-path is off. As in
        the original, the teacher uses the batch's statistics, and the class distillation, which
        treats probabilities as logits, is a sum over all predictions without normalizer.
    """

    def __init__(
        self,
        model: nn.Cell,
        *,
        teacher: nn.Cell,
        iou: str,
        weights: tuple[float, float, float],
        distill: tuple[float, float, float],
        temperature: float,
        features: bool,
        normaliser: str,
        drop_path: bool,
    ):
        super().__init__(
            model,
            assigner="tal",
            iou=iou,
            weights=weights,
            normaliser=normaliser,
            drop_path=drop_path,
        )
        self.teacher = teacher
        for name, parameter in teacher.parameters_and_names():
            parameter.requires_grad = False
            parameter.name = TEACHER_PREFIX + name
        self.own_distances = model.form == "distill"
        self.temperature = float(temperature)
        self.distill_dfl, self.distill_class, self.feature_weight = (
            float(weight) for weight in distill
        )
        self.features = features
        self.feature_parts = 1.0 if normaliser == "rank" else float(world().size)
        self.term_names = ("iou", "dfl", "class", "distill_dfl", "distill_class") + (
            ("feature",) if features else ()
        )
        self.distill_weight = _state("trainable.distill_weight", np.ones(1, np.float32))

    def begin_step(self, clock: StepClock) -> None:
        """Draw the drop-path factors and set the distillation's weight, which falls along half a
        cosine from 1 to 0.01.
        """
        super().begin_step(clock)
        done = (1.0 - math.cos(math.pi * clock.epoch / clock.epochs)) / 2.0
        self.distill_weight.set_data(
            Tensor(np.array([1.0 + (LAST_WEIGHT - 1.0) * done], np.float32))
        )

    def construct(self, images: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if not self.features:
            return self.loss(self.heads_of(images), targets, mask, self.teacher(images))
        ours, heads = self.model.neck_and_heads(images, self.drop_path_factors(images))
        theirs, teacher_heads = self.teacher.neck_and_heads(images, None)
        return self.loss(heads, targets, mask, teacher_heads, (ours, theirs))

    def loss(
        self,
        heads: tuple[Tensor, ...],
        targets: Tensor,
        mask: Tensor,
        teacher_heads: tuple[Tensor, ...],
        features: tuple = (),
    ) -> tuple[Tensor, Tensor]:
        """Compute total and terms from the raw heads of student and teacher (and the neck outputs
        of both).
        """
        terms = self.distill_terms(
            self.model.flat(heads),
            self.teacher.flat(teacher_heads),
            self.grid(heads),
            self.wanted(heads, targets, mask),
            mask,
        )
        if self.features:
            terms = ops.cat((terms, self.feature_term(*features)), 0)
        return ops.sum(terms), terms

    def distill_terms(
        self,
        flat: tuple[Tensor, ...],
        teacher_flat: tuple[Tensor, ...],
        grid: Grid,
        wanted: Wanted,
        mask: Tensor,
    ) -> Tensor:
        """Compute the terms IoU, DFL, class, DFL distillation and class distillation, weighted and
        normalized, (5,).
        """
        classes, reg = flat[0], flat[1]
        distances, log_sum = self.decode(reg)
        class_sum, iou_sum, matched, score, target = self.branch(
            classes, distances, grid, wanted, mask
        )
        if self.own_distances:
            iou_sum = iou_sum + self.branch.iou_sum(flat[2], target, matched, score)
        terms = self.weighted(iou_sum, self.dfl_sum(reg, log_sum, target, score), class_sum, score)
        distilled = (
            self.dfl_distance(reg, teacher_flat[1], matched, score)
            * (self.dfl_weight * self.distill_dfl),
            self.class_distance(classes, teacher_flat[0])
            * (self.class_weight * self.distill_class),
        )
        return ops.cat((terms, ops.stack(distilled, 0) * self.distill_weight), 0)

    def class_distance(self, classes: Tensor, teacher: Tensor) -> Tensor:
        """Compute the divergence of the class probabilities, summed over all predictions."""
        heat = 1.0 / self.temperature
        return ops.sum(divergence(classes * heat, teacher * heat, 1)) * self.temperature**2

    def dfl_distance(self, reg: Tensor, teacher: Tensor, matched: Tensor, score: Tensor) -> Tensor:
        """Compute the divergence of the distance bins, averaged over the matches and sides of the
        batch; 0 if no score is above 0.

        The original multiplies the mean by the sum of the scores over their normalizer, which is 1
        or 0.
        """
        if reg.shape[1] == 4:
            return ops.zeros_like(ops.sum(score))
        heat = 1.0 / self.temperature
        apart = divergence(self._by_side(reg) * heat, self._by_side(teacher) * heat, 2)  # (B, 4, A)
        scored = ops.cast(self.global_sum(ops.sum(score)) > 0.0, float32)
        return (
            ops.sum(apart * ops.expand_dims(matched, 1))
            * scored
            * (self.temperature**2 * 0.25)
            / self.normaliser(matched)
        )

    def feature_term(self, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> Tensor:
        """Compute the weighted divergence of the neck outputs, averaged over channels and images,
        summed over levels, (1,).
        """
        apart = 0.0
        for student, teacher in zip(ours, theirs):
            apart = apart + feature_divergence(student, teacher) / (
                student.shape[0] * student.shape[1]
            )
        return self.distill_weight * (self.feature_weight / self.feature_parts) * apart


def corners_in_pixels(targets: Tensor, mask: Tensor, height: float, width: float) -> Wanted:
    """Convert targets (B, M, 5) class, cx, cy, w, h in 0..1 to class, x1, y1, x2, y2 in pixels,
    each (B, M), 0 where the mask is 0.
    """
    label, x, y, wide, high = ops.unbind(targets * ops.expand_dims(mask, 2), 2)
    x, y, wide, high = x * width, y * height, wide * width, high * height
    x1, y1 = x - wide * 0.5, y - high * 0.5
    return label, x1, y1, x1 + wide, y1 + high


def _state(name: str, values: np.ndarray) -> Parameter:
    """Create a parameter of a trainable that the host sets and that is not trained."""
    return Parameter(Tensor(values), name=name, requires_grad=False)


def _check(
    name: str,
    model: nn.Cell,
    forms: tuple[str, ...],
    choices: dict[str, tuple[str, tuple[str, ...]]],
) -> None:
    """Check family and form of the model, and choices. Raises: ValueError."""
    if model.family != "gold_yolo":
        raise ValueError(f"{name}: wanted a gold_yolo model, got family {model.family!r}")
    if model.form not in forms:
        raise ValueError(f"{name}: the model's form must be one of {forms}, got {model.form!r}")
    for keyword, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{name}: {keyword} must be one of {known}, got {value!r}")


@register_trainable
def gold_yolo_loss(
    model: nn.Cell,
    *,
    assigner: str = "tal",
    iou: str = "giou",
    class_weight: float = 1.0,
    iou_weight: float = 2.5,
    dfl_weight: float = 0.5,
    normaliser: str = "global",
    drop_path: bool = True,
) -> GoldYOLOLoss:
    """Build the trainable of Gold-YOLO's base training with the original's loss weights.

    Args:
        model: a model of the family ``gold_yolo``, of the form ``fuse_ab`` or ``plain``.
        assigner: ``tal``, or ``atss`` as in the original's warm-up; the anchor branch always uses
            ``tal``.
        iou: ``giou``, ``siou`` (the original for n), ``ciou`` or ``diou``.
        class_weight, iou_weight, dfl_weight: factors of the terms.
        normaliser: terms are divided by the sum of the target scores. ``global``: of all ranks.
            ``rank``: of all ranks, divided by their number, because the original adds the losses of
            its processes, each with its own sum.
        drop_path: whether residuals of the transformer are dropped at the model's rates, see
            ``begin_step``.

    Raises: ValueError for a model of another family or form, or an unknown choice.
    """
    _check(
        "gold_yolo_loss",
        model,
        ("fuse_ab", "plain"),
        {
            "assigner": (assigner, ASSIGNERS),
            "iou": (iou, tuple(IOUS)),
            "normaliser": (normaliser, NORMALISERS),
        },
    )
    return GoldYOLOLoss(
        model,
        assigner=assigner,
        iou=iou,
        weights=(iou_weight, dfl_weight, class_weight),
        normaliser=normaliser,
        drop_path=drop_path,
    )


@register_trainable
def gold_yolo_distill_loss(
    model: nn.Cell,
    *,
    teacher: nn.Cell,
    iou: str = "giou",
    class_weight: float = 1.0,
    iou_weight: float = 2.5,
    dfl_weight: float = 0.5,
    distill_class: float = 1.0,
    distill_dfl: float = 1.0,
    temperature: float = 20.0,
    features: bool = False,
    feature_weight: float = 10.0,
    normaliser: str = "global",
    drop_path: bool = True,
) -> GoldYOLODistillLoss:
    """Build the trainable of Gold-YOLO's self-distillation with the original's loss weights.

    Args:
        model: the student, of the form ``distill`` (n and s) or ``plain`` (m and l).
        teacher: a ``gold_yolo`` model of any form with the same classes. Its parameters are frozen,
            and their names get the prefix ``teacher.``.
        iou, class_weight, iou_weight, dfl_weight, normaliser, drop_path: as in ``gold_yolo_loss``.
        distill_class, distill_dfl: additional factors of the distillation terms.
        temperature: divisor of both sides' logits.
        features: also compare the neck outputs, weighted by ``feature_weight``; student and teacher
            must then have the same widths.

    Raises: ValueError for models that do not fit, or an unknown choice.
    """
    _check(
        "gold_yolo_distill_loss",
        model,
        ("distill", "plain"),
        {"iou": (iou, tuple(IOUS)), "normaliser": (normaliser, NORMALISERS)},
    )
    _check("gold_yolo_distill_loss, teacher", teacher, ("fuse_ab", "plain", "distill"), {})
    for what in ("num_classes", "reg_max", "strides"):
        ours, theirs = {
            "num_classes": (model.num_classes, teacher.num_classes),
            "reg_max": (model.reg_max, teacher.reg_max),
            "strides": (tuple(model.strides), tuple(teacher.strides)),
        }[what]
        if ours != theirs:
            raise ValueError(
                f"gold_yolo_distill_loss: the teacher's {what} must be the student's {ours}, got "
                f"{theirs}"
            )
    if temperature <= 0:
        raise ValueError(f"gold_yolo_distill_loss: temperature must be above 0, got {temperature}")
    return GoldYOLODistillLoss(
        model,
        teacher=teacher,
        iou=iou,
        weights=(iou_weight, dfl_weight, class_weight),
        distill=(distill_dfl, distill_class, feature_weight),
        temperature=temperature,
        features=features,
        normaliser=normaliser,
        drop_path=drop_path,
    )

"""Losses of DynamicDet: both detectors together (step 1), then the router alone (step 2)."""

from collections.abc import Sequence

import numpy as np

from mindyolo_ext.backend import Parameter, Tensor, float32, int32, nn, ops
from mindyolo_ext.backend.distributed import GlobalSum, freeze_batch_norm
from mindyolo_ext.backend.launch import world
from mindyolo_ext.contracts import StepClock
from mindyolo_ext.losses.assign.dynamic_k import MOST
from mindyolo_ext.losses.assign.lookup import of_matched_box, value_of_class
from mindyolo_ext.losses.assign.ota import AnchorCandidates, OTAAssigner
from mindyolo_ext.losses.iou import box_from_center, ciou
from mindyolo_ext.models.registry import register_trainable

ASSIGNERS = ("ota", "all")
HEADS = {"both": (0, 1), "first": (0,), "second": (1,)}
LEVEL_WEIGHTS = {3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06)}
ROUTER = "router."  # prefix of the names of the router's parameters
IOU_EPS = 1e-7
MEDIAN_OF_ALL = 10_000  # up to this many differences, the median is updated in every step,
MEDIAN_EVERY = 1_000  # and later once per this many

Maps = tuple[Tensor, ...]
Sums = tuple[Tensor, Tensor, Tensor, Tensor]


class Rows(nn.Cell):
    """Match the predictions of one detector's maps with boxes, in the original's order.

    Args:
        anchors: per level, (width, height) of its anchors in pixels.
        strides, num_classes: the network's.
        anchor_threshold: sides that differ by this factor or more do not match.
        ota: choose among the candidates; otherwise every candidate is matched with its box.

    Shape: maps (B, a * (5 + K), h, w) level by level, targets (B, M, 5) class, cx, cy, w, h in
        0..1, mask (B, M) 0/1 -> matched (B, N) 0/1, matched rows first; box (B, N) int; the floats
        (8, B, N) and the ints (3, B, N) of ``assign.ota.Candidates``; the flat vector of all maps.
        N is 10 M at most, or all candidates. Only the last carries a gradient.
    """

    def __init__(
        self,
        anchors: Sequence[Sequence[Sequence[float]]],
        strides: Sequence[int],
        num_classes: int,
        *,
        anchor_threshold: float,
        ota: bool,
    ):
        super().__init__()
        self.values, self.stride = 5 + num_classes, strides[0]
        self.candidates = AnchorCandidates(anchors, strides, anchor_threshold, self.values)
        self.assigner = OTAAssigner() if ota else None
        self.ota = ota
        self.numbers = Tensor(np.arange(self.values, dtype=np.int32).reshape((1, -1, 1)))

    def construct(self, maps: Maps, targets: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        flat = ops.cat([ops.cast(ops.reshape(level, (-1,)), float32) for level in maps], 0)
        floats, integers = self.candidates(
            targets, mask, tuple((level.shape[2], level.shape[3]) for level in maps)
        )
        if not self.ota:
            return floats[0], ops.cast(floats[4], int32), floats, integers, flat
        matched, box = self.assigner(
            *self.assigner_input(maps, flat, floats, integers, targets), mask
        )
        # No box takes more than MOST
        filled, number = _matched_first(matched, min(MOST * mask.shape[1], matched.shape[1]))
        integers = ops.stack(
            of_matched_box(ops.cat((integers, ops.expand_dims(box, 0)), 0), number), 0
        )
        floats = ops.stack(of_matched_box(floats, number), 0)
        return (
            filled,
            integers[3],
            ops.stop_gradient(floats),
            integers[:3],
            flat,
        )

    def assigner_input(
        self, maps: Maps, flat: Tensor, floats: Tensor, integers: Tensor, targets: Tensor
    ) -> tuple[tuple, tuple, tuple]:
        """Compute the first three arguments of the assigner, without gradient, lengths in
        pixels.
        """
        values = self.predictions(ops.stop_gradient(flat), integers)  # (B, 5 + K, C)
        valid, cell_x, cell_y, _, _, anchor_width, anchor_height, stride = ops.unbind(floats, 0)
        x, y, width, height = ops.unbind(2.0 * ops.sigmoid(values[:, :4]), 1)
        boxes = box_from_center(
            (x - 0.5 + cell_x) * stride,
            (y - 0.5 + cell_y) * stride,
            width * width * anchor_width * stride,
            height * height * anchor_height * stride,
        )
        sides = float(maps[0].shape[3] * self.stride), float(maps[0].shape[2] * self.stride)
        label, x, y, width, height = ops.unbind(targets, 2)
        wanted = box_from_center(x * sides[0], y * sides[1], width * sides[0], height * sides[1])
        return (boxes, valid), (values[:, 4], values[:, 5:]), (label, *wanted)

    def predictions(self, flat: Tensor, integers: Tensor) -> Tensor:
        """Return the logits x, y, w, h, objectness, classes of the rows, (B, 5 + K, N)."""
        index = ops.expand_dims(integers[1], 1) + self.numbers * ops.expand_dims(integers[2], 1)
        return ops.gather(flat, index, 0)


def _matched_first(matched: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the first ``most`` matched slots in order: (B, C) float 0/1 -> whether each exists,
    float 0/1, and its index, int, 0 if not, both (B, most).

    It counts instead of sorting, because a slot's index has more bits than a device that sorts in
    float16 keeps.
    """
    batch, slots = matched.shape
    rank = ops.cast(ops.cumsum(matched, 1) * matched, int32)  # 0: not matched
    rank = rank + ops.reshape(ops.arange(batch, dtype=int32), (batch, 1)) * (most + 1)
    numbers = ops.reshape(ops.cast(ops.arange(slots), float32), (1, -1)) * matched
    places = ops.unsorted_segment_sum(
        ops.reshape(numbers, (-1,)), ops.reshape(rank, (-1,)), batch * (most + 1)
    )
    places = ops.cast(ops.reshape(places, (batch, most + 1))[:, 1:], int32)
    ranks = ops.reshape(ops.cast(ops.arange(most), float32), (1, -1))
    return ops.cast(ranks < ops.sum(matched, 1, True), float32), places


class DynamicDetLoss(nn.Cell):
    """Trainable of a ``dynamicdet`` model: both detectors, without the router.

    Args: as ``dynamicdet_loss``.

    Shape: images (B, 3, H, W), targets (B, M, 5) class, cx, cy, w, h in 0..1, mask (B, M) 0/1
        -> total (), terms (3,) in the order of ``term_names``, weighted, summed over the detectors.
        The total is their sum times the global batch.
    Source: original ``utils/loss.py``, ``ComputeLossOTADual`` and ``ComputeLoss``. Box and class
        terms are means over a level's matches, the objectness term over a level's map; levels are
        summed. As in the original, a prediction that is matched twice counts twice, and the later
        match sets its target objectness. Unlike the original, a batch without any box is allowed,
        and matches and images are counted over all ranks.
    """

    term_names = ("box", "object", "class")

    def __init__(
        self,
        model: nn.Cell,
        *,
        gains: tuple[float, float, float],
        anchor_threshold: float,
        level_weights: Sequence[float],
        label_smoothing: float,
        assigner: str,
        heads: str,
    ):
        super().__init__(auto_prefix=False)  # keeps the model's parameter names
        self.model = model
        self.num_classes = model.num_classes
        self.box_gain, self.object_gain, self.class_gain = (float(gain) for gain in gains)
        self.level_weights = Tensor(np.array([level_weights], np.float32))  # (1, L)
        self.yes, self.no = 1.0 - 0.5 * label_smoothing, 0.5 * label_smoothing
        self.levels, self.detectors = len(model.strides), HEADS[heads]
        self.per_level = len(model.anchors) // self.levels
        anchors = [
            model.anchors[i : i + self.per_level]
            for i in range(0, len(model.anchors), self.per_level)
        ]
        self.rows = Rows(
            anchors,
            model.strides,
            model.num_classes,
            anchor_threshold=anchor_threshold,
            ota=assigner == "ota",
        )
        self.global_sum = GlobalSum()

    def construct(self, images: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss(self.model(images), targets, mask)

    def loss(self, outputs: Maps, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Compute total and terms from the model's raw maps."""
        box, objectness, classes, counts = self.sums(outputs, targets, mask)  # (D, B, L)
        here = ops.cat(
            (
                ops.reshape(ops.sum(counts, 1), (-1,)),
                ops.full((1,), float(mask.shape[0]), dtype=float32),
            ),
            0,
        )
        everywhere = self.global_sum(here)
        batch = everywhere[here.shape[0] - 1]
        matches = ops.reshape(ops.maximum(everywhere[:-1], 1.0), (len(self.detectors), -1))
        terms = ops.stack(
            (
                ops.sum(ops.sum(box, 1) / matches) * self.box_gain,
                ops.sum(objectness) / batch * self.object_gain,
                ops.sum(ops.sum(classes, 1) / matches) * self.class_gain,
            ),
            0,
        )
        return ops.sum(terms) * batch, terms

    def image_losses(self, outputs: Maps, targets: Tensor, mask: Tensor) -> Tensor:
        """Compute the loss of each detector on each image, as if each were a batch: (D, B)."""
        box, objectness, classes, counts = self.sums(outputs, targets, mask)
        matches = ops.maximum(counts, 1.0)
        return (
            ops.sum(box / matches, 2) * self.box_gain
            + ops.sum(objectness, 2) * self.object_gain
            + ops.sum(classes / matches, 2) * self.class_gain
        )

    def sums(self, outputs: Maps, targets: Tensor, mask: Tensor) -> Sums:
        """Compute the parts of the loss per detector, image and level, without gains, all (D, B,
        L).

        These are 1 - CIoU, summed over the matches; objectness, as a mean over the map times the
        level's weight; the class term, as a mean over the classes summed over the matches; and the
        number of matches.
        """
        maps = self.maps_of(outputs)
        targets, mask = self.for_detectors(targets), self.for_detectors(mask)
        matched, box, floats, integers, flat = self.rows(maps, targets, mask)
        values = self.rows.predictions(flat, integers)
        # Zero logits where nothing is matched: a box that overflows there must not yield 0 * inf =
        # NaN
        values = ops.where(ops.expand_dims(matched, 1) > 0.5, values, ops.zeros_like(values))
        label, *wanted = of_matched_box(ops.transpose(targets, (2, 0, 1)), box)
        iou = self._overlap(values, wanted, floats, (matched, maps))
        found = (
            self._last_of_cell(matched, integers[0], maps)
            * ops.stop_gradient(ops.relu(iou))
            * values[:, 4]
        )
        parts = (
            matched * (1.0 - iou),
            found,
            matched * self._class_entropy(values, label),
            matched,
        )
        boxes, found, classes, counts = ops.unbind(
            self._by_level(ops.stack(parts, 0), floats[3]), 0
        )
        cells = tuple(float(level.shape[2] * level.shape[3] * self.per_level) for level in maps)
        objectness = (
            (self._softplus_sums(maps) - found) * self.level_weights / Tensor([cells], float32)
        )
        shape = len(self.detectors), -1, self.levels
        return tuple(ops.reshape(part, shape) for part in (boxes, objectness, classes, counts))

    def maps_of(self, outputs: Maps) -> Maps:
        """Return the maps of the active detectors, one per level, (D * B, a * (5 + K), h, w),
        detectors slowest.
        """
        return tuple(
            ops.cat([outputs[detector * self.levels + level] for detector in self.detectors], 0)
            for level in range(self.levels)
        )

    def for_detectors(self, values: Tensor) -> Tensor:
        """Repeat for each detector: (B, ...) -> (D * B, ...)."""
        return ops.cat([values for _ in self.detectors], 0)

    def matches(self, images: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Return which prediction of the last active detector is matched with which box, (B, M, A)
        float 0/1, without gradient.
        """
        outputs = self.model(images)
        first = self.detectors[-1] * self.levels
        maps = outputs[first : first + self.levels]
        matched, box, _, integers, _ = self.rows(maps, targets, mask)
        batch, boxes = mask.shape
        predictions = self._predictions(maps)
        images_boxes = ops.reshape(ops.arange(batch, dtype=int32), (batch, 1)) * boxes + box
        hits = ops.unsorted_segment_sum(
            ops.reshape(matched, (-1,)),
            ops.reshape(images_boxes * predictions + integers[0], (-1,)),
            batch * boxes * predictions,
        )
        return ops.stop_gradient(ops.reshape(ops.minimum(hits, 1.0), (batch, boxes, predictions)))

    def _predictions(self, maps: Maps) -> int:
        """Return A, the number of predictions of all levels."""
        total = 0
        for level in maps:
            total += level.shape[2] * level.shape[3] * self.per_level
        return total

    def _overlap(
        self,
        values: Tensor,
        wanted: Sequence[Tensor],
        floats: Tensor,
        matched_and_maps: tuple[Tensor, Maps],
    ) -> Tensor:
        """Compute the CIoU of the rows with their boxes, relative to their cells and in cells, (B,
        N).
        """
        matched, maps = matched_and_maps
        _, cell_x, cell_y, _, _, anchor_width, anchor_height, stride = ops.unbind(floats, 0)
        x, y, width, height = ops.unbind(2.0 * ops.sigmoid(values[:, :4]), 1)
        predicted = box_from_center(
            x - 0.5, y - 0.5, width * width * anchor_width, height * height * anchor_height
        )
        columns = float(maps[0].shape[3] * self.model.strides[0]) / stride
        lines = float(maps[0].shape[2] * self.model.strides[0]) / stride
        x, y, width, height = wanted
        unmatched = 1.0 - matched  # sides of 1 there, so that their ratio is finite
        target = box_from_center(
            x * columns - cell_x,
            y * lines - cell_y,
            width * columns * matched + unmatched,
            height * lines * matched + unmatched,
        )
        return ciou(predicted, target, IOU_EPS, added_height=IOU_EPS)

    def _last_of_cell(self, matched: Tensor, row: Tensor, maps: Maps) -> Tensor:
        """Return 1 for the last matched row of every prediction, else 0, (B, N)."""
        batch, count = matched.shape
        predictions = self._predictions(maps)
        row = row + ops.reshape(ops.arange(batch, dtype=int32), (batch, 1)) * predictions
        order = matched * ops.reshape(ops.cast(ops.arange(1, count + 1), float32), (1, -1))
        last = ops.unsorted_segment_max(
            ops.reshape(order, (-1,)), ops.reshape(row, (-1,)), batch * predictions
        )
        return ops.stop_gradient(
            matched * ops.cast(ops.gather(last, row, 0) - order < 0.5, float32)
        )

    def _class_entropy(self, values: Tensor, label: Tensor) -> Tensor:
        """Compute the binary cross-entropy with the label, averaged over the classes, (B, N); 0 for
        a single class.
        """
        if self.num_classes == 1:
            return ops.zeros_like(label)
        logits = values[:, 5:]
        entropy = ops.sum(ops.softplus(logits), 1) - (self.yes - self.no) * value_of_class(
            logits, label
        )
        if self.no > 0.0:
            entropy = entropy - self.no * ops.sum(logits, 1)
        return entropy / self.num_classes

    def _by_level(self, parts: Tensor, level: Tensor) -> Tensor:
        """Sum the rows of each level: (n, B, N) and level (B, N) -> (n, B, L)."""
        return ops.stack(
            [
                ops.sum(parts * ops.expand_dims(ops.cast(level == float(i), float32), 0), 2)
                for i in range(self.levels)
            ],
            2,
        )

    def _softplus_sums(self, maps: Maps) -> Tensor:
        """Compute the cross-entropy of objectness with 0, summed over each level's map, (B, L)."""
        sums = ()
        for level in maps:
            batch, _, height, width = level.shape
            logits = ops.reshape(level, (batch, self.per_level, -1, height * width))[:, :, 4]
            sums = sums + (ops.sum(ops.softplus(ops.cast(logits, float32)), (1, 2)),)
        return ops.stack(sums, 1)


class DynamicDetRouterLoss(DynamicDetLoss):
    """Trainable of the router. Both detectors are frozen, and their norms use running statistics.

    Args: as ``dynamicdet_router_loss``.

    Shape: as ``DynamicDetLoss``; terms (4,) are means over the images: loss of the first detector
        minus that of the second one, easiness, 1 - easiness, and the loss that is trained. The
        total is the latter's sum over the images.
    Source: arXiv:2304.05552; original ``utils/loss.py``, ``ComputeLossOTADy``. With the losses L1
        and L2 of both detectors on an image, the median D of all differences L1 - L2 so far, this
        step included, and the easiness s, its loss is s (L1 - D / 2) + (1 - s) (L2 + D / 2). As in
        the original, D is the median of all differences while there are up to 10000, and later of
        the first full thousands. Unlike the original, a step may have several images, and a full
        thousand counts from the next step on.
    """

    term_names = ("difference", "easy", "hard", "adaptive")

    def __init__(
        self,
        model: nn.Cell,
        *,
        gains: tuple[float, float, float],
        anchor_threshold: float,
        level_weights: Sequence[float],
        label_smoothing: float,
        history: int,
    ):
        super().__init__(
            model,
            gains=gains,
            anchor_threshold=anchor_threshold,
            level_weights=level_weights,
            label_smoothing=label_smoothing,
            assigner="ota",
            heads="both",
        )
        for name, parameter in model.parameters_and_names():
            if not name.startswith(ROUTER):
                parameter.requires_grad = False
        freeze_batch_norm(model)
        self.capacity, self.every = history, MEDIAN_EVERY
        self.window = min(MEDIAN_OF_ALL, history)
        self.history = _state("loss.history", np.zeros(history, np.float32))
        self.count = _state("loss.count", np.zeros(1, np.int32))
        self.tracked_difference = _state("loss.tracked_difference", np.zeros(1, np.float32))
        self.places = Tensor(np.arange(self.window, dtype=np.int32))
        this = world()
        self.ranks = this.size
        self.own_rank = Tensor(
            (np.arange(this.size) == this.rank).astype(np.float32).reshape((-1, 1))
        )
        self.block = -1  # the thousand that the median counts to
        self.counted: int | None = None  # differences before the next step, as far as is known

    def begin_step(self, clock: StepClock) -> None:
        """Set the median once there are so many differences that it is not updated in every step.

        Raises: ValueError if the history is full.
        """
        count = self._count_before(clock)
        if count >= self.capacity:
            raise ValueError(
                f"dynamicdet_router_loss: the history of {self.capacity} images is full before "
                "iteration "
                f"{clock.iteration}; set train.loss.history to the number of images of all epochs"
            )
        block = count // self.every
        if count >= self.window and block != self.block:
            median = np.median(self.history.asnumpy()[: max(block * self.every, self.window)])
            self.tracked_difference.set_data(Tensor(np.array([median], np.float32)))
            self.block = block

    def _count_before(self, clock: StepClock) -> int:
        """Differences in the history before this step. If the clock gives the number of images
        per step, the device is read only once, before the first step.
        """
        if self.counted is None or not clock.images:
            self.counted = int(self.count.asnumpy()[0])
        count = self.counted
        self.counted = count + clock.images
        return count

    def loss(self, outputs: Maps, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        first, second = ops.unbind(
            ops.stop_gradient(
                self.image_losses(
                    tuple(ops.stop_gradient(output) for output in outputs[:-1]), targets, mask
                )
            ),
            0,
        )
        difference, easy = first - second, outputs[-1]
        half = self.track(difference) * 0.5
        adaptive = easy * (first - half) + (1.0 - easy) * (second + half)  # (B,)
        means = ops.sum(ops.stack((difference, easy, 1.0 - easy, adaptive), 0), 1) / (
            mask.shape[0] * self.ranks
        )
        return ops.sum(adaptive), means

    def track(self, difference: Tensor) -> Tensor:
        """Add the differences (B,) of all ranks to the history, and return the current median,
        (1,).
        """
        batch = difference.shape[0] * self.ranks
        new = ops.reshape(self.global_sum(self.own_rank * ops.expand_dims(difference, 0)), (-1,))
        # A copy, because a view of the parameter would see the writes below; the sum alone is an
        # int64
        before = ops.cast(ops.sum(self.count), int32)
        ages = self.places - before  # 0 is the first of the new differences
        added = ops.gather(new, ops.clamp(ages, 0, batch - 1), 0)
        known = ops.where(ages < 0, self.history[: self.window], added)
        total = ops.minimum(before + batch, self.window)
        # In falling order, with missing entries at the end; values are not rounded
        _, order = ops.topk(
            ops.where(self.places < total, known, ops.full_like(known, -1e30)), self.window
        )
        middle = ops.stack(((total - 1) // 2, total // 2), 0)
        middle = ops.gather(ops.cast(order, int32), middle, 0)
        median = ops.reshape(ops.sum(ops.gather(known, middle, 0)) * 0.5, (1,))
        median = ops.where(before < self.window, median, self.tracked_difference)
        slots = ops.minimum(ops.arange(batch, dtype=int32) + before, self.capacity - 1)
        written = ops.scatter_update(self.history, ops.depend(slots, median), new)
        ops.assign(self.count, ops.depend(self.count + batch, written))
        return ops.stop_gradient(median)


def _state(name: str, values: np.ndarray) -> Parameter:
    """Create a parameter that is not trained but saved for a resumed run."""
    return Parameter(Tensor(values), name=name, requires_grad=False)


def _checked(
    name: str,
    model: nn.Cell,
    anchor_threshold: float,
    level_weights: Sequence[float] | None,
    label_smoothing: float,
) -> tuple[float, ...]:
    """Check the arguments that both builders share, and return the level weights."""
    if model.family != "dynamicdet":
        raise ValueError(f"{name}: wanted a dynamicdet model, got family {model.family!r}")
    if not anchor_threshold > 1:
        raise ValueError(f"{name}: anchor_threshold must be above 1, got {anchor_threshold}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"{name}: label_smoothing must be in 0..1, got {label_smoothing}")
    weights = LEVEL_WEIGHTS[len(model.strides)] if level_weights is None else tuple(level_weights)
    if len(weights) != len(model.strides):
        raise ValueError(
            f"{name}: level_weights needs {len(model.strides)} factors, got {level_weights}"
        )
    return weights


@register_trainable
def dynamicdet_loss(
    model: nn.Cell,
    *,
    box: float = 0.05,
    objectness: float = 0.7,
    classes: float = 0.3,
    anchor_threshold: float = 4.0,
    level_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    assigner: str = "ota",
    heads: str = "both",
) -> DynamicDetLoss:
    """Build the trainable of DynamicDet's step 1, the cascade of both detectors.

    Args:
        model: a ``dynamicdet`` model in training form, with or without router.
        box, objectness, classes: factors of the three terms. The defaults are the original's for 3
            levels, inputs of 640 pixels and 80 classes. The original multiplies all by 3 / levels,
            objectness also by (input / 640)^2, and classes also by K / 80.
        anchor_threshold: a box and an anchor do not match if their sides differ by this factor or
            more.
        level_weights: factor of each level's objectness, stride 8 first; the original's by
            default.
        label_smoothing: half of it is the target of every other class, and 1 minus half of it the
            target of the box's own class.
        assigner: ``ota``, or ``all``, which matches every candidate, as in the original's
            validation.
        heads: ``both`` detectors, the ``first`` or the ``second``.

    Raises: ValueError for a model of another family or a setting out of range.
    """
    weights = _checked("dynamicdet_loss", model, anchor_threshold, level_weights, label_smoothing)
    for what, value, choices in (("assigner", assigner, ASSIGNERS), ("heads", heads, tuple(HEADS))):
        if value not in choices:
            raise ValueError(f"dynamicdet_loss: {what} must be one of {choices}, got {value!r}")
    return DynamicDetLoss(
        model,
        gains=(box, objectness, classes),
        anchor_threshold=anchor_threshold,
        level_weights=weights,
        label_smoothing=label_smoothing,
        assigner=assigner,
        heads=heads,
    )


@register_trainable
def dynamicdet_router_loss(
    model: nn.Cell,
    *,
    box: float = 0.05,
    objectness: float = 0.7,
    classes: float = 0.3,
    anchor_threshold: float = 4.0,
    level_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    history: int = 500_000,
) -> DynamicDetRouterLoss:
    """Build the trainable of DynamicDet's step 2, the router between two trained detectors.

    Args:
        model: a ``dynamicdet`` model with router, in training form. Everything but the router is
            frozen.
        box, objectness, classes, anchor_threshold, level_weights, label_smoothing: as in
            ``dynamicdet_loss``.
        history: number of images, over all epochs, whose loss difference is stored, 4 bytes each.

    Raises: ValueError for a model of another family or without a router, or a setting out of range.
    """
    weights = _checked(
        "dynamicdet_router_loss", model, anchor_threshold, level_weights, label_smoothing
    )
    if not model.has_router:
        raise ValueError(
            "dynamicdet_router_loss: wanted a model with a router; set model.keywords.router to "
            "true"
        )
    if history < 1:
        raise ValueError(f"dynamicdet_router_loss: history must be at least 1, got {history}")
    return DynamicDetRouterLoss(
        model,
        gains=(box, objectness, classes),
        anchor_threshold=anchor_threshold,
        level_weights=weights,
        label_smoothing=label_smoothing,
        history=history,
    )

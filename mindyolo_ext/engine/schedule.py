"""Rates, momentum and updates as plain functions of the iteration: nothing to save, nothing to
resume.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from mindyolo_ext.config import OptimizerConfig, ScheduleConfig

logger = logging.getLogger(__name__)
DECAYS = ("constant", "multistep", "step", "cosine", "linear", "one_cycle")
ANNEALS = ("cosine", "linear")
# One cycle, at its start, its peak and its end: factor on the base rate, and momentum (beta1 of
# adam and adamw)
CYCLE_RATE = (1 / 25, 1.0, 1 / 25 / 1e4)
CYCLE_MOMENTUM = (0.95, 0.85, 0.95)
# What one cycle, whose warm-up has a form of its own, would have to ignore
NOT_ONE_CYCLE = (
    "warmup_min_steps",
    "warmup_power",
    "warmup_start_ratio",
    "warmup_bias_lr",
    "warmup_momentum",
)


class Schedule:
    """Rates of every group at an iteration, and whether it ends with an update.

    ``accumulate`` is the number of micro batches per update once the warm-up is over.

    Args:
        optimizer, schedule: the recipe's sections.
        steps_per_epoch, epochs: length of the training in iterations (micro batches) and epochs.
        global_batch: images per iteration over all ranks, for ``lr_per_image`` and
            ``nominal_batch``.
        groups: group names; ``bias`` takes ``warmup_bias_lr``.

    Raises: ValueError for an unknown decay or anneal, a key that the decay would ignore, or
        ``step`` without a ``step_size``.
    Source: Yolo-FastestV2 ``train.py`` (power 4 warm-up, milestones), YOLOX ``lr_scheduler.py``
        (quadratic warm-up, cosine, flat end), YOLOv7 ``train.py`` (linear warm-up with bias rate
        and momentum), Gold-YOLO ``yolov6/core/engine.py`` and ``yolov6/solver/build.py`` (cosine
        per epoch, warm-up of at least 1000 steps), DynamicDet ``train_step1.py`` and
        ``train_step2.py`` (nominal batch, micro batches that grow with the warm-up), simple YOLO
        ``utils/scheduler.py`` (PyTorch's ``OneCycleLR`` in two phases, ``StepLR`` by iteration).
        Unlike the original, a warm-up as long as the training ends it at the peak instead of
        dividing by zero.
    """

    def __init__(
        self,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        *,
        steps_per_epoch: int,
        epochs: int,
        global_batch: int = 1,
        groups: Sequence[str] = ("all",),
    ):
        _check(schedule)
        self.schedule = schedule
        self.base = optimizer.lr * (global_batch if optimizer.lr_per_image else 1)
        self.momentum = optimizer.momentum
        self.steps_per_epoch = steps_per_epoch
        self.total = steps_per_epoch * epochs
        self.warmup = max(
            int(round(schedule.warmup_epochs * steps_per_epoch)), schedule.warmup_min_steps
        )
        self.cycles_momentum = schedule.decay == "one_cycle"
        # Where the cycle has its peak: an iteration, not rounded
        self.peak = min(schedule.warmup_epochs * steps_per_epoch, self.total) - 1
        if self.cycles_momentum and schedule.warmup_epochs >= epochs:
            logger.warning(
                "train.schedule: one_cycle with warmup_epochs %g in a training of %d epoch(s) has "
                "no way down, its last iteration has the highest rate",
                schedule.warmup_epochs,
                epochs,
            )
        self.groups = tuple(groups)
        self.first_alone = optimizer.accumulate_first_alone
        self.micro_batches = (
            optimizer.nominal_batch / global_batch
            if optimizer.nominal_batch
            else optimizer.accumulate
        )
        self.accumulate = micro_batches(optimizer, global_batch)

    def rates(self, step: int) -> list[float]:
        """Learning rate of each group at iteration ``step`` (0 first)."""
        s = self.schedule
        if s.decay == "one_cycle":
            return [self.base * self._one_cycle(step, CYCLE_RATE)] * len(self.groups)
        if step > self.warmup or self.warmup == 0:
            return [self.base * self._decay(step)] * len(self.groups)
        share = (step / self.warmup) ** s.warmup_power
        target = self.base * (self._decay(step) if s.decay == "linear" or s.per_epoch else 1.0)
        start = target * s.warmup_start_ratio
        return [
            self._between(
                s.warmup_bias_lr if name == "bias" and s.warmup_bias_lr >= 0 else start,
                target,
                share,
            )
            for name in self.groups
        ]

    def momentum_at(self, step: int) -> float:
        """Momentum at iteration ``step``; where ``cycles_momentum`` it is beta1 of adam and
        adamw, too.
        """
        if self.cycles_momentum:
            return self._one_cycle(step, CYCLE_MOMENTUM)
        first = self.schedule.warmup_momentum
        if first < 0 or step >= self.warmup:
            return self.momentum
        return self._between(first, self.momentum, step / self.warmup)

    def accumulate_at(self, step: int) -> int:
        """Micro batches per update at iteration ``step``."""
        if not self.schedule.warmup_accumulate or step >= self.warmup:
            return self.accumulate
        return max(1, round(float(np.interp(step, (0, self.warmup), (1, self.micro_batches)))))

    def updates_at(self, step: int) -> bool:
        """Whether iteration ``step`` applies the gradients gathered so far."""
        return (step + (not self.first_alone)) % self.accumulate_at(step) == 0

    @staticmethod
    def _between(first: float, last: float, share: float) -> float:
        return first + (last - first) * share

    def _decay(self, step: int) -> float:
        """Factor on the base rate after the warm-up."""
        s = self.schedule
        if s.decay == "multistep":
            epoch = step // self.steps_per_epoch
            passed = [m for m in s.milestones if epoch >= m and not self._lost(m)]
            return s.gamma ** len(passed)
        if s.decay == "step":
            return s.gamma ** (step // s.step_size)
        if s.decay == "linear":
            return 1 - (1 - s.final_ratio) * min(1.0, step / max(self.total, 1))
        if s.decay == "cosine":
            last = self.total - s.flat_epochs * self.steps_per_epoch
            if s.per_epoch:
                epoch = step // self.steps_per_epoch
                late = s.one_epoch_late and epoch > self.warmup // self.steps_per_epoch
                share = min(1.0, (epoch - late) * self.steps_per_epoch / max(last, 1))
            else:
                share = min(1.0, max(0.0, (step - self.warmup) / max(last - self.warmup, 1)))
            return s.final_ratio + (1 - s.final_ratio) * 0.5 * (1 + math.cos(math.pi * share))
        return 1.0

    def _one_cycle(self, step: int, values: tuple[float, float, float]) -> float:
        """From the first of ``values`` to the second at the peak, and to the third at the last
        iteration.
        """
        first, top, end = values
        last = self.total - 1
        if step <= self.peak or self.peak >= last:
            start, goal, share = first, top, step / self.peak if self.peak > 0 else 0.0
        else:
            start, goal, share = top, end, (step - self.peak) / (last - self.peak)
        share = min(1.0, share)
        if self.schedule.anneal == "cosine":
            share = 0.5 * (1 - math.cos(math.pi * share))
        return self._between(start, goal, share)

    def _lost(self, milestone: int) -> bool:
        """Whether the warm-up runs over this milestone and wipes it out."""
        return (
            self.schedule.drops_lost_in_warmup and milestone * self.steps_per_epoch <= self.warmup
        )


def _check(schedule: ScheduleConfig) -> None:
    """Raises: ValueError for what ``Schedule`` refuses."""
    if schedule.decay not in DECAYS:
        raise ValueError(f"train.schedule.decay must be one of {DECAYS}, got {schedule.decay!r}")
    if schedule.per_epoch and schedule.decay != "cosine":
        raise ValueError(f"train.schedule.per_epoch: wanted decay cosine, got {schedule.decay!r}")
    if schedule.anneal not in ANNEALS:
        raise ValueError(f"train.schedule.anneal must be one of {ANNEALS}, got {schedule.anneal!r}")
    if schedule.decay == "step" and schedule.step_size < 1:
        raise ValueError(
            f"train.schedule.step_size: decay step wanted iterations, at least 1, got "
            f"{schedule.step_size}"
        )
    given, plain = asdict(schedule), asdict(ScheduleConfig())
    ignored = [key for key in NOT_ONE_CYCLE if given[key] != plain[key]]
    if schedule.decay == "one_cycle" and ignored:
        raise ValueError(
            f"train.schedule: one_cycle has a warm-up of its own, of warmup_epochs; wanted no "
            f"{', '.join(ignored)}, got {', '.join(str(given[key]) for key in ignored)}"
        )


def micro_batches(optimizer: OptimizerConfig, global_batch: int) -> int:
    """Batches of ``global_batch`` images whose gradients an update sums, once the warm-up is
    over.
    """
    if not optimizer.nominal_batch:
        return optimizer.accumulate
    return max(1, round(optimizer.nominal_batch / global_batch))


def weight_decay(optimizer: OptimizerConfig, global_batch: int) -> float:
    """The decay that is applied: with a nominal batch, in proportion to the images of an update."""
    if not optimizer.nominal_batch:
        return optimizer.weight_decay
    images = global_batch * micro_batches(optimizer, global_batch)
    return optimizer.weight_decay * images / optimizer.nominal_batch

"""Decays of the learning rate: functions from an iteration to a factor on the base rate."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Decay: TypeAlias = Callable[[int], float]


def constant(step: int) -> float:  # noqa: ARG001
    """Keep the base rate."""
    return 1.0


@dataclass(frozen=True)
class MultiStep:
    """Multiply by ``gamma`` at each milestone.

    Args:
        milestones: epochs.
        gamma: factor per milestone.
        steps_per_epoch: iterations per epoch.
    """

    milestones: Sequence[int]
    gamma: float
    steps_per_epoch: int

    def __call__(self, step: int) -> float:
        epoch = step // self.steps_per_epoch
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


def milestones_after(milestones: Sequence[int], warmup: int, steps_per_epoch: int) -> list[int]:
    """The milestones that the warm-up does not cancel.

    As in the original: Yolo-FastestV2's warm-up, of ``warmup`` iterations, sets the learning rate
    back to the base rate, so a milestone inside it has no effect.
    """
    return [milestone for milestone in milestones if milestone * steps_per_epoch > warmup]


@dataclass(frozen=True)
class Step:
    """Multiply by ``gamma`` after every ``size`` iterations, as PyTorch's ``StepLR``."""

    size: int
    gamma: float

    def __call__(self, step: int) -> float:
        return self.gamma ** (step // self.size)


@dataclass(frozen=True)
class Linear:
    """A line from 1 at the first of ``total`` iterations to ``final_ratio`` after the last."""

    total: int
    final_ratio: float

    def __call__(self, step: int) -> float:
        return 1 - (1 - self.final_ratio) * min(1.0, step / max(self.total, 1))


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 at iteration ``first`` to ``final_ratio`` at ``last``, then flat."""

    first: int
    last: int
    final_ratio: float

    def __call__(self, step: int) -> float:
        share = min(1.0, max(0.0, (step - self.first) / max(self.last - self.first, 1)))
        return half_cosine(share, self.final_ratio)


@dataclass(frozen=True)
class CosineByEpoch:
    """As ``Cosine`` from iteration 0, with one value for all iterations of an epoch."""

    last: int
    final_ratio: float
    steps_per_epoch: int

    def __call__(self, step: int) -> float:
        begin = step // self.steps_per_epoch * self.steps_per_epoch
        return half_cosine(min(1.0, begin / max(self.last, 1)), self.final_ratio)


@dataclass(frozen=True)
class OneEpochLate:
    """``decay`` delayed by one epoch, once the warm-up is over.

    As in the original: the schedulers of Gold-YOLO and DynamicDet step once when they are built,
    and are set back by one when training starts. The warm-up computes its own goal and is not
    delayed.

    Args:
        decay: the decay to delay.
        steps_per_epoch: iterations per epoch.
        warmup: iterations of the warm-up; the epoch in which it ends is not delayed.
    """

    decay: Decay
    steps_per_epoch: int
    warmup: int

    def __call__(self, step: int) -> float:
        late = step // self.steps_per_epoch > self.warmup // self.steps_per_epoch
        return self.decay(step - self.steps_per_epoch if late else step)


def half_cosine(share: float, final_ratio: float) -> float:
    """From 1 at a ``share`` of 0 to ``final_ratio`` at 1."""
    return final_ratio + (1 - final_ratio) * 0.5 * (1 + math.cos(math.pi * share))

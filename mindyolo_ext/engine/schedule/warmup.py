"""Warm-up at the start of a training: learning rates by group, momentum, micro batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from mindyolo_ext.engine.schedule.decays import Decay, constant


def warmup_steps(epochs: float, steps_per_epoch: int, *, at_least: int = 0) -> int:
    """Iterations of a warm-up of ``epochs`` epochs, but at least ``at_least``."""
    return max(int(round(epochs * steps_per_epoch)), at_least)


@dataclass(frozen=True)
class RateWarmup:
    """Learning rates during the warm-up.

    Args:
        steps: length in iterations.
        power: exponent of the rise.
        base: the base rate, at which the warm-up ends.
        goal: decay that the end of the warm-up already follows; ``constant`` for the base rate.
        bias_start: first rate of the biases; the other groups start at 0.
    """

    steps: int
    power: float
    base: float
    goal: Decay = constant
    bias_start: float | None = None

    def covers(self, step: int) -> bool:
        """Whether iteration ``step`` belongs to the warm-up, including its end."""
        return self.steps > 0 and step <= self.steps

    def rates(self, step: int, groups: Sequence[str]) -> list[float]:
        """The learning rate of each group at an iteration of the warm-up."""
        share, goal = (step / self.steps) ** self.power, self.base * self.goal(step)
        bias = 0.0 if self.bias_start is None else self.bias_start
        return [between(bias if name == "bias" else 0.0, goal, share) for name in groups]


@dataclass(frozen=True)
class MomentumWarmup:
    """Momentum that grows from ``first`` to ``momentum`` in ``steps`` iterations, then stays
    constant.

    If ``first`` is None, it is constant from the beginning.
    """

    steps: int
    momentum: float
    first: float | None = None

    def __call__(self, step: int) -> float:
        if self.first is None or step >= self.steps:
            return self.momentum
        return between(self.first, self.momentum, step / self.steps)


def between(first: float, last: float, share: float) -> float:
    """Interpolate linearly from ``first`` at a ``share`` of 0 to ``last`` at 1."""
    return first + (last - first) * share

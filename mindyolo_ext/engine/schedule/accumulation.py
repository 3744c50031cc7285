"""Number of micro batches per update, and the corresponding weight decay."""

from dataclasses import dataclass

import numpy as np

from mindyolo_ext.config import OptimizerConfig


def wanted_batches(optimizer: OptimizerConfig, global_batch: int) -> float:
    """Batches of ``global_batch`` images for an update, after the warm-up; not rounded."""
    if not optimizer.nominal_batch:
        return optimizer.accumulate
    return optimizer.nominal_batch / global_batch


def micro_batches(optimizer: OptimizerConfig, global_batch: int) -> int:
    """Batches of ``global_batch`` images whose gradients an update sums, after the warm-up."""
    return max(1, round(wanted_batches(optimizer, global_batch)))


def weight_decay(optimizer: OptimizerConfig, global_batch: int) -> float:
    """The decay that is applied; with a nominal batch it is proportional to the images of an
    update.
    """
    if not optimizer.nominal_batch:
        return optimizer.weight_decay
    images = global_batch * micro_batches(optimizer, global_batch)
    return optimizer.weight_decay * images / optimizer.nominal_batch


@dataclass(frozen=True)
class Accumulation:
    """Which iterations end with an update.

    Args:
        count: micro batches per update after the warm-up.
        goal: ``count`` before rounding, which the warm-up grows towards.
        warmup: iterations in which the count grows from 1; 0 for the full count at once.
        first_alone: make the first micro batch an update of its own. As in the original: DynamicDet
            updates whenever the iteration, counted from 0, is a multiple of the count.
    """

    count: int
    goal: float
    warmup: int = 0
    first_alone: bool = False

    def count_at(self, step: int) -> int:
        """Micro batches per update at iteration ``step``."""
        if step >= self.warmup:
            return self.count
        return max(1, round(float(np.interp(step, (0, self.warmup), (1, self.goal)))))

    def updates_at(self, step: int) -> bool:
        """Whether iteration ``step`` applies the gradients accumulated so far."""
        return (step + (not self.first_alone)) % self.count_at(step) == 0

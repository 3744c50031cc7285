"""PyTorch's ``OneCycleLR`` in two phases: learning rate up and down, momentum down and up."""

import logging
import math
from dataclasses import dataclass

from mindyolo_ext.engine.schedule.warmup import between

logger = logging.getLogger(__name__)
# At the start, at the peak and at the end: factor on the base rate, and momentum (or beta1 of adam
# and adamw)
RATE = (1 / 25, 1.0, 1 / 25 / 1e4)
MOMENTUM = (0.95, 0.85, 0.95)


@dataclass(frozen=True)
class OneCycle:
    """The cycle over ``total`` iterations.

    Args:
        peak: iteration of the highest rate; it may be fractional.
        total: iterations of the training.
        anneal: ``cosine`` or ``linear``.

    Source: simple YOLO ``utils/scheduler.py``. Unlike the original: a warm-up as long as the
        training ends it at the peak instead of dividing by zero.
    """

    peak: float
    total: int
    anneal: str = "cosine"

    @classmethod
    def after_warmup(
        cls, warmup_epochs: float, *, steps_per_epoch: int, epochs: int, anneal: str
    ) -> "OneCycle":
        """The cycle with a rise of ``warmup_epochs``; warns if no time is left for the fall."""
        if warmup_epochs >= epochs:
            logger.warning(
                "train.schedule: one_cycle with warmup_epochs %g in a training of %d epoch(s) "
                "never falls, its last iteration has the highest rate",
                warmup_epochs,
                epochs,
            )
        total = steps_per_epoch * epochs
        return cls(min(warmup_epochs * steps_per_epoch, total) - 1, total, anneal)

    def rate(self, step: int) -> float:
        """Factor on the base rate."""
        return self._value(step, RATE)

    def momentum(self, step: int) -> float:
        """Momentum of sgd, or beta1 of adam and adamw."""
        return self._value(step, MOMENTUM)

    def _value(self, step: int, values: tuple[float, float, float]) -> float:
        """Interpolate from the first of ``values`` to the second, at the peak, and to the third."""
        first, top, end = values
        last = self.total - 1
        if step <= self.peak or self.peak >= last:
            start, goal, share = first, top, step / self.peak if self.peak > 0 else 0.0
        else:
            start, goal, share = top, end, (step - self.peak) / (last - self.peak)
        share = min(1.0, share)
        if self.anneal == "cosine":
            share = 0.5 * (1 - math.cos(math.pi * share))
        return between(start, goal, share)

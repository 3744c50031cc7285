"""Learning rate, momentum, micro batches and moving average as plain functions of the iteration:
nothing to save, nothing to resume. No framework.

``decays``, ``warmup``, ``one_cycle``, ``accumulation`` and ``average`` are the parts; ``compose``
builds what a recipe asks for out of them.
"""

from mindyolo_ext.engine.schedule.accumulation import micro_batches, weight_decay
from mindyolo_ext.engine.schedule.average import ema_decay
from mindyolo_ext.engine.schedule.compose import Schedule

__all__ = ["Schedule", "ema_decay", "micro_batches", "weight_decay"]

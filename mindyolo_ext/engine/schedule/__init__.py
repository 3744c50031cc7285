"""Learning rate, momentum, micro batches and moving average as plain functions of the iteration, so
nothing has to be saved or resumed. No framework.

``decays``, ``warmup``, ``one_cycle``, ``accumulation`` and ``average`` are the parts; ``compose``
combines them as a recipe says.
"""

from mindyolo_ext.engine.schedule.accumulation import micro_batches, weight_decay
from mindyolo_ext.engine.schedule.average import ema_decay
from mindyolo_ext.engine.schedule.compose import Schedule

__all__ = ["Schedule", "ema_decay", "micro_batches", "weight_decay"]

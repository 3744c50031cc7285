"""Decay of the moving average. It grows, so that early weights are forgotten."""

import math

from mindyolo_ext.config import TrainConfig


def exponential_ramp(update: int, warmup: float) -> float:
    """Share of the full decay at an update, counted from 1; 63 % at ``warmup`` updates."""
    return 1.0 - math.exp(-update / warmup)


def linear_ramp(done: float) -> float:
    """Share of the full decay when the share ``done`` of the training is finished."""
    return min(1.0, done)


def ema_decay(settings: TrainConfig, update: int, *, done: float = 0.0) -> float:
    """Decay of the moving average at an update.

    Args:
        settings: the recipe's section.
        update: number of the update, counted from 1.
        done: share of the training's iterations that are finished, this one included.
    """
    linear = settings.ema_ramp == "linear"
    ramp = linear_ramp(done) if linear else exponential_ramp(update, settings.ema_warmup)
    return settings.ema_decay * ramp

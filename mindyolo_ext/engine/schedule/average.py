"""The decay of the moving average: it grows, so that early weights are forgotten."""

import math

from mindyolo_ext.config import TrainConfig


def exponential_ramp(update: int, warmup: float) -> float:
    """Share of the full decay at an update, 1 first; 63 % at ``warmup`` updates."""
    return 1.0 - math.exp(-update / warmup)


def linear_ramp(done: float) -> float:
    """Share of the full decay when the share ``done`` of the training is over."""
    return min(1.0, done)


def ema_decay(settings: TrainConfig, update: int, *, done: float = 0.0) -> float:
    """Decay of the moving average at an update.

    Args:
        settings: the recipe's section.
        update: number of the update, 1 first.
        done: share of the training's iterations that are over with this one.
    """
    linear = settings.ema_ramp == "linear"
    ramp = linear_ramp(done) if linear else exponential_ramp(update, settings.ema_warmup)
    return settings.ema_decay * ramp

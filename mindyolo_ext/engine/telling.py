"""Log lines about the epochs of a run, counted from 1."""

import logging
from collections.abc import Mapping
from pathlib import Path

from mindyolo_ext.config import TrainConfig
from mindyolo_ext.engine.pace import duration
from mindyolo_ext.engine.stages import is_evaluated

logger = logging.getLogger(__name__)


def in_words(values: Mapping[str, float]) -> str:
    """Format the values of a step or an epoch: loss, terms and learning rate, then the speed."""
    shown = dict(values)
    speed, wait = shown.pop("images_per_second", None), shown.pop("data_wait", None)
    memory = shown.pop("device_memory_gib", None)
    words = [f"{name} {value:.4g}" for name, value in shown.items()]
    words += [] if speed is None else [f"{speed:.3g} images/s"]
    words += [] if wait is None else [f"{wait:.0%} waiting for data"]
    words += [] if memory is None else [f"{memory:.1f} GiB on the device"]
    return ", ".join(words)


def seconds_left(
    settings: TrainConfig,
    epoch: int,
    *,
    seconds_per_step: float | None,
    steps_per_epoch: int,
    seconds_per_evaluation: float | None,
) -> float | None:
    """Estimate the seconds left after ``epoch``; None if unknown, or if it was the last.

    Args:
        epoch: counted from 0.
        seconds_per_step: without compilations, None if unknown.
        seconds_per_evaluation: None if there is none.
    """
    rest = range(epoch + 1, settings.epochs)
    if seconds_per_step is None or not rest:
        return None
    evaluations = sum(is_evaluated(settings, number) for number in rest)
    return len(rest) * steps_per_epoch * seconds_per_step + evaluations * (
        seconds_per_evaluation or 0.0
    )


def tell_epoch(
    settings: TrainConfig,
    epoch: int,
    values: Mapping[str, float],
    *,
    seconds: float,
    left: float | None,
) -> None:
    """Log the line about the training of an epoch."""
    logger.info(
        "epoch %d/%d: %s, %s%s",
        epoch + 1,
        settings.epochs,
        in_words(values),
        duration(seconds),
        "" if left is None else f", {duration(left)} left",
    )


def tell_evaluation(
    settings: TrainConfig, epoch: int, values: Mapping[str, float], best: tuple[int, float]
) -> None:
    """Log the line about the evaluation of an epoch; ``best`` is (epoch, value)."""
    logger.info(
        "epoch %d: AP %.4f AP50 %.4f (best %s %.4f in epoch %d)",
        epoch + 1,
        values["AP"],
        values["AP50"],
        settings.best_metric,
        best[1],
        best[0] + 1,
    )


def doubt_best(settings: TrainConfig, path: Path, epoch: int, value: float) -> None:
    """Warn if the best epoch has not detected anything."""
    if value > 0:
        return
    logger.warning(
        "%s holds epoch %d with %s %g: %s",
        path,
        epoch + 1,
        settings.best_metric,
        value,
        "nothing was found yet; the first epoch that finds something replaces it"
        if value == 0
        else "data.val has no box that counts, so no epoch can be better",
    )

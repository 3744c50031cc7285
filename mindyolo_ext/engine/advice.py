"""Warn before the first step about settings that are valid but hardly intended."""

import logging
from collections.abc import Iterator

from mindyolo_ext.config import Config, TrainConfig
from mindyolo_ext.engine.schedule import Schedule

logger = logging.getLogger(__name__)
_MUCH_LEFT_OUT = 0.2  # share of the images that do not fill a batch
_LONGEST_LOOK = 20_000  # iterations searched for an update


def advise(
    config: Config, schedule: Schedule, *, images: int, steps_per_epoch: int, world_size: int
) -> None:
    """Log a warning for each of ``doubts``."""
    for doubt in doubts(
        config,
        schedule,
        images=images,
        steps_per_epoch=steps_per_epoch,
        world_size=world_size,
    ):
        logger.warning("%s", doubt)


def doubts(
    config: Config, schedule: Schedule, *, images: int, steps_per_epoch: int, world_size: int
) -> Iterator[str]:
    """Describe settings under which a run learns little.

    Args:
        schedule: of the run.
        images: to train on.
        steps_per_epoch: of the run.
        world_size: number of ranks.
    """
    settings = config.train
    yield from _rates(settings, schedule, steps_per_epoch)
    yield from _stages(settings)
    if not any(schedule.updates_at(k) for k in _first_epoch(settings, schedule, steps_per_epoch)):
        yield (
            f"train.optimizer: no update in {_epochs(settings)} of {steps_per_epoch} step(s), "
            f"because {schedule.accumulate} micro batches make one; the weights never change. Use "
            "a smaller accumulate or nominal_batch, or smaller batches"
        )
    batch = settings.per_batch_size * world_size
    left_out = images - steps_per_epoch * batch
    if left_out > _MUCH_LEFT_OUT * images:
        yield (
            f"train.per_batch_size: {left_out} of {images} images do not fill a batch of {batch} "
            "and are left out, different ones in every epoch; a smaller batch leaves out "
            "fewer"
        )


def _epochs(settings: TrainConfig) -> str:
    return "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"


def _first_epoch(settings: TrainConfig, schedule: Schedule, steps_per_epoch: int) -> range:
    """Iterations that must contain an update: those of one epoch if gradients left over at its end
    are dropped.
    """
    whole = steps_per_epoch if settings.optimizer.accumulate_within_epoch else schedule.total
    return range(min(whole, _LONGEST_LOOK))


def _rates(settings: TrainConfig, schedule: Schedule, steps_per_epoch: int) -> Iterator[str]:
    """Warm-up or final phase too long for a short training."""
    wanted, total, warmup = settings.schedule, schedule.total, schedule.warmup
    length = f"{warmup / steps_per_epoch:.3g}"
    if wanted.decay == "one_cycle":
        return  # one_cycle logs its own warning
    if warmup >= total:
        reached = max(schedule.rates(total - 1))
        yield (
            f"train.schedule: the warm-up takes {length} epochs and the training has "
            f"{settings.epochs}, so the learning rate rises to {reached:.3g} at most, of "
            f"{schedule.base:.3g}. Use more epochs, or a shorter warmup_epochs or "
            "warmup_min_steps"
        )
    elif wanted.decay == "cosine" and wanted.flat_epochs * steps_per_epoch >= total - warmup:
        yield (
            f"train.schedule: the last {wanted.flat_epochs} epochs have the final learning rate, "
            f"{schedule.base * wanted.final_ratio:.3g}, and the training has {settings.epochs}, "
            f"{length} of them warm-up: none are left in between, and hardly anything is learned. "
            "Use more epochs, or --set train.schedule.flat_epochs=0"
        )


def _stages(settings: TrainConfig) -> Iterator[str]:
    """Stages that cover the whole training, or that never begin."""
    for number, stage in enumerate(settings.stages):
        if stage.from_epoch < 0 and -stage.from_epoch >= settings.epochs:
            changes = " and ".join(
                name for name in ("augment", "loss") if getattr(stage, name) not in (None, {})
            )
            if changes:
                yield (
                    f"train.stages[{number}]: is meant for the last {-stage.from_epoch} epochs, "
                    f"and the training has {settings.epochs}, so its settings of {changes} "
                    "apply from the first epoch on. Use more epochs, or a later from_epoch"
                )
        elif stage.from_epoch >= settings.epochs:
            yield (
                f"train.stages[{number}]: begins at epoch {stage.from_epoch}, counted from 0, and "
                f"the training has {settings.epochs}; it is never reached"
            )

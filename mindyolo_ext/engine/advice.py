"""Warnings before the first step that save a day: what a recipe says, but hardly means."""

import logging
from collections.abc import Iterator

from mindyolo_ext.config import Config, TrainConfig
from mindyolo_ext.engine.schedule import Schedule

logger = logging.getLogger(__name__)
_MUCH_LEFT_OUT = 0.2  # share of the images that fill no batch
_LONGEST_LOOK = 20_000  # iterations among which an update is looked for


def advise(
    config: Config, schedule: Schedule, *, images: int, steps_per_epoch: int, world_size: int
) -> None:
    """Log what ``doubts`` finds."""
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
    """Settings under which a run learns little, in words.

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
            f"train.optimizer: no update in {_epochs(settings)} of {steps_per_epoch} step(s), for "
            f"{schedule.accumulate} micro batches make one; the weights stay as they are. Take a "
            "smaller accumulate or nominal_batch, or smaller batches"
        )
    batch = settings.per_batch_size * world_size
    left_out = images - steps_per_epoch * batch
    if left_out > _MUCH_LEFT_OUT * images:
        yield (
            f"train.per_batch_size: {left_out} of {images} images fill no whole batch of {batch} "
            "and are left out of every epoch, other ones each time; a smaller batch leaves out "
            "fewer"
        )


def _epochs(settings: TrainConfig) -> str:
    return "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"


def _first_epoch(settings: TrainConfig, schedule: Schedule, steps_per_epoch: int) -> range:
    """Iterations among which an update has to come: those of an epoch if gradients that its end
    leaves without one are dropped.
    """
    whole = steps_per_epoch if settings.optimizer.accumulate_within_epoch else schedule.total
    return range(min(whole, _LONGEST_LOOK))


def _rates(settings: TrainConfig, schedule: Schedule, steps_per_epoch: int) -> Iterator[str]:
    """Parts of a schedule that fill a short training."""
    wanted, total, warmup = settings.schedule, schedule.total, schedule.warmup
    length = f"{warmup / steps_per_epoch:.3g}"
    if wanted.decay == "one_cycle":
        return  # which says so itself
    if warmup >= total:
        reached = max(schedule.rates(total - 1))
        yield (
            f"train.schedule: the warm-up takes {length} epochs and the training has "
            f"{settings.epochs}, so the learning rate climbs to {reached:.3g} at most, of "
            f"{schedule.base:.3g}. Take more epochs, or a shorter warmup_epochs or "
            "warmup_min_steps"
        )
    elif wanted.decay == "cosine" and wanted.flat_epochs * steps_per_epoch >= total - warmup:
        yield (
            f"train.schedule: the last {wanted.flat_epochs} epochs have the final learning rate, "
            f"{schedule.base * wanted.final_ratio:.3g}, and the training has {settings.epochs}, "
            f"{length} of them warm-up: nothing lies between, and hardly anything is learned. Take "
            f"more epochs, or --set train.schedule.flat_epochs=0"
        )


def _stages(settings: TrainConfig) -> Iterator[str]:
    """Stages that hide what the recipe itself says, or that never come."""
    for number, stage in enumerate(settings.stages):
        if stage.from_epoch < 0 and -stage.from_epoch >= settings.epochs:
            changes = " and ".join(
                name for name in ("augment", "loss") if getattr(stage, name) not in (None, {})
            )
            if changes:
                yield (
                    f"train.stages[{number}]: is meant for the last {-stage.from_epoch} epochs, "
                    f"and the training has {settings.epochs}, so what it says of {changes} holds "
                    "from the first epoch on. Take more epochs, or a later from_epoch"
                )
        elif stage.from_epoch >= settings.epochs:
            yield (
                f"train.stages[{number}]: begins at epoch {stage.from_epoch}, counted from 0, and "
                f"the training has {settings.epochs}; it never comes"
            )

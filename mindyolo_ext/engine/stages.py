"""Loss, augmentation and evaluations of a recipe by epoch. Loads no framework."""

from mindyolo_ext.config import Config, StageConfig, TrainConfig


def stages_in_force(settings: TrainConfig, epoch: int) -> list[StageConfig]:
    """The stages that have begun by ``epoch``, the latest one last. A ``from_epoch`` of -16 means
    16 epochs before the end.
    """

    def begin(stage: StageConfig) -> int:
        return (
            stage.from_epoch
            if stage.from_epoch >= 0
            else max(0, settings.epochs + stage.from_epoch)
        )

    return [stage for stage in sorted(settings.stages, key=begin) if begin(stage) <= epoch]


def stage_at(config: Config, epoch: int) -> tuple[dict, list]:
    """(loss keywords, augmentation steps) in ``epoch``; later stages override what they name."""
    loss, augment = dict(config.train.loss), list(config.data.augment)
    for stage in stages_in_force(config.train, epoch):
        loss |= stage.loss
        augment = list(stage.augment) if stage.augment is not None else augment
    return loss, augment


def is_evaluated(settings: TrainConfig, epoch: int) -> bool:
    """Whether ``epoch`` ends with an evaluation: at multiples of the current interval, and in the
    last epoch.
    """
    interval = settings.eval_interval
    for stage in stages_in_force(settings, epoch):
        interval = stage.eval_interval if stage.eval_interval is not None else interval
    return (epoch + 1) % interval == 0 or epoch + 1 == settings.epochs


def all_losses(config: Config) -> list[dict]:
    """The loss of every stage, without repetition, in the order of the epochs."""
    found: list[dict] = []
    for epoch in range(max(config.train.epochs, 1)):
        loss, _ = stage_at(config, epoch)
        if loss not in found:
            found.append(loss)
    return found


def all_augmentations(config: Config) -> list[list]:
    """The augmentations of every stage, even of those after the end of the training."""
    stages = [stage.augment for stage in config.train.stages if stage.augment is not None]
    return [config.data.augment, *stages]

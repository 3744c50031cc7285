"""Build the parts of a training run that all its stages share: network, teacher, shapes."""

import logging
from collections.abc import Mapping

import numpy as np

from mindyolo_ext.backend import precision, recompute, tuning
from mindyolo_ext.backend.distributed import freeze_batch_norm, synchronize_batch_norm
from mindyolo_ext.backend.launch import world
from mindyolo_ext.backend.parameters import freeze
from mindyolo_ext.config import Config
from mindyolo_ext.contracts import Model
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.rectangles import RectangularEpochs
from mindyolo_ext.data.targets import padded_count
from mindyolo_ext.engine.build import (
    has_folded_norms,
    load_teacher,
    new_model,
    new_trainable,
    start_from,
    training_pipeline,
)
from mindyolo_ext.engine.rectangular import rectangular_epochs
from mindyolo_ext.engine.stages import all_augmentations, all_losses

logger = logging.getLogger(__name__)


def training_model(
    config: Config, num_classes: int, start: Mapping[str, np.ndarray] | None
) -> Model:
    """Create the network with its start weights, frozen parts and type of batch norm."""
    settings, ranks = config.train, world().size
    model = new_model(config, num_classes)
    if start is not None:
        start_from(model, settings.weight, start)
        if has_folded_norms(model) and not settings.freeze_bn:
            logger.warning(
                "%s: its batch norms are identities (folded into the kernels); batch "
                "statistics would destroy what it has learned. Set train.freeze_bn=true",
                settings.weight,
            )
    if settings.freeze:
        logger.info("%d parameters are frozen", freeze(model, settings.freeze))
    if settings.freeze_bn:
        freeze_batch_norm(model)
    elif settings.sync_bn and ranks > 1:
        count = synchronize_batch_norm(model)
        logger.info("%d batch norms are synchronized over %d ranks", count, ranks)
    precision.apply(model, settings.amp_level, settings.amp_dtype)
    if settings.channels_last:
        tuning.use_channels_last(model)
    if settings.recompute:
        logger.info("%d stages are recomputed in backward passes", recompute.apply(model))
    return model


def training_teacher(config: Config, model: Model, dataset: Dataset) -> Model | None:
    """Load the network that ``model`` learns from, if the recipe names one."""
    settings = config.train
    if not settings.distill.teacher:
        return None
    teacher = load_teacher(settings.distill.teacher, model, dataset)
    if settings.sync_bn and not settings.freeze_bn and world().size > 1:
        synchronize_batch_norm(teacher)
    if settings.freeze_bn:
        freeze_batch_norm(teacher)
    precision.apply(teacher, settings.amp_level, settings.amp_dtype)
    if settings.channels_last:
        tuning.use_channels_last(teacher)
    return teacher


def most_boxes(config: Config, model: Model, dataset: Dataset) -> int:
    """M of all batches, so that no stage changes their shape: the recipe's, or what the images can
    need.
    """
    if config.data.max_boxes:
        return config.data.max_boxes
    most = max(
        training_pipeline(steps, model.input_spec, dataset).max_boxes
        for steps in all_augmentations(config)
    )
    return padded_count(most)


def training_rectangles(config: Config, model: Model, dataset: Dataset) -> RectangularEpochs | None:
    """The batches of a rectangular training; None without ``train.rectangular``."""
    settings = config.train
    if not settings.rectangular:
        return None
    batch = settings.per_batch_size * world().size
    return rectangular_epochs(dataset, settings, model.input_spec, batch)


def check_losses(config: Config, model: Model, teacher: Model | None) -> None:
    """Validate every stage's loss up front. Raises: ConfigError."""
    for loss in all_losses(config):
        new_trainable(model, loss, teacher)

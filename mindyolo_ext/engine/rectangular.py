"""Rectangular training: choose the images of each batch, and switch mosaics off."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mindyolo_ext.config import TrainConfig
from mindyolo_ext.data.augment.registry import find_augmentation
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.rectangles import RectangularEpochs
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.registry import load_augmentations

logger = logging.getLogger(__name__)


def rectangular_epochs(
    dataset: Dataset, settings: TrainConfig, input_spec: InputSpec, global_batch: int
) -> RectangularEpochs:
    """The batches of a rectangular training; logs the input sizes.

    Args:
        dataset: training images, whose headers are read.
        global_batch: images per step over all ranks.
    """
    sizes = np.array([dataset.size(i) for i in range(len(dataset))], np.float64).reshape(-1, 2)
    epochs = RectangularEpochs(
        sizes,
        global_batch,
        input_spec,
        most_sizes=settings.rectangular_sizes,
        seed=settings.seed,
    )
    found = epochs.frames if epochs.frames is not None else sorted(set(epochs.inputs(0)))
    logger.info(
        "rectangular training: inputs of %s", ", ".join(f"{high}x{wide}" for high, wide in found)
    )
    return epochs


def without_mosaics(steps: Sequence[str | Mapping[str, Any]]) -> list[str | Mapping[str, Any]]:
    """Switch mosaics off, as the originals do for rectangles: a mosaic fills its input whatever the
    shapes of its images.
    """
    load_augmentations()
    found: list[str | Mapping[str, Any]] = []
    for step in steps:
        described = {"name": step} if isinstance(step, str) else dict(step)
        if find_augmentation(described["name"]).is_mosaic:
            logger.info("rectangular training: %s has probability 0", described["name"])
            found.append({**described, "probability": 0.0})
        else:
            found.append(step)
    return found

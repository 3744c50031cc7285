"""Estimate the memory of a training step from shapes, before the first step."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mindyolo_ext.backend import Tensor
from mindyolo_ext.backend.launch import device, world
from mindyolo_ext.backend.memory import device_memory
from mindyolo_ext.backend.mode import eager
from mindyolo_ext.backend.observe import watched_layers
from mindyolo_ext.config import Config
from mindyolo_ext.contracts import Model
from mindyolo_ext.engine.build import new_model
from mindyolo_ext.engine.schedule import micro_batches

logger = logging.getLogger(__name__)
_FLOAT32 = 4  # bytes
_GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one rank.

    Args:
        weights: parameters and statistics.
        training: gradient, optimizer state, sums of micro batches and moving average.
        activations: outputs of the layers for a batch, kept for the backward pass.
    """

    weights: int
    training: int
    activations: int

    @property
    def total(self) -> int:
        """Sum of all three."""
        return self.weights + self.training + self.activations

    def in_words(self, images: int) -> str:
        """Describe the estimate for a batch of ``images``."""
        return (
            f"about {_gib(self.total)} for a step: {_gib(self.weights)} weights, "
            f"{_gib(self.training)} gradient, optimizer and moving average, "
            f"{_gib(self.activations)} outputs of the layers for {images} image(s); estimated from "
            "shapes, without the loss and the framework's own memory"
        )


def _gib(count: int) -> str:
    return f"{count / _GIB:.2f} GiB"


def tell_memory(config: Config, num_classes: int) -> None:
    """Log the estimate for a recipe, and warn if the device has less memory.

    Skipped on Ascend, where each layer would have to be compiled.
    """
    if device() == "Ascend":
        return
    settings = config.train
    model = new_model(config, num_classes).set_train(False)
    accumulate = micro_batches(settings.optimizer, settings.per_batch_size * world().size)
    largest = [max(settings.multi_scale)] * 2 if settings.multi_scale else model.input_spec.size
    estimate = estimate_memory(config, model, accumulate=accumulate, size=largest)
    logger.info("memory: %s", estimate.in_words(settings.per_batch_size))
    there = device_memory()
    if there is not None and estimate.total > there:
        logger.warning(
            "memory: the device has %s, so the first step may fail; use a smaller "
            "train.per_batch_size, with train.optimizer.accumulate for the same batch per update",
            _gib(there),
        )


def estimate_memory(
    config: Config, model: Model, *, accumulate: int, size: Sequence[int]
) -> MemoryEstimate:
    """Estimate the memory of a step of ``config``.

    The outputs of layers are counted on two small images and extrapolated by area. Do not use the
    network of the training itself, because hooks are attached to its layers.

    Args:
        model: a separate network of the recipe, in inference mode.
        accumulate: micro batches per update.
        size: (height, width) of the largest input.
    """
    settings = config.train
    trained = sum(int(np.prod(p.shape)) for p in model.trainable_params())
    every = sum(int(np.prod(p.shape)) for p in model.get_parameters())
    copies = 1 + (1 if settings.optimizer.name == "sgd" else 2) + (accumulate > 1)
    training = copies * trained + (every if settings.ema_decay > 0 else 0)
    per_image = _outputs(model, size)
    halves = 2 if settings.amp_level in ("O2", "O3") else 1
    return MemoryEstimate(
        _FLOAT32 * every,
        _FLOAT32 * training,
        round(_FLOAT32 * per_image * settings.per_batch_size / halves),
    )


def _outputs(model: Model, size: Sequence[int]) -> float:
    """Number of values in the outputs of all layers for one image of ``size``."""
    small = max(model.strides)
    with eager():
        counts = [_count(model, side) for side in (small, 2 * small)]
    per_pixel = (counts[1] - counts[0]) / (3 * small**2)
    fixed = counts[0] - per_pixel * small**2
    return fixed + per_pixel * size[0] * size[1]


def _count(model: Model, side: int) -> int:
    """Number of values in the outputs of the innermost layers."""
    leaves = {name for name, cell in model.cells_and_names() if not cell.name_cells()}
    total = 0

    def add(name: str, _: Any, output: Any) -> None:
        nonlocal total
        if name in leaves:
            outputs = output if isinstance(output, (tuple, list)) else (output,)
            total += sum(int(np.prod(one.shape)) for one in outputs)

    with watched_layers(model, add):
        model(Tensor(np.zeros((1, 3, side, side), np.float32)))
    return total

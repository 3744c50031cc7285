"""Initial weights, drawn with NumPy, so that a seed gives the same ones on every backend."""

import math
from collections.abc import Callable

import numpy as np

from mindyolo_ext.backend import Tensor
from mindyolo_ext.backend.choice import BACKEND


class _State:
    """The generator; without a seed every process draws its own numbers."""

    numbers = np.random.RandomState()


def seed(value: int) -> None:
    """Restart the generator."""
    _State.numbers = np.random.RandomState(value)


def uniform_of_fan(shape: tuple[int, ...], fan_in: int) -> Tensor:
    """Uniform within 1 / sqrt(``fan_in``), as PyTorch starts weights and biases of convolutions."""
    bound = 1.0 / math.sqrt(fan_in)
    return _drawn(shape, lambda: _State.numbers.uniform(-bound, bound, shape))


def he_normal(shape: tuple[int, ...], mode: str = "fan_in") -> Tensor:
    """Normal with variance 2 over the number of inputs, or of outputs for ``mode`` fan_out.

    Args:
        shape: (out_channels, in_channels / group, height, width).
    """
    fan = math.prod(shape[2:]) * shape[1 if mode == "fan_in" else 0]
    return _drawn(shape, lambda: _State.numbers.normal(0.0, math.sqrt(2.0 / fan), shape))


def constant(shape: tuple[int, ...], value: float) -> Tensor:
    """``value`` everywhere."""
    return Tensor(np.full(shape, value, np.float32))


def _drawn(shape: tuple[int, ...], draw: Callable[[], np.ndarray]) -> Tensor:
    """What ``draw`` gives, as float32; nothing is drawn where parameters are only declared."""
    if BACKEND == "shapes":
        return Tensor(np.broadcast_to(np.zeros((), np.float32), shape))
    return Tensor(draw().astype(np.float32))

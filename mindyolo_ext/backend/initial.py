"""Draw initial weights with NumPy, so that a seed gives the same weights on every backend."""

import math
from collections.abc import Callable

import numpy as np

from mindyolo_ext.backend import Tensor
from mindyolo_ext.backend.choice import BACKEND


class _State:
    """Random generator; without a seed every process draws different numbers."""

    numbers = np.random.RandomState()


def seed(value: int) -> None:
    """Seed the generator."""
    _State.numbers = np.random.RandomState(value)


def uniform_of_fan(shape: tuple[int, ...], fan_in: int) -> Tensor:
    """Draw uniformly within 1 / sqrt(``fan_in``), PyTorch's default for convolutions."""
    bound = 1.0 / math.sqrt(fan_in)
    return _drawn(shape, lambda: _State.numbers.uniform(-bound, bound, shape))


def he_normal(shape: tuple[int, ...], mode: str = "fan_in") -> Tensor:
    """Draw from a normal distribution with variance 2 / number of inputs (outputs for ``mode``
    fan_out).

    Args:
        shape: (out_channels, in_channels / group, height, width).
    """
    fan = math.prod(shape[2:]) * shape[1 if mode == "fan_in" else 0]
    return _drawn(shape, lambda: _State.numbers.normal(0.0, math.sqrt(2.0 / fan), shape))


def constant(shape: tuple[int, ...], value: float) -> Tensor:
    """Return an array filled with ``value``."""
    return Tensor(np.full(shape, value, np.float32))


def _drawn(shape: tuple[int, ...], draw: Callable[[], np.ndarray]) -> Tensor:
    """Return the result of ``draw`` as float32; draw nothing if parameters are only declared."""
    if BACKEND == "shapes":
        return Tensor(np.broadcast_to(np.zeros((), np.float32), shape))
    return Tensor(draw().astype(np.float32))

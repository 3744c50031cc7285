"""Operators that constructors refer to; none of them computes."""

from collections.abc import Callable
from typing import Any


def constexpr(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function that a graph evaluates once."""
    return function


class Conv2D:
    """Convolution with kernels given as an argument."""

    def __init__(self, out_channel: int, kernel_size: int | tuple[int, int]):
        self.out_channel, self.kernel_size = out_channel, kernel_size


class BiasAdd:
    """Addition of one number per channel."""

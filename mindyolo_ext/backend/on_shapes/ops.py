"""The operators that constructors mention. None of them computes."""

from collections.abc import Callable
from typing import Any


def constexpr(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of what a graph computes once."""
    return function


class Conv2D:
    """Convolution of an image with kernels that it is given."""

    def __init__(self, out_channel: int, kernel_size: int | tuple[int, int]):
        self.out_channel, self.kernel_size = out_channel, kernel_size


class BiasAdd:
    """Addition of one number per channel."""

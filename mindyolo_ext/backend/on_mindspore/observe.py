"""Hooks on the outputs of a network's layers, operator by operator."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mindspore import Tensor, ops


@contextmanager
def watched_convolutions(seen: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Call ``seen`` with weight and output of every convolution, also one outside any layer."""
    plain = ops.Conv2D.__call__

    def watched(self: ops.Conv2D, x: Tensor, weight: Tensor) -> Tensor:
        output = plain(self, x, weight)
        seen(weight, output)
        return output

    ops.Conv2D.__call__ = watched  # layers have hooks, operators do not
    try:
        yield
    finally:
        ops.Conv2D.__call__ = plain

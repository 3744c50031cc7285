"""Hooks that see what the layers of a network compute, operator by operator."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mindspore import Tensor, nn, ops

from mindyolo_ext.contracts import Cell


@contextmanager
def watched_layers(
    network: Cell, seen: Callable[[str, nn.Cell, Any], None], *, kind: type[nn.Cell] = nn.Cell
) -> Iterator[None]:
    """Call ``seen`` with name, layer and output whenever a layer below ``network`` has run.

    Args:
        network: whose layers are watched, itself excluded.
        seen: called inside the block.
        kind: class of the layers to watch.
    """

    def hook(name: str) -> Callable[[nn.Cell, Any, Any], None]:
        def tell(layer: nn.Cell, _: Any, output: Any) -> None:
            seen(name, layer, output)

        return tell

    handles = [
        layer.register_forward_hook(hook(name))
        for name, layer in network.cells_and_names()
        if name and isinstance(layer, kind)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watched_convolutions(seen: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Call ``seen`` with weight and output of every convolution, also one outside any layer."""
    plain = ops.Conv2D.__call__

    def watched(self: ops.Conv2D, x: Tensor, weight: Tensor) -> Tensor:
        output = plain(self, x, weight)
        seen(weight, output)
        return output

    ops.Conv2D.__call__ = watched  # layers have hooks, operators have not
    try:
        yield
    finally:
        ops.Conv2D.__call__ = plain

"""Hooks that see what the layers of a network compute."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from mindyolo_ext.backend.on_torch import nn


@contextmanager
def watched_layers(
    network: nn.Cell, seen: Callable[[str, nn.Cell, Any], None], *, kind: type[nn.Cell] = nn.Cell
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


class _Convolutions(TorchFunctionMode):
    """Tells of every convolution that runs."""

    def __init__(self, seen: Callable[[torch.Tensor, torch.Tensor], None]):
        super().__init__()
        self.seen = seen

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple = (), keywords: dict | None = None
    ) -> Any:
        output = function(*arguments, **(keywords or {}))
        if function is torch.conv2d:
            self.seen(arguments[1], output)
        return output


@contextmanager
def watched_convolutions(seen: Callable[[torch.Tensor, torch.Tensor], None]) -> Iterator[None]:
    """Call ``seen`` with weight and output of every convolution, also one outside any layer."""
    with _Convolutions(seen):
        yield

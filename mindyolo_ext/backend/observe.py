"""Hooks on the outputs of a network's layers. They need ``mode.eager``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mindyolo_ext.backend import nn
from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.observe import watched_convolutions
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.observe import watched_convolutions

__all__ = ["watched_convolutions", "watched_layers"]


@contextmanager
def watched_layers(
    network: nn.Cell, seen: Callable[[str, nn.Cell, Any], None], *, kind: type[nn.Cell] = nn.Cell
) -> Iterator[None]:
    """Call ``seen`` with name, layer and output whenever a layer below ``network`` has run.

    Args:
        network: network whose layers are observed, itself excluded.
        seen: function to call.
        kind: class of the layers to observe.
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

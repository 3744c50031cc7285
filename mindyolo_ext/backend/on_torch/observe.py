"""Hooks on the outputs of a network's layers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _Convolutions(TorchFunctionMode):
    """Call a function for every convolution that runs."""

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

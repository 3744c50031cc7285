"""Cells as functions of NumPy arrays."""

import numpy as np
import torch
from numpy.typing import DTypeLike

from mindyolo_ext.backend.on_torch.device import device, on_device
from mindyolo_ext.backend.on_torch.errors import explained
from mindyolo_ext.backend.on_torch.values import Tensor
from mindyolo_ext.contracts import Cell


class Compiled:
    """A cell as a function of arrays. Nothing is compiled; PyTorch runs operator by operator, on
    the device where the cell was created.

    Args:
        cell: cell to run; it is set to inference mode.
        fetched: number of leading outputs to return as arrays; the others stay on the device as
            tensors, for other cells. None returns all.
    """

    def __init__(self, cell: Cell, *, fetched: int | None = None):
        self.cell = cell.set_train(False)
        self.fetched = fetched
        self.device = device()
        self._shapes: set[tuple[tuple[int, ...], ...]] = set()

    def __call__(self, *inputs: np.ndarray | torch.Tensor) -> tuple:
        """Run the cell and return all outputs in order; one output is a tuple of one."""
        self.compile(*(tuple(x.shape) for x in inputs))
        with (
            torch.no_grad(),
            on_device(self.device),
            explained("network", "use a smaller batch or input"),
        ):
            tensors = (
                x.to(self.device) if isinstance(x, torch.Tensor) else Tensor(x) for x in inputs
            )
            outputs = self.cell(*tensors)
            outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
            fetched = tuple(output.asnumpy() for output in outputs[: self.fetched])
        return (*fetched, *outputs[len(fetched) :])

    def compile(self, *shapes: tuple[int, ...], dtype: DTypeLike = np.float32) -> None:  # noqa: ARG002
        """Record ``shapes``; nothing has to be prepared for them."""
        self._shapes.add(shapes)

    @property
    def graphs(self) -> int:
        """Number of combinations of input shapes so far, each of which would be a graph."""
        return len(self._shapes)

"""Cells as compiled functions of NumPy arrays."""

import numpy as np
from mindspore import Tensor
from numpy.typing import DTypeLike

from mindyolo_ext.backend.lock import framework_lock
from mindyolo_ext.backend.on_mindspore.errors import explained
from mindyolo_ext.contracts import Cell


class Compiled:
    """A cell as a function of arrays, with one graph per combination of input shapes.

    Threads may call it at the same time; they run one after the other.

    Args:
        cell: put in inference mode.
        fetched: how many of the first outputs are returned as arrays; the others stay on the device
            as tensors, for other cells to read. None: all.
    """

    def __init__(self, cell: Cell, *, fetched: int | None = None):
        self.cell = cell.set_train(False)
        self.fetched = fetched

    def __call__(self, *inputs: np.ndarray | Tensor) -> tuple:
        """All outputs, in the cell's order; a cell with one output gives a tuple of one."""
        with framework_lock, explained("network", "choose a smaller batch or input"):
            return self._run(*inputs)

    def _run(self, *inputs: np.ndarray | Tensor) -> tuple:
        """A function of its own, so that its tensors are freed before the lock is."""
        outputs = self.cell(*(x if isinstance(x, Tensor) else Tensor(x) for x in inputs))
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        fetched = tuple(output.asnumpy() for output in outputs[: self.fetched])
        return (*fetched, *outputs[len(fetched) :])

    def compile(self, *shapes: tuple[int, ...], dtype: DTypeLike = np.float32) -> None:
        """Compile for inputs of ``shapes`` without running."""
        with framework_lock, explained("network", "choose a smaller batch or input"):
            self.cell.compile(*(Tensor(np.zeros(shape, dtype)) for shape in shapes))

    @property
    def graphs(self) -> int:
        """How many graphs were compiled so far."""
        return len(self.cell.compile_cache)

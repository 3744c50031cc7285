"""Cells as compiled functions of NumPy arrays."""

import numpy as np
from mindspore import Tensor
from numpy.typing import DTypeLike

from mindyolo_ext.backend.lock import framework_lock
from mindyolo_ext.backend.on_mindspore.errors import explained
from mindyolo_ext.contracts import Cell


class Compiled:
    """A cell as a function of arrays, with one graph per combination of input shapes.

    Threads may call it concurrently; calls run one at a time.

    Args:
        cell: cell to run; it is set to inference mode.
        fetched: number of leading outputs to return as arrays; the others stay on the device as
            tensors, for other cells. None returns all.
    """

    def __init__(self, cell: Cell, *, fetched: int | None = None):
        self.cell = cell.set_train(False)
        self.fetched = fetched

    def __call__(self, *inputs: np.ndarray | Tensor) -> tuple:
        """Run the cell and return all outputs in order; one output is a tuple of one."""
        with framework_lock, explained("network", "use a smaller batch or input"):
            return self._run(*inputs)

    def _run(self, *inputs: np.ndarray | Tensor) -> tuple:
        """Run in a separate function, so that its tensors are freed before the lock is released."""
        outputs = self.cell(*(x if isinstance(x, Tensor) else Tensor(x) for x in inputs))
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        fetched = tuple(output.asnumpy() for output in outputs[: self.fetched])
        return (*fetched, *outputs[len(fetched) :])

    def compile(self, *shapes: tuple[int, ...], dtype: DTypeLike = np.float32) -> None:
        """Compile for inputs of ``shapes`` without running."""
        with framework_lock, explained("network", "use a smaller batch or input"):
            self.cell.compile(*(Tensor(np.zeros(shape, dtype)) for shape in shapes))

    @property
    def graphs(self) -> int:
        """Number of compiled graphs."""
        return len(self.cell.compile_cache)

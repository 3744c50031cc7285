"""Communication between ranks, inside graphs and on the host. It costs nothing with one process."""

from collections.abc import Sequence

import numpy as np

from mindyolo_ext.backend import Parameter, Tensor, nn
from mindyolo_ext.backend.choice import BACKEND
from mindyolo_ext.backend.processes import world
from mindyolo_ext.contracts import Cell
from mindyolo_ext.errors import DeviceError

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.distributed import (
        GlobalSum,
        SyncBatchNorm2d,
        sum_over_ranks,
    )
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.distributed import (
        GlobalSum,
        SyncBatchNorm2d,
        sum_over_ranks,
    )

__all__ = [
    "GlobalSum",
    "SyncBatchNorm2d",
    "average_over_ranks",
    "barrier",
    "check_same_weights",
    "freeze_batch_norm",
    "gather_rows",
    "sum_over_ranks",
    "synchronize_batch_norm",
]
_CHUNK_ROWS = 4096


def synchronize_batch_norm(cell: Cell) -> int:
    """Replace every ``nn.BatchNorm2d`` below ``cell``, a whole network, by ``SyncBatchNorm2d``.
    Return their number.
    """
    count = _synchronize(cell)
    for name, parameter in cell.parameters_and_names():
        parameter.name = name  # the replacement set only the last part of the name
    return count


def _synchronize(cell: Cell) -> int:
    """Replace the norms below ``cell``."""
    count = 0
    for name, child in list(cell.name_cells().items()):
        if isinstance(child, nn.BatchNorm2d):
            replacement = SyncBatchNorm2d(child)
            if isinstance(cell, (nn.SequentialCell, nn.CellList)):
                cell[int(name)] = replacement
            else:
                setattr(cell, name, replacement)
            count += 1
        else:
            count += _synchronize(child)
    return count


def freeze_batch_norm(cell: Cell) -> int:
    """Let every ``nn.BatchNorm2d`` below ``cell`` use its stored statistics in training too. Return
    their number.
    """
    norms = [c for c in cell.cells_and_names() if isinstance(c[1], nn.BatchNorm2d)]
    for _, norm in norms:
        norm.use_batch_statistics = False
    return len(norms)


def average_over_ranks(parameters: Sequence[Parameter]) -> None:
    """Average values (batch-norm statistics) over all ranks; do nothing with one process."""
    if world().size == 1 or not parameters:
        return
    flat = np.concatenate([p.asnumpy().reshape(-1) for p in parameters])
    mean, begin = sum_over_ranks(flat) / world().size, 0
    for parameter in parameters:
        size = int(np.prod(parameter.shape))
        parameter.set_data(Tensor(mean[begin : begin + size].reshape(parameter.shape)))
        begin += size


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """Concatenate the float32 rows (n_r, C) of all ranks -> (sum of n_r, C) on every rank."""
    this = world()
    if this.size == 1:
        return rows
    counts = np.zeros(this.size, np.float32)
    counts[this.rank] = len(rows)
    counts = sum_over_ranks(counts).astype(np.int64)
    parts = []
    for rank, count in enumerate(counts):
        for begin in range(0, int(count), _CHUNK_ROWS):
            chunk = np.zeros((_CHUNK_ROWS, rows.shape[1]), np.float32)  # one shape compiles once
            if rank == this.rank:
                part = rows[begin : begin + _CHUNK_ROWS]
                chunk[: len(part)] = part
            parts.append(sum_over_ranks(chunk)[: min(_CHUNK_ROWS, int(count) - begin)])
    return np.concatenate(parts) if parts else np.zeros((0, rows.shape[1]), np.float32)


def barrier() -> None:
    """Wait for every rank."""
    sum_over_ranks(np.zeros(1, np.float32))


def check_same_weights(cell: Cell) -> None:
    """Check that every rank starts from the same weights. Raises: DeviceError if not."""
    if world().size == 1:
        return
    sums = np.array(
        [p.asnumpy().astype(np.float64).sum() for p in cell.get_parameters()], np.float32
    )
    if not np.allclose(sum_over_ranks(sums), sums * world().size, rtol=1e-5, atol=1e-5):
        raise DeviceError(
            f"rank {world().rank}: its initial weights differ from those of the other ranks; "
            "do all ranks read the same --weight and --seed?"
        )

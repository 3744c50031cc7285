"""What the ranks do together, inside graphs and on the host. With one process all of it costs
nothing.

Only AllReduce is used: it is the one collective that MindSpore documents for Ascend, GPU and CPU.
"""

from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindyolo_ext.backend.launch import world

_CHUNK_ROWS = 4096


class GlobalSum(nn.Cell):
    """Sum of a tensor over all ranks; the tensor itself with one process. Carries no gradient.

    Losses divide by it (number of matches, batch size), so that the ranks' losses are shares of the
    global batch's loss.

    Shape: any -> the same.
    """

    def __init__(self):
        super().__init__()
        self.parallel = world().size > 1
        self.all_reduce = ops.AllReduce(ops.ReduceOp.SUM) if self.parallel else None

    def construct(self, x: Tensor) -> Tensor:
        x = ops.stop_gradient(x)
        return self.all_reduce(x) if self.parallel else x


class SyncBatchNorm2d(nn.Cell):
    """Batch normalisation whose training statistics cover the batches of all ranks.

    Takes the place of an ``nn.BatchNorm2d`` and keeps its parameters and their names. The running
    variance is the unbiased one, as in ``nn.BatchNorm2d``.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, source: nn.BatchNorm2d):
        super().__init__()
        self.gamma, self.beta = source.gamma, source.beta
        self.moving_mean, self.moving_variance = source.moving_mean, source.moving_variance
        # nn.BatchNorm2d stores 1 - momentum
        self.eps, self.momentum = source.eps, 1.0 - source.momentum
        self.size = world().size
        self.all_reduce = ops.AllReduce(ops.ReduceOp.SUM) if self.size > 1 else None

    def construct(self, x: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        mean, variance = self.moving_mean, self.moving_variance
        if self.training:
            count = x.shape[0] * x.shape[2] * x.shape[3] * self.size
            sums = ops.sum(x, (0, 2, 3))
            mean = (self.all_reduce(sums) if self.size > 1 else sums) / count
            centred = x - ops.reshape(mean, shape)
            squares = ops.sum(centred * centred, (0, 2, 3))
            variance = (self.all_reduce(squares) if self.size > 1 else squares) / count
            unbiased = ops.stop_gradient(variance) * (count / max(count - 1, 1))
            keep = self.momentum
            ops.assign(
                self.moving_mean, self.moving_mean * keep + ops.stop_gradient(mean) * (1.0 - keep)
            )
            ops.assign(self.moving_variance, self.moving_variance * keep + unbiased * (1.0 - keep))
            scale = self.gamma * ops.rsqrt(variance + self.eps)
            return centred * ops.reshape(scale, shape) + ops.reshape(self.beta, shape)
        scale = self.gamma * ops.rsqrt(variance + self.eps)
        return x * ops.reshape(scale, shape) + ops.reshape(self.beta - mean * scale, shape)


def synchronise_batch_norm(cell: nn.Cell) -> int:
    """Replace every ``nn.BatchNorm2d`` below ``cell``, a whole network, by ``SyncBatchNorm2d``;
    returns how many.
    """
    count = _synchronise(cell)
    for name, parameter in cell.parameters_and_names():
        parameter.name = name  # the replacement called it after its own place alone
    return count


def _synchronise(cell: nn.Cell) -> int:
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
            count += _synchronise(child)
    return count


def freeze_batch_norm(cell: nn.Cell) -> int:
    """Let every ``nn.BatchNorm2d`` below ``cell`` use its stored statistics in training too;
    returns how many.
    """
    norms = [c for c in cell.cells_and_names() if isinstance(c[1], nn.BatchNorm2d)]
    for _, norm in norms:
        norm.use_batch_statistics = False
    return len(norms)


class _AllReduce(nn.Cell):
    """Host-side all-reduce of one chunk."""

    def __init__(self):
        super().__init__()
        self.all_reduce = ops.AllReduce(ops.ReduceOp.SUM)

    def construct(self, x: Tensor) -> Tensor:
        return self.all_reduce(x)


def sum_over_ranks(values: np.ndarray) -> np.ndarray:
    """float32 array summed over the ranks; the array itself with one process."""
    if world().size == 1:
        return values
    return _AllReduce()(Tensor(np.ascontiguousarray(values, np.float32))).asnumpy()


def average_over_ranks(parameters: Sequence[Parameter]) -> None:
    """Give every rank the mean of its and the other ranks' values (batch-norm statistics);
    nothing with one process.
    """
    if world().size == 1 or not parameters:
        return
    flat = np.concatenate([p.asnumpy().reshape(-1) for p in parameters])
    mean, begin = sum_over_ranks(flat) / world().size, 0
    for parameter in parameters:
        size = int(np.prod(parameter.shape))
        parameter.set_data(Tensor(mean[begin : begin + size].reshape(parameter.shape)))
        begin += size


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """All ranks' float32 rows (n_r, C), one rank after the other -> (sum of n_r, C) on every
    rank.
    """
    this = world()
    if this.size == 1:
        return rows
    counts = np.zeros(this.size, np.float32)
    counts[this.rank] = len(rows)
    counts = sum_over_ranks(counts).astype(np.int64)
    reduce, parts = _AllReduce(), []
    for rank, count in enumerate(counts):
        for begin in range(0, int(count), _CHUNK_ROWS):
            chunk = np.zeros((_CHUNK_ROWS, rows.shape[1]), np.float32)  # one shape: one compilation
            if rank == this.rank:
                part = rows[begin : begin + _CHUNK_ROWS]
                chunk[: len(part)] = part
            parts.append(reduce(Tensor(chunk)).asnumpy()[: min(_CHUNK_ROWS, int(count) - begin)])
    return np.concatenate(parts) if parts else np.zeros((0, rows.shape[1]), np.float32)


def barrier() -> None:
    """Wait for every rank."""
    sum_over_ranks(np.zeros(1, np.float32))


def check_same_weights(cell: nn.Cell) -> None:
    """Make sure that every rank starts from the same weights. Raises: RuntimeError if one does
    not.
    """
    if world().size == 1:
        return
    sums = np.array(
        [p.asnumpy().astype(np.float64).sum() for p in cell.get_parameters()], np.float32
    )
    if not np.allclose(sum_over_ranks(sums), sums * world().size, rtol=1e-5, atol=1e-5):
        raise RuntimeError(
            f"rank {world().rank}: its start weights are not those of the other ranks; "
            "do all ranks read the same --weight and --seed?"
        )

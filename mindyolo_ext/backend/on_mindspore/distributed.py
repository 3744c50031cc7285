"""Sums over the ranks, inside graphs and on the host.

Only AllReduce is used: the only collective that MindSpore documents for Ascend, GPU and CPU.
"""

import functools

import numpy as np
from mindspore import Tensor, float32, nn, ops

from mindyolo_ext.backend.processes import world


class GlobalSum(nn.Cell):
    """Sum a tensor over all ranks, without gradient; with one process return it unchanged.

    Losses divide by such sums (number of matches, batch size), so that the losses of the ranks add
    up to the loss of the global batch.

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
    """Batch normalization whose training statistics cover the batches of all ranks.

    Replaces an ``nn.BatchNorm2d`` and keeps its parameters and their names. The running variance is
    unbiased, as in ``nn.BatchNorm2d``.

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
        own = np.eye(self.size, dtype=np.float32)[world().rank]
        self.own_row = Tensor(own.reshape(-1, 1, 1))

    def construct(self, x: Tensor) -> Tensor:
        dtype, shape = x.dtype, (1, -1, 1, 1)
        x = ops.cast(x, float32)  # float16 cannot hold a sum over a map
        if self.training:
            count = x.shape[0] * x.shape[2] * x.shape[3] * self.size
            mean, variance = self.statistics(x, count)
            unbiased = ops.stop_gradient(variance) * (count / max(count - 1, 1))
            keep = self.momentum
            ops.assign(
                self.moving_mean, self.moving_mean * keep + ops.stop_gradient(mean) * (1.0 - keep)
            )
            ops.assign(self.moving_variance, self.moving_variance * keep + unbiased * (1.0 - keep))
            scale = self.gamma * ops.rsqrt(variance + self.eps)
            centered = x - ops.reshape(mean, shape)
            y = centered * ops.reshape(scale, shape) + ops.reshape(self.beta, shape)
        else:
            scale = self.gamma * ops.rsqrt(self.moving_variance + self.eps)
            shift = self.beta - self.moving_mean * scale
            y = x * ops.reshape(scale, shape) + ops.reshape(shift, shape)
        return ops.cast(y, dtype)

    def statistics(self, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Compute mean and variance (C,) of all ranks' ``count`` values with one all-reduce: each
        rank writes one row of a table, and the rows are combined by the stable formula of Chan et
        al.
        """
        mean = ops.mean(x, (0, 2, 3))
        centered = x - ops.reshape(mean, (1, -1, 1, 1))
        squares = ops.sum(centered * centered, (0, 2, 3))
        if self.size > 1:
            own = ops.expand_dims(ops.stack((mean, squares)), 0)
            table = self.all_reduce(own * self.own_row)  # (ranks, 2, C)
            means = table[:, 0]
            mean = ops.mean(means, 0)
            apart = means - mean
            squares = ops.sum(table[:, 1], 0) + (count / self.size) * ops.sum(apart * apart, 0)
        return mean, squares / count


class _AllReduce(nn.Cell):
    """All-reduce called from the host."""

    def __init__(self):
        super().__init__()
        self.all_reduce = ops.AllReduce(ops.ReduceOp.SUM)

    def construct(self, x: Tensor) -> Tensor:
        return self.all_reduce(x)


@functools.cache
def _host_all_reduce() -> _AllReduce:
    """Return the cell that all calls share, so that each shape compiles once."""
    return _AllReduce()


def sum_over_ranks(values: np.ndarray) -> np.ndarray:
    """Sum a float32 array over the ranks; with one process return it unchanged."""
    if world().size == 1:
        return values
    return _host_all_reduce()(Tensor(np.ascontiguousarray(values, np.float32))).asnumpy()

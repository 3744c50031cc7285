"""Sums over the ranks, inside networks and on the host."""

import numpy as np
import torch
from torch import distributed
from torch.nn import functional

from mindyolo_ext.backend.on_torch import nn
from mindyolo_ext.backend.on_torch.values import Tensor
from mindyolo_ext.backend.processes import world


class GlobalSum(nn.Cell):
    """Sum a tensor over all ranks, without gradient; with one process return it unchanged.

    Losses divide by such sums (number of matches, batch size), so that the losses of the ranks add
    up to the loss of the global batch.

    Shape: any -> the same.
    """

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        x = x.detach()
        return summed(x.clone()) if world().size > 1 else x


class _SumOverRanks(torch.autograd.Function):
    """Sum over the ranks; its gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(_, x: torch.Tensor) -> torch.Tensor:
        return summed(x.clone())

    @staticmethod
    def backward(_, gradient: torch.Tensor) -> torch.Tensor:
        return summed(gradient.clone())


class SyncBatchNorm2d(nn.Cell):
    """Batch normalization whose training statistics cover the batches of all ranks.

    Replaces an ``nn.BatchNorm2d`` and keeps its parameters and their names. The running variance is
    unbiased, as in ``nn.BatchNorm2d``. PyTorch's own ``SyncBatchNorm`` does not support CPUs.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, source: nn.BatchNorm2d):
        super().__init__()
        self.gamma, self.beta = source.gamma, source.beta
        self.moving_mean, self.moving_variance = source.moving_mean, source.moving_variance
        # nn.BatchNorm2d stores 1 - momentum
        self.eps, self.momentum = source.eps, 1.0 - source.momentum
        self.size = world().size
        self.updates_statistics = True

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return functional.batch_norm(
                x, self.moving_mean, self.moving_variance, self.gamma, self.beta, eps=self.eps
            )
        dtype, shape = x.dtype, (1, -1, 1, 1)
        x = x.float()  # float16 cannot hold a sum over a map
        count = x.shape[0] * x.shape[2] * x.shape[3] * self.size
        mean, variance = self._statistics(x)
        if self.updates_statistics:
            self._update_statistics(mean.detach(), variance.detach(), count)
        scale = self.gamma * torch.rsqrt(variance + self.eps)
        y = (x - mean.reshape(shape)) * scale.reshape(shape) + self.beta.reshape(shape)
        return y.to(dtype)

    def _update_statistics(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        """Update the stored statistics with those of ``count`` values."""
        unbiased = variance * (count / max(count - 1, 1))
        with torch.no_grad():
            self.moving_mean.mul_(self.momentum).add_(mean, alpha=1.0 - self.momentum)
            self.moving_variance.mul_(self.momentum).add_(unbiased, alpha=1.0 - self.momentum)

    def _statistics(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute mean and variance (C,) of all ranks' values with one all-reduce: each rank writes
        one row of a table, and the rows are combined by the stable formula of Chan et al.
        """
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        if self.size > 1:
            own = torch.zeros(self.size, 1, 1, dtype=x.dtype, device=x.device)
            own[world().rank] = 1.0
            table = _SumOverRanks.apply(torch.stack((mean, variance)) * own)  # (ranks, 2, C)
            means = table[:, 0]
            mean = means.mean(0)
            variance = (table[:, 1] + (means - mean).square()).mean(0)
        return mean, variance


def summed(x: torch.Tensor) -> torch.Tensor:
    """Sum ``x`` over all ranks in place and return it."""
    distributed.all_reduce(x)
    return x


def sum_over_ranks(values: np.ndarray) -> np.ndarray:
    """Sum a float32 array over the ranks; with one process return it unchanged."""
    if world().size == 1:
        return values
    return summed(Tensor(np.asarray(values, np.float32))).asnumpy()

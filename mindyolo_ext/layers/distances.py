"""Distances that a network predicts as distributions over bins."""

import numpy as np

from mindyolo_ext.backend import Tensor, float32, nn, ops


class DistanceBins(nn.Cell):
    """Expected distances of distributions over the bins 0, 1, .. ``reg_max`` cells.

    Args:
        reg_max: number of the last bin.

    Shape: logits (B, 4 * (reg_max + 1), A), channel = side * bins + bin -> expected distance and
        logarithm of the summed exponentials of the logits, both (B, 4, A).
    Source: arXiv:2006.04388.
    """

    def __init__(self, reg_max: int):
        super().__init__()
        bins = np.arange(reg_max + 1)
        # the first row weights the bins, the second one sums them
        self.sums = Tensor(np.stack([bins, np.ones_like(bins)]), float32)

    def construct(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        logits = ops.reshape(logits, (logits.shape[0], 4, self.sums.shape[1], logits.shape[2]))
        largest = ops.stop_gradient(ops.max(logits, 2)[0])
        sums = ops.matmul(self.sums, ops.exp(logits - ops.expand_dims(largest, 2)))  # (B, 4, 2, A)
        total = sums[:, :, 1]
        return sums[:, :, 0] / total, ops.log(total) + largest

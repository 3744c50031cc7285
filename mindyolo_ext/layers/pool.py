"""Max-pooling that is fast on a CPU, even in a small backbone."""

from mindyolo_ext.backend import Tensor, nn, ops
from mindyolo_ext.backend.pooling import HalvingMaxPool

__all__ = ["HalvingMaxPool", "MaxPoolPyramid"]


class MaxPoolPyramid(nn.Cell):
    """Concatenate a map with its maxima over 5 x 5, 9 x 9 and 13 x 13 windows.

    The larger windows are chains of 5 x 5 ones, which give the same values with less work.

    Shape: (B, C, H, W) -> (B, 4 C, H, W), the map first.
    Source: arXiv:1406.4729.
    """

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(5, 1, pad_mode="same")

    def construct(self, x: Tensor) -> Tensor:
        five = self.pool(x)
        nine = self.pool(five)
        return ops.cat((x, five, nine, self.pool(nine)), 1)

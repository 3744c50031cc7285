"""Blocks of convolutions with spatial pyramid pooling."""

from collections.abc import Callable
from functools import partial

from mindyolo_ext.backend import Tensor, nn, ops
from mindyolo_ext.layers.conv import ConvBNAct
from mindyolo_ext.layers.pool import MaxPoolPyramid


class SPPF(nn.Cell):
    """Concatenate a map with its maxima over 5 x 5, 9 x 9 and 13 x 13 windows, between two 1 x 1
    convolutions.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int, act: Callable[[], nn.Cell]):
        super().__init__()
        self.cv1 = ConvBNAct(channels, channels // 2, act=act)
        self.cv2 = ConvBNAct(2 * channels, channels, act=act)
        self.pyramid = MaxPoolPyramid()

    def construct(self, x: Tensor) -> Tensor:
        return self.cv2(self.pyramid(self.cv1(x)))


class SimCSPSPPF(nn.Cell):
    """Apply the pooling of ``SPPF`` with three convolutions before and two after it, beside one
    convolution that bypasses them all.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 2
        conv = partial(ConvBNAct, act=nn.ReLU)
        self.cv1 = conv(channels, hidden)
        self.cv2 = conv(channels, hidden)
        self.cv3 = conv(hidden, hidden, 3)
        self.cv4 = conv(hidden, hidden)
        self.cv5 = conv(4 * hidden, hidden)
        self.cv6 = conv(hidden, hidden, 3)
        self.cv7 = conv(2 * hidden, channels)
        self.pyramid = MaxPoolPyramid()

    def construct(self, x: Tensor) -> Tensor:
        pooled = self.pyramid(self.cv4(self.cv3(self.cv1(x))))
        return self.cv7(ops.cat((self.cv2(x), self.cv6(self.cv5(pooled))), 1))


class SPPCSPC(nn.Cell):
    """Spatial pyramid pooling inside a cross-stage block of ``channels`` channels.

    Shape: (B, in_channels, H, W) -> (B, channels, H, W).
    Source: YOLOv7, arXiv:2207.02696.
    """

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.cv1 = ConvBNAct(in_channels, channels)
        self.cv2 = ConvBNAct(in_channels, channels)
        self.cv3 = ConvBNAct(channels, channels, 3)
        self.cv4 = ConvBNAct(channels, channels)
        self.cv5 = ConvBNAct(4 * channels, channels)
        self.cv6 = ConvBNAct(channels, channels, 3)
        self.cv7 = ConvBNAct(2 * channels, channels)
        self.pyramid = MaxPoolPyramid()

    def construct(self, x: Tensor) -> Tensor:
        y = self.cv4(self.cv3(self.cv1(x)))
        y = self.cv6(self.cv5(self.pyramid(y)))
        return self.cv7(ops.cat((y, self.cv2(x)), 1))

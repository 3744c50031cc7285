"""The blocks of YOLOv7: ELAN, downsampling, and convolutions with implicit knowledge."""

import numpy as np

from mindyolo_ext.backend import Parameter, Tensor, float32, nn, ops
from mindyolo_ext.layers.conv import ConvBNAct, conv2d
from mindyolo_ext.layers.fold import fold_implicit


class ELAN(nn.Cell):
    """Two 1 x 1 convolutions and a chain of 3 x 3 ones after the second; a 1 x 1 convolution joins
    them.

    Args:
        in_channels, out_channels: channels before and after.
        width: channels of the two 1 x 1 convolutions.
        depth: length of the chain.
        dense: join every convolution of the chain, each with half the width, instead of every
            second one.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W). The chain is joined first, last
        convolution first, then ``cv2``, then ``cv1``.
    Source: arXiv:2211.04800; YOLOv7, arXiv:2207.02696.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int, *, depth: int, dense: bool):
        super().__init__()
        channels = width // 2 if dense else width
        self.step = 1 if dense else 2
        self.cv1 = ConvBNAct(in_channels, width)
        self.cv2 = ConvBNAct(in_channels, width)
        self.chain = nn.CellList(
            [ConvBNAct(width if i == 0 else channels, channels, 3) for i in range(depth)]
        )
        self.out = ConvBNAct(2 * width + channels * (depth // self.step), out_channels)

    def construct(self, x: Tensor) -> Tensor:
        y = self.cv2(x)
        joined = (y, self.cv1(x))
        for i, conv in enumerate(self.chain):
            y = conv(y)
            if (i + 1) % self.step == 0:
                joined = (y,) + joined
        return self.out(ops.cat(joined, 1))


class Down(nn.Cell):
    """Halve the size by a 3 x 3 convolution beside a max-pool, both after 1 x 1 convolutions.

    Shape: (B, in_channels, H, W) -> (B, 2 width, H / 2, W / 2), the convolution's half first.
        ``beside``: what the convolution's branch reads instead of ``x``.
    """

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.pool = nn.MaxPool2d(2, 2, pad_mode="valid")
        self.pooled = ConvBNAct(in_channels, width)
        self.narrow = ConvBNAct(in_channels, width)
        self.conv = ConvBNAct(width, width, 3, stride=2)

    def construct(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        other = x if beside is None else beside
        return ops.cat((self.conv(self.narrow(other)), self.pooled(self.pool(x))), 1)


class ImplicitConv(nn.Cell):
    """Predict on one level: add a learned vector, convolve with 1 x 1, multiply by a learned
    vector.

    Shape: (B, in_channels, h, w) -> (B, out_channels, h, w).
    Source: arXiv:2105.04206; YOLOv7, arXiv:2207.02696.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        rng = np.random.RandomState(in_channels)
        self.ia = Parameter(Tensor(rng.normal(0, 0.02, (1, in_channels, 1, 1)), float32))
        self.conv = conv2d(in_channels, out_channels, 1, has_bias=True)
        self.im = Parameter(Tensor(rng.normal(1, 0.02, (1, out_channels, 1, 1)), float32))

    def construct(self, x: Tensor) -> Tensor:
        return self.conv(x + self.ia) * self.im

    def folded(self) -> nn.Cell:
        """Return the same function as one convolution."""
        return fold_implicit(
            self.conv, self.ia.asnumpy().reshape(-1), self.im.asnumpy().reshape(-1)
        )

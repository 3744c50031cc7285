"""The block of RepVGG: three branches in training, one convolution for inference."""

from collections.abc import Callable

import numpy as np

from mindyolo_ext.backend import Tensor, float32, nn
from mindyolo_ext.layers.conv import ConvBNAct, conv2d
from mindyolo_ext.layers.fold import folded_convolution, norm_scale_and_shift


class RepVGGBlock(nn.Cell):
    """Sum of a 3 x 3 convolution, a 1 x 1 convolution and, where the shape stays, the input, each
    with batch norm; then the activation.

    Args:
        in_channels, out_channels: channels before and after.
        stride: 1 keeps the size, 2 halves it.
        act: makes the activation, for example its class.

    Shape: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride)).
    Source: arXiv:2101.03697.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        act: Callable[[], nn.Cell] = nn.ReLU,
    ):
        super().__init__()
        self.has_identity = in_channels == out_channels and stride == 1
        if self.has_identity:
            self.rbr_identity = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.97)
        self.rbr_dense = ConvBNAct(in_channels, out_channels, 3, stride=stride, act=nn.Identity)
        self.rbr_1x1 = ConvBNAct(in_channels, out_channels, 1, stride=stride, act=nn.Identity)
        self.nonlinearity = act()

    def construct(self, x: Tensor) -> Tensor:
        y = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.has_identity:
            y = y + self.rbr_identity(x)
        return self.nonlinearity(y)

    def folded(self) -> nn.Cell:
        """The same function on running statistics as one 3 x 3 convolution with bias, and the
        activation.
        """
        dense = folded_convolution(self.rbr_dense.conv, self.rbr_dense.bn)
        point = folded_convolution(self.rbr_1x1.conv, self.rbr_1x1.bn)
        kernel, bias = (
            dense.weight.asnumpy().astype(np.float64),
            dense.bias.asnumpy().astype(np.float64),
        )
        kernel[:, :, 1:2, 1:2] += point.weight.asnumpy()
        bias += point.bias.asnumpy()
        if self.has_identity:
            scale, shift = norm_scale_and_shift(self.rbr_identity)
            channels = np.arange(len(scale))
            kernel[channels, channels, 1, 1] += scale
            bias += shift
        merged = conv2d(
            dense.in_channels, dense.out_channels, 3, stride=dense.stride[0], has_bias=True
        )
        merged.weight.set_data(Tensor(kernel, float32))
        merged.bias.set_data(Tensor(bias, float32))
        return nn.SequentialCell(merged, self.nonlinearity)

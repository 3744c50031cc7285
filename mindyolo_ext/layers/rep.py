"""RepVGG's block and the stages that YOLOv6 builds from it."""

from collections.abc import Callable
from functools import partial

import numpy as np

from mindyolo_ext.backend import Parameter, Tensor, float32, nn, ops
from mindyolo_ext.layers.activation import sole_reader
from mindyolo_ext.layers.conv import ConvBNAct, conv2d
from mindyolo_ext.layers.fold import folded_convolution, norm_scale_and_shift

# makes a 3 x 3 building block from (in_channels, out_channels, *, stride)
Block = Callable[..., nn.Cell]


class RepVGGBlock(nn.Cell):
    """Sum a 3 x 3 convolution, a 1 x 1 convolution and, if the shape stays, the input, each with
    batch norm; then activate.

    Args:
        in_channels, out_channels: channels before and after.
        stride: 1 keeps the size, 2 halves it.
        act: creates the activation, for example its class.

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
        self.nonlinearity = sole_reader(act())

    def construct(self, x: Tensor) -> Tensor:
        y = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.has_identity:
            y = y + self.rbr_identity(x)
        return self.nonlinearity(y)

    def folded(self) -> nn.Cell:
        """Return the same function, with running statistics, as one 3 x 3 convolution with bias and
        the activation.
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


class ConvWrapper(nn.Cell):
    """3 x 3 convolution with a bias, batch norm, SiLU.

    Shape: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride)).
    Source: YOLOv6, arXiv:2209.02976.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1):
        super().__init__()
        self.block = ConvBNAct(in_channels, out_channels, 3, stride=stride, has_bias=True)

    def construct(self, x: Tensor) -> Tensor:
        return self.block(x)


class BottleRep(nn.Cell):
    """Two blocks, and the input times ``alpha`` added. The original never trains ``alpha``.

    Shape: (B, C, H, W) -> the same.
    Source: YOLOv6, arXiv:2209.02976.
    """

    def __init__(self, channels: int, block: Block):
        super().__init__()
        self.alpha = Parameter(Tensor(np.ones(1), float32), name="alpha")
        self.conv1 = block(channels, channels)
        self.conv2 = block(channels, channels)

    def construct(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x)) + ops.cast(self.alpha, x.dtype) * x


class RepBlock(nn.Cell):
    """A chain of blocks.

    Shape: (B, C, H, W) -> the same.
    Source: YOLOv6, arXiv:2209.02976.
    """

    def __init__(self, blocks: list[nn.Cell]):
        super().__init__()
        self.conv1 = blocks[0]
        self.block = nn.SequentialCell(*blocks[1:]) if len(blocks) > 1 else nn.Identity()

    def construct(self, x: Tensor) -> Tensor:
        return self.block(self.conv1(x))


class BepC3(nn.Cell):
    """Pass ``hidden`` channels through ``repeats // 2`` bottlenecks and as many around them; a 1 x
    1 convolution joins both.

    Shape: (B, C, H, W) -> the same.
    Source: YOLOv6, arXiv:2209.02976.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        repeats: int,
        *,
        block: Block,
        act: Callable[[], nn.Cell],
    ):
        super().__init__()
        conv = partial(ConvBNAct, act=act)
        self.cv1 = conv(channels, hidden)
        self.cv2 = conv(channels, hidden)
        self.cv3 = conv(2 * hidden, channels)
        self.m = RepBlock([BottleRep(hidden, block) for _ in range(max(repeats // 2, 1))])

    def construct(self, x: Tensor) -> Tensor:
        return self.cv3(ops.cat((self.m(self.cv1(x)), self.cv2(x)), 1))

"""Convolution followed by batch norm and activation, as every family here uses it.

Weights and biases are initialized as in PyTorch: uniform within 1 / sqrt(fan_in).
"""

import math
from collections.abc import Callable

from mindyolo_ext.backend import Tensor, nn, ops
from mindyolo_ext.backend.initial import uniform_of_fan
from mindyolo_ext.layers.activation import sole_reader


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    group: int = 1,
    has_bias: bool = False,
    draw: Callable[[tuple[int, ...]], Tensor] | None = None,
) -> nn.Conv2d:
    """Create a convolution padded by ``kernel_size // 2`` on every side.

    Args:
        in_channels, out_channels: channels before and after.
        kernel_size: side of the square kernel, odd.
        stride: 1 keeps the size, 2 halves it.
        group: groups of channels; equal to ``in_channels`` it is a depthwise convolution.
        has_bias: whether a bias is added.
        draw: initializes a weight of a given shape; None initializes as in PyTorch.

    Shape: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride)).
    Raises: ValueError if ``kernel_size`` is even.
    """
    if kernel_size % 2 == 0:
        raise ValueError(f"conv2d: kernel_size must be odd, got {kernel_size}")
    shape = (out_channels, in_channels // group, kernel_size, kernel_size)
    fan_in = math.prod(shape[1:])
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        pad_mode="pad",
        padding=kernel_size // 2,
        group=group,
        has_bias=has_bias,
        weight_init=uniform_of_fan(shape, fan_in) if draw is None else draw(shape),
        bias_init=uniform_of_fan((out_channels,), fan_in) if has_bias else None,
    )
    # MindSpore's layer keeps its initial array: every weight would be in memory twice
    conv.weight_init = conv.bias_init = None
    return conv


class GivenConv(nn.Cell):
    """Apply a 1 x 1 convolution with a given weight and bias, for example part of another layer's.

    Shape: (B, C, H, W), weight (out_channels, C, 1, 1), bias (out_channels,) -> (B, out_channels,
        H, W).
    """

    half_precision = True

    def __init__(self, out_channels: int):
        super().__init__()
        self.conv2d = ops.Conv2D(out_channel=out_channels, kernel_size=(1, 1))
        self.bias_add = ops.BiasAdd()

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self.bias_add(self.conv2d(x, weight), bias)


class Product(nn.Cell):
    """Multiply matrices. Shape: (..., n, m), (..., m, k) -> (..., n, k)."""

    half_precision = True

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        return ops.matmul(x, y)


class ConvBNAct(nn.Cell):
    """Convolution, batch norm and activation.

    Args:
        in_channels, out_channels: channels before and after.
        kernel_size: side of the square kernel, odd.
        stride: 1 keeps the size, 2 halves it.
        group: groups of channels.
        has_bias: whether the convolution has a bias, which has no effect before a batch norm.
        act: creates the activation, for example its class; ``nn.Identity`` makes the block linear.
        eps, momentum: options of the batch norm; ``momentum`` is the share of the old statistics
            that is kept.

    Shape: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride)).
    Raises: ValueError if ``kernel_size`` is even.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        group: int = 1,
        has_bias: bool = False,
        act: Callable[[], nn.Cell] = nn.SiLU,
        eps: float = 1e-3,
        momentum: float = 0.97,
    ):
        super().__init__()
        self.conv = conv2d(
            in_channels, out_channels, kernel_size, stride=stride, group=group, has_bias=has_bias
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum)
        self.act = sole_reader(act())

    def construct(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

"""Resize feature maps.

Bilinear upsampling and average pooling are linear along each axis, so both are two products with
constant matrices. This works for any pair of sizes, exports to every format, and is as fast as the
resize operators.
"""

import numpy as np

from mindyolo_ext.backend import Tensor, float32, ops
from mindyolo_ext.backend.sizes import in_any_size


def double(x: Tensor) -> Tensor:
    """Upsample to nearest neighbors (B, C, h, w) -> (B, C, 2 h, 2 w).

    On a CPU, broadcasting is faster than the resize operators, forward and backward.
    """
    batch, channels, height, width = x.shape
    x = ops.broadcast_to(
        ops.reshape(x, (batch, channels, height, 1, width, 1)),
        (batch, channels, height, 2, width, 2),
    )
    return ops.reshape(x, (batch, channels, 2 * height, 2 * width))


def space_to_depth(image: Tensor) -> Tensor:
    """Turn the four pixels of each 2 x 2 square into channels, (B, C, 2 h, 2 w) -> (B, 4 C, h, w).

    First all C of the upper left pixel, then of the lower left, the upper right, the lower right.
    """
    batch, colors, height, width = image.shape
    squares = ops.reshape(image, (batch, colors, height // 2, 2, width // 2, 2))
    return ops.reshape(
        ops.transpose(squares, (0, 5, 3, 1, 2, 4)), (batch, 4 * colors, height // 2, width // 2)
    )


def bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate bilinearly (B, C, h, w) -> (B, C, *size), corners not aligned.

    Source: ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``.
    """
    height, width = x.shape[2:]
    if (height, width) == size:
        return x
    return _apply(x, _bilinear_matrix(height, size[0]), _bilinear_matrix(width, size[1]))


def adaptive_average(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Average over bins (B, C, h, w) -> (B, C, *size); bin i covers floor(i n / m) to ceil((i + 1)
    n / m).

    Source: ``torch.nn.functional.adaptive_avg_pool2d``.
    """
    height, width = x.shape[2:]
    if (height, width) == size:
        return x
    return _apply(x, _bin_matrix(height, size[0]), _bin_matrix(width, size[1]))


def _apply(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply (H, h) by (B, C, h, w) by (W, w) transposed, in float32: half precision would round
    the weights of a bin's mean.
    """
    found = ops.matmul(rows, ops.matmul(ops.cast(x, float32), ops.transpose(columns, (1, 0))))
    return ops.cast(found, x.dtype)


def _computed_bilinear(source: int, target: int) -> Tensor:
    """``_bilinear_matrix`` with operators."""
    old, new = (ops.cast(ops.arange(count), float32) for count in (source, target))
    places = ops.clamp((new + 0.5) * (source / target) - 0.5, 0.0)
    places = ops.minimum(places, old[-1])
    return ops.relu(1.0 - ops.abs(ops.expand_dims(places, 1) - old))


@in_any_size(_computed_bilinear)
@ops.constexpr
def _bilinear_matrix(source: int, target: int) -> Tensor:
    """Return weights (target, source) that interpolate each new row from the old ones."""
    places = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(source)))
    return Tensor(np.asarray(weights, np.float32))


def _computed_bins(source: int, target: int) -> Tensor:
    """``_bin_matrix`` with operators."""
    old, new = ops.arange(source), ops.arange(target)
    begins, ends = new * source // target, ((new + 1) * source + target - 1) // target
    begins, ends = ops.expand_dims(begins, 1), ops.expand_dims(ends, 1)
    inside = ops.logical_and(old >= begins, old < ends)
    return ops.cast(inside, float32) / ops.cast(ends - begins, float32)


@in_any_size(_computed_bins)
@ops.constexpr
def _bin_matrix(source: int, target: int) -> Tensor:
    """Return weights (target, source) that average each new row over a bin of old ones."""
    weights = np.zeros((target, source), np.float32)
    for i in range(target):
        begin, end = i * source // target, -(-(i + 1) * source // target)
        weights[i, begin:end] = 1 / (end - begin)
    return Tensor(weights)

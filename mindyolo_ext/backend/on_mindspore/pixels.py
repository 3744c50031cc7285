"""Normalize images inside a graph."""

import numpy as np
from mindspore import Tensor, float32, nn, ops, uint8

from mindyolo_ext.input_spec import InputSpec


class Pixels(nn.Cell):
    """Apply the operations of ``InputSpec.to_tensor`` in the same order, for the same numbers.
    float32 images are already in the model's convention and pass unchanged.

    Args:
        spec: input convention; its size is not used.

    Shape: uint8 BGR (B, H, W, 3) or float32 (B, 3, H, W) -> float32 (B, 3, H, W).
    """

    def __init__(self, spec: InputSpec):
        super().__init__()
        self.is_rgb = spec.color == "rgb"
        self.divides, self.standardizes = spec.divides, spec.standardizes
        self.scales = spec.scale != 1.0
        self.scale = float(np.float32(spec.scale))
        self.mean, self.std = (
            Tensor(np.array(values, np.float32).reshape(1, 3, 1, 1))
            for values in (spec.mean, spec.std)
        )

    def construct(self, images: Tensor) -> Tensor:
        if images.dtype != uint8:
            return images
        x = ops.transpose(ops.cast(images, float32), (0, 3, 1, 2))
        if self.is_rgb:
            x = ops.concat((x[:, 2:3], x[:, 1:2], x[:, 0:1]), 1)
        if self.divides:
            x = x / 255.0
        elif self.scales:
            x = x * self.scale
        if self.standardizes:
            x = (x - self.mean) / self.std
        return x

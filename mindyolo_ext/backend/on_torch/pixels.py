"""Normalize images on the device."""

import numpy as np
import torch

from mindyolo_ext.backend.on_torch import nn
from mindyolo_ext.backend.on_torch.values import Tensor
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
        self.scale = float(np.float32(spec.scale))
        # Tensors on the device: with a divisor on the host, a GPU multiplies by its inverse
        self.largest = Tensor(np.float32(255))
        self.mean, self.std = (
            Tensor(np.array(values, np.float32).reshape(1, 3, 1, 1))
            for values in (spec.mean, spec.std)
        )

    def construct(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype != torch.uint8:
            return images
        if self.is_rgb:
            images = images.flip(3)
        # maps whose channels are neighbors in memory would have the layers follow
        x = images.permute(0, 3, 1, 2).contiguous().float()
        if self.divides:
            x.div_(self.largest)
        elif self.scale != 1.0:
            x.mul_(self.scale)
        if self.standardizes:
            x.sub_(self.mean).div_(self.std)
        return x

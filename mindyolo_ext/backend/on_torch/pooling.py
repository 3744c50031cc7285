"""Max-pooling with stride 2."""

import torch

from mindyolo_ext.backend.on_torch import nn
from mindyolo_ext.backend.on_torch.windows import max_pool


class HalvingMaxPool(nn.Cell):
    """Compute the maximum over 3 x 3 windows with stride 2 and padding 1.

    Args:
        lowest: padding value on MindSpore; not used, PyTorch pads with minus infinity.

    Shape: (B, C, H, W), H and W even -> (B, C, H / 2, W / 2).
    """

    def __init__(self, lowest: float = 0.0):
        super().__init__()
        self.lowest = lowest

    def construct(self, x: torch.Tensor) -> torch.Tensor:
        return max_pool(x, (3, 3), (2, 2), (1, 1))

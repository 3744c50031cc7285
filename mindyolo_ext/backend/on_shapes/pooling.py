"""Max-pooling has no parameters."""

from mindyolo_ext.backend.on_shapes import nn


class HalvingMaxPool(nn.Cell):
    """Placeholder in a network."""

    def __init__(self, lowest: float = 0.0):
        super().__init__()
        self.lowest = lowest

"""Repeat values of boxes and of predictions for all their pairs.

MindSpore's CPU kernels keep 16 bytes per element of a broadcast sum, difference or product for the
lifetime of the graph, and are slow; repeated tensors are freed after use. On PyTorch a repetition
takes no memory.
"""

from mindyolo_ext.backend import Tensor, ops


def of_boxes(values: Tensor, predictions: int) -> Tensor:
    """Repeat the value of each pair's box: (B, M) -> (B, M, A)."""
    return ops.tile(ops.expand_dims(values, 2), (1, 1, predictions))


def of_predictions(values: Tensor, boxes: int) -> Tensor:
    """Repeat the value of each pair's prediction: (B, A) -> (B, M, A)."""
    return ops.tile(ops.expand_dims(values, 1), (1, boxes, 1))

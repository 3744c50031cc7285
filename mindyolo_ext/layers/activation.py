"""Activations inside blocks."""

from mindyolo_ext.backend import nn


def sole_reader(act: nn.Cell) -> nn.Cell:
    """Mark ``act`` as the only reader of its input, a fresh intermediate tensor, so that a backend
    may compute the output in place.
    """
    act.reads_alone = True
    return act

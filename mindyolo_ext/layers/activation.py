"""Activations inside blocks."""

from mindyolo_ext.backend import nn


def sole_reader(act: nn.Cell) -> nn.Cell:
    """``act``, marked as the only one that reads its input, which something has just computed: a
    backend may write the output over it.
    """
    act.reads_alone = True
    return act

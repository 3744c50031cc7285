"""Fold batch norms into the convolutions before them, for the deploy form of a model."""

from typing import Protocol, runtime_checkable

import numpy as np

from mindyolo_ext.backend import Tensor, float32, nn


@runtime_checkable
class Foldable(Protocol):
    """A cell of several branches or factors that can be replaced by one cell without batch norm."""

    def folded(self) -> nn.Cell:
        """Return a cell that computes the same, with running statistics."""


def copy_parameters(source: nn.Cell, target: nn.Cell) -> None:
    """Copy the parameter values of ``source`` to ``target``, an instance of the same cell."""
    values = dict(source.parameters_and_names())
    for name, parameter in target.parameters_and_names():
        parameter.set_data(Tensor(values[name].asnumpy(), parameter.dtype))


def fold_batch_norms(cell: nn.Cell) -> None:
    """Replace every batch norm that follows a convolution inside ``cell`` by a bias of that
    convolution.

    Convolution and batch norm must be neighbors among the children of one cell, in the order in
    which they run. ``nn.Identity`` takes the place of the batch norm, so the names of other cells
    stay. A cell with a method ``folded`` is replaced by the result of that method.

    Raises: ValueError if a batch norm remains because no convolution precedes it.
    """
    _fold_children(cell)
    for name, parameter in cell.parameters_and_names():
        parameter.name = name  # names must be unique in a graph
    left = [name for name, child in cell.cells_and_names() if isinstance(child, nn.BatchNorm2d)]
    if left:
        raise ValueError(f"fold_batch_norms: no convolution precedes {', '.join(left)}")


def _fold_children(cell: nn.Cell) -> None:
    """Fold the pairs among the direct children of ``cell``, then those below."""
    previous = ""
    for name, child in list(cell.name_cells().items()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(
            cell.name_cells().get(previous), nn.Conv2d
        ):
            _replace(cell, previous, folded_convolution(cell.name_cells()[previous], child))
            _replace(cell, name, nn.Identity())
        elif isinstance(child, Foldable):
            _replace(cell, name, child.folded())
        else:
            _fold_children(child)
        previous = name


def folded_convolution(convolution: nn.Conv2d, batch_norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return a convolution with bias that equals ``convolution`` followed by ``batch_norm``, with
    running statistics.
    """
    scale, bias = norm_scale_and_shift(batch_norm)
    weight = convolution.weight.asnumpy() * scale[:, None, None, None]
    if convolution.has_bias:
        bias = bias + convolution.bias.asnumpy() * scale
    folded = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        pad_mode=convolution.pad_mode,
        padding=convolution.padding,
        dilation=convolution.dilation,
        group=convolution.group,
        has_bias=True,
    )
    folded.weight.set_data(Tensor(weight, float32))
    folded.bias.set_data(Tensor(bias, float32))
    return folded


def fold_implicit(convolution: nn.Conv2d, added: np.ndarray, factor: np.ndarray) -> nn.Conv2d:
    """Return a 1 x 1 convolution with bias that equals ``convolution`` of the input plus ``added``,
    times ``factor``.

    Args:
        convolution: 1 x 1, with bias.
        added: (in_channels,), added to the input.
        factor: (out_channels,), factor of the output.
    """
    weight = convolution.weight.asnumpy().astype(np.float64)
    bias = (convolution.bias.asnumpy() + weight[:, :, 0, 0] @ added.astype(np.float64)) * factor
    folded = nn.Conv2d(convolution.in_channels, convolution.out_channels, 1, has_bias=True)
    folded.weight.set_data(Tensor(weight * factor[:, None, None, None], float32))
    folded.bias.set_data(Tensor(bias, float32))
    return folded


def norm_scale_and_shift(batch_norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """Express ``batch_norm`` with running statistics as x * scale + shift per channel, both (C,)
    float64.
    """
    scale = batch_norm.gamma.asnumpy().astype(np.float64) / np.sqrt(
        batch_norm.moving_variance.asnumpy().astype(np.float64) + batch_norm.eps
    )
    return scale, batch_norm.beta.asnumpy() - batch_norm.moving_mean.asnumpy() * scale


def _replace(parent: nn.Cell, name: str, child: nn.Cell) -> None:
    """Set ``child`` as the child ``name`` of ``parent``."""
    child.set_train(False)
    if isinstance(parent, (nn.SequentialCell, nn.CellList)):
        parent[int(name)] = child
    else:
        parent.insert_child_to_cell(name, child)

"""Batch norm folded into the convolution before it, for the deploy form of a model."""
import numpy as np

from mindyolo_ext.backend import Tensor, float32, nn


def copy_parameters(source: nn.Cell, target: nn.Cell) -> None:
    """Fill ``target``, a cell of the same build, with the parameter values of ``source``."""
    values = {parameter.name: parameter for parameter in source.get_parameters()}
    for parameter in target.get_parameters():
        parameter.set_data(Tensor(values[parameter.name].asnumpy(), parameter.dtype))


def fold_batch_norms(cell: nn.Cell) -> None:
    """Replace, inside ``cell``, every batch norm that follows a convolution by a bias of that convolution.

    Convolution and batch norm must be neighbours among the children of one cell, in the order in which
    they run. The batch norm's place is taken by ``nn.Identity``, so the other names stay.

    Raises: ValueError if a batch norm remains, because no convolution stands before it.
    """
    _fold_children(cell)
    for name, parameter in cell.parameters_and_names():
        parameter.name = name                           # a graph needs a name of its own for each
    left = [name for name, child in cell.cells_and_names() if isinstance(child, nn.BatchNorm2d)]
    if left:
        raise ValueError(f"fold_batch_norms: no convolution stands before {', '.join(left)}")


def _fold_children(cell: nn.Cell) -> None:
    """Fold the pairs among the children of ``cell``, then those further down."""
    previous = ""
    for name, child in list(cell.name_cells().items()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(cell.name_cells().get(previous), nn.Conv2d):
            _replace(cell, previous, folded_convolution(cell.name_cells()[previous], child))
            _replace(cell, name, nn.Identity())
        else:
            _fold_children(child)
        previous = name


def folded_convolution(convolution: nn.Conv2d, batch_norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A convolution with bias that equals ``convolution`` followed by ``batch_norm`` on running statistics."""
    scale = batch_norm.gamma.asnumpy().astype(np.float64) / np.sqrt(
        batch_norm.moving_variance.asnumpy().astype(np.float64) + batch_norm.eps)
    weight = convolution.weight.asnumpy() * scale[:, None, None, None]
    bias = -batch_norm.moving_mean.asnumpy() * scale + batch_norm.beta.asnumpy()
    if convolution.has_bias:
        bias = bias + convolution.bias.asnumpy() * scale
    folded = nn.Conv2d(convolution.in_channels, convolution.out_channels, convolution.kernel_size,
                       convolution.stride, pad_mode=convolution.pad_mode, padding=convolution.padding,
                       dilation=convolution.dilation, group=convolution.group, has_bias=True)
    folded.weight.set_data(Tensor(weight, float32))
    folded.bias.set_data(Tensor(bias, float32))
    return folded


def _replace(parent: nn.Cell, name: str, child: nn.Cell) -> None:
    """Put ``child`` in the place ``name`` of ``parent``."""
    child.set_train(False)
    if isinstance(parent, nn.SequentialCell):
        parent[int(name)] = child
    else:
        parent.insert_child_to_cell(name, child)

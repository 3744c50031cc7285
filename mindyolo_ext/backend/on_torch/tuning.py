"""Layout of maps in memory, and compiled kernels."""

from mindyolo_ext.backend.on_torch import nn
from mindyolo_ext.backend.on_torch.device import device
from mindyolo_ext.contracts import Cell
from mindyolo_ext.errors import DeviceError


def use_channels_last(cell: Cell) -> None:
    """Let the convolutions below ``cell`` read, and so give, maps whose channels are neighbors in
    memory, as tensor cores want them. Weights stay where they are: a training step keeps them as
    slices of one vector.

    Raises: DeviceError on a CPU, where training gold_yolo_n with such maps ends PyTorch 2.13's
        process with `double free or corruption`.
    """
    if device().type == "cpu":
        raise DeviceError(
            "train.channels_last: PyTorch's kernels for CPUs fail with such maps; leave it out, or "
            "take --device_target GPU"
        )
    for _, part in cell.cells_and_names():
        if isinstance(part, nn.Conv2d):
            part.channels_last = True


def compile_cells(cell: Cell) -> None:
    """Let ``torch.compile`` turn what ``cell`` computes into kernels of its own, at its next call
    with inputs of a shape, which takes a C++ compiler and minutes.
    """
    cell.compile(dynamic=False)

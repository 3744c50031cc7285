"""Memory layout of feature maps, and compiled kernels."""

from mindyolo_ext.backend.on_torch import nn
from mindyolo_ext.backend.on_torch.device import device
from mindyolo_ext.contracts import Cell
from mindyolo_ext.errors import DeviceError


def use_channels_last(cell: Cell) -> None:
    """Let the convolutions below ``cell`` read and write feature maps in channels-last layout, the
    fast one for tensor cores. Weights stay in place: a training step keeps them in one vector.

    Raises: DeviceError on a CPU, where training gold_yolo_n in this layout crashes PyTorch 2.13
        with `double free or corruption`.
    """
    if device().type == "cpu":
        raise DeviceError(
            "train.channels_last: PyTorch's CPU kernels fail with this layout; leave it out, or "
            "use --device_target GPU"
        )
    for _, part in cell.cells_and_names():
        if isinstance(part, nn.Conv2d):
            part.channels_last = True


def compile_cells(cell: Cell) -> None:
    """Compile ``cell`` with ``torch.compile`` at the first call with each input shape, which takes
    minutes and a C++ compiler.
    """
    cell.compile(dynamic=False)

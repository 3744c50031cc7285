"""Trade time for memory: recompute parts of the network in the backward pass instead of keeping
their feature maps.
"""

from collections.abc import Iterator

from mindyolo_ext.backend import nn
from mindyolo_ext.backend.choice import BACKEND
from mindyolo_ext.backend.distributed import SyncBatchNorm2d
from mindyolo_ext.contracts import Cell, Model

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.recompute import compute_again
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.recompute import compute_again

__all__ = ["apply"]
PARTS = ("backbone", "neck")  # name prefixes of the large parts


def apply(model: Model) -> int:
    """Let training compute the stages of backbones and necks twice: in the forward pass, and again
    in the backward pass. Gradients are the same, and norms update their statistics once.

    Returns the number of stages. Raises: ConfigError for norms that would update them twice.
    """
    found = [
        stage
        for name, part in model.name_cells().items()
        if name.startswith(PARTS)
        for stage in _stages(part)
    ]
    for stage in found:
        compute_again(stage)
    return len(found)


def _stages(part: Cell) -> Iterator[Cell]:
    """Return the cells directly below ``part`` that have norms, including those in lists and in a
    backbone inside a neck.
    """
    for name, cell in part.name_cells().items():
        if isinstance(cell, nn.CellList) or name.startswith(PARTS):
            yield from _stages(cell)
        elif any(
            isinstance(below, (nn.BatchNorm2d, SyncBatchNorm2d))
            for _, below in cell.cells_and_names()
        ):
            yield cell

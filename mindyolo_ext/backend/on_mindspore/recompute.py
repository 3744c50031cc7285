"""MindSpore's ``Cell.recompute``."""

from mindspore import nn

from mindyolo_ext.backend.on_mindspore.distributed import SyncBatchNorm2d
from mindyolo_ext.errors import ConfigError


def compute_again(cell: nn.Cell) -> None:
    """Let the graph recompute the operators of ``cell`` for derivatives, except the norms: a norm's
    operator updates its statistics whenever it runs.

    Raises: ConfigError for synchronized norms, which are many operators.
    """
    cell.recompute()
    for _, part in cell.cells_and_names():
        if isinstance(part, SyncBatchNorm2d):
            raise ConfigError(
                "train.recompute: MindSpore would update the statistics of synchronized norms "
                "twice; leave it out, or set train.sync_bn=false, or use --backend torch"
            )
        if isinstance(part, nn.BatchNorm2d):
            part.bn_train.add_prim_attr("recompute", False)

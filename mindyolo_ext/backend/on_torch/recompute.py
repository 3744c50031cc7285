"""PyTorch's ``torch.utils.checkpoint`` around cells."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from mindyolo_ext.backend.on_torch import nn
from mindyolo_ext.backend.on_torch.distributed import SyncBatchNorm2d
from mindyolo_ext.backend.on_torch.recording import recording

Norm = nn.BatchNorm2d | SyncBatchNorm2d


def compute_again(cell: nn.Cell) -> None:
    """Let ``cell`` keep its inputs alone for derivatives, and compute again what they need."""
    norms = [c for _, c in cell.cells_and_names() if isinstance(c, Norm)]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Of the first and of the second time."""
        return nullcontext(), _second_time(norms)

    cell.recompute_contexts = contexts


@contextmanager
def _second_time(norms: Sequence[Norm]) -> Iterator[None]:
    """Norms leave their statistics alone. A GPU's backward pass runs in a thread of its own, which
    does not know that it is recording.
    """
    for norm in norms:
        norm.updates_statistics = False
    try:
        with recording():
            yield
    finally:
        for norm in norms:
            norm.updates_statistics = True

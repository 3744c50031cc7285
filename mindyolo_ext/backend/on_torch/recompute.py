"""PyTorch's ``torch.utils.checkpoint`` around cells."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from mindyolo_ext.backend.on_torch import nn
from mindyolo_ext.backend.on_torch.distributed import SyncBatchNorm2d
from mindyolo_ext.backend.on_torch.recording import recording

Norm = nn.BatchNorm2d | SyncBatchNorm2d


def compute_again(cell: nn.Cell) -> None:
    """Let ``cell`` keep only its inputs for derivatives, and recompute the rest."""
    norms = [c for _, c in cell.cells_and_names() if isinstance(c, Norm)]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the contexts of the first and the second forward pass."""
        return nullcontext(), _second_time(norms)

    cell.recompute_contexts = contexts


@contextmanager
def _second_time(norms: Sequence[Norm]) -> Iterator[None]:
    """Recompute without updates of norm statistics. ``recording`` is set again because a GPU's
    backward pass runs in its own thread.
    """
    for norm in norms:
        norm.updates_statistics = False
    try:
        with recording():
            yield
    finally:
        for norm in norms:
            norm.updates_statistics = True

"""Whether cells run as compiled graphs or operator by operator."""

from contextlib import AbstractContextManager
from functools import cache

from mindyolo_ext.backend import BACKEND
from mindyolo_ext.backend.mode import eager, graphs, is_eager


@cache
def _launch_operators_here() -> None:
    """Else every operator is handed to another thread, which on two cores costs ten to twenty
    times what the operator costs.
    """
    if BACKEND == "mindspore":
        from mindspore.runtime import launch_blocking

        launch_blocking()


def as_graph(graph: bool) -> AbstractContextManager[None]:
    """Cells are compiled inside the block, or not."""
    _launch_operators_here()
    return graphs() if graph else eager()


def is_graph() -> bool:
    """Whether cells are compiled now."""
    return not is_eager()

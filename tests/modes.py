"""Whether cells run as compiled graphs or operator by operator."""

from contextlib import AbstractContextManager
from functools import cache

from mindyolo_ext.backend import BACKEND
from mindyolo_ext.backend.mode import eager, graphs, is_eager


@cache
def _launch_operators_here() -> None:
    """Otherwise every operator is handed to another thread, which on two cores takes ten to twenty
    times as long as the operator.
    """
    if BACKEND == "mindspore":
        from mindspore.runtime import launch_blocking

        launch_blocking()


def as_graph(graph: bool) -> AbstractContextManager[None]:
    """Choose whether cells inside the block are compiled."""
    _launch_operators_here()
    return graphs() if graph else eager()


def is_graph() -> bool:
    """Whether cells are currently compiled."""
    return not is_eager()

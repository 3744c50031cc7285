"""PyTorch always runs operator by operator; the modes differ in what ``is_eager`` says.

Neither records gradients, except for requested derivatives.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _State:
    """The selected mode."""

    is_eager = False


@contextmanager
def eager() -> Iterator[None]:
    """Run cells operator by operator inside the block."""
    with _in_mode(True):
        yield


@contextmanager
def graphs() -> Iterator[None]:
    """Run cells inside the block as if they were graphs."""
    with _in_mode(False):
        yield


def is_eager() -> bool:
    """Whether the current mode is ``eager``."""
    return _State.is_eager


@contextmanager
def _in_mode(is_eager: bool) -> Iterator[None]:
    """Set the mode inside the block, then restore the previous one."""
    before, _State.is_eager = _State.is_eager, is_eager
    try:
        with torch.no_grad():
            yield
    finally:
        _State.is_eager = before

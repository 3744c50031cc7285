"""MindSpore's two modes, set for the duration of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import mindspore as ms


@contextmanager
def eager() -> Iterator[None]:
    """Run cells operator by operator inside the block, as hooks on layers need it."""
    with _in_mode(ms.PYNATIVE_MODE):
        yield


@contextmanager
def graphs() -> Iterator[None]:
    """Run cells as compiled graphs inside the block."""
    with _in_mode(ms.GRAPH_MODE):
        yield


def is_eager() -> bool:
    """Whether cells currently run operator by operator."""
    return ms.get_context("mode") == ms.PYNATIVE_MODE


@contextmanager
def _in_mode(mode: int) -> Iterator[None]:
    """Set ``mode`` inside the block, then restore the previous one."""
    before = ms.get_context("mode")
    ms.set_context(mode=mode)
    try:
        yield
    finally:
        ms.set_context(mode=before)

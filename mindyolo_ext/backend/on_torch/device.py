"""Device of new tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch


class _State:
    """Device of the process, and of the current block of a thread."""

    device = torch.device("cpu")
    block: ContextVar[torch.device | None] = ContextVar("device of the block", default=None)


def device() -> torch.device:
    """Return the device of new tensors."""
    return _State.block.get() or _State.device


@contextmanager
def on_device(place: torch.device) -> Iterator[None]:
    """Create this thread's new tensors on ``place`` inside the block."""
    before = _State.block.set(place)
    try:
        yield
    finally:
        _State.block.reset(before)


def set_device(new: torch.device) -> None:
    """Create new tensors on ``new``; existing ones are not moved."""
    _State.device = new


def exact_float32() -> None:
    """Use full float32 on GPUs; by default PyTorch's convolutions use TF32, with 10 bits."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False

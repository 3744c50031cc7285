"""The device where tensors are made."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch


class _State:
    """The process's device, and that of the block that a thread is in."""

    device = torch.device("cpu")
    block: ContextVar[torch.device | None] = ContextVar("device of the block", default=None)


def device() -> torch.device:
    """Where new tensors go."""
    return _State.block.get() or _State.device


@contextmanager
def on_device(place: torch.device) -> Iterator[None]:
    """Make this thread's new tensors on ``place`` inside the block."""
    before = _State.block.set(place)
    try:
        yield
    finally:
        _State.block.reset(before)


def set_device(new: torch.device) -> None:
    """Make new tensors on ``new``; those that exist stay where they are."""
    _State.device = new


def exact_float32() -> None:
    """Compute float32 as such on GPUs; PyTorch's convolutions take TF32, of 10 bits, else."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False

"""Record operations for derivatives only within training steps and requested derivatives."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _Thread(threading.local):
    """Whether this thread records; PyTorch's own flag is on in every new thread."""

    is_recording = False


_this_thread = _Thread()


def is_recording() -> bool:
    """Whether this thread is inside ``recording``."""
    return _this_thread.is_recording


def is_traced() -> bool:
    """Whether PyTorch traces this thread, for an export or for ``torch.compile``."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


@contextmanager
def recording() -> Iterator[None]:
    """Let cells record what their derivatives need inside the block."""
    before, _this_thread.is_recording = _this_thread.is_recording, True
    try:
        with torch.enable_grad():
            yield
    finally:
        _this_thread.is_recording = before

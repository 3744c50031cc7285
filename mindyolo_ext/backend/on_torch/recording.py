"""What derivatives need is recorded only where a training step or a derivative asks for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _Thread(threading.local):
    """What this thread does; PyTorch's own flag is on in every new one."""

    is_recording = False


_this_thread = _Thread()


def is_recording() -> bool:
    """Whether this thread is inside ``recording``."""
    return _this_thread.is_recording


def is_traced() -> bool:
    """Whether PyTorch notes the operators of this thread, for a file or for ``torch.compile``."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


@contextmanager
def recording() -> Iterator[None]:
    """Let cells record inside the block what their derivatives need."""
    before, _this_thread.is_recording = _this_thread.is_recording, True
    try:
        with torch.enable_grad():
            yield
    finally:
        _this_thread.is_recording = before

"""Ctrl-C and SIGTERM: both end a command with one line and exit code 130 at any time.

Loads nothing else, so that the handlers are set before the slow imports.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = 130  # exit code
GRACE_SECONDS = 8.0  # time for a command to shut down cleanly
MESSAGE = "stopped by Ctrl-C or SIGTERM; saved files are kept (train.py continues with --resume)"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _State:
    """State of the process: whether the command is being stopped."""

    stopping = False


@contextmanager
def handled(*, for_good: bool) -> Iterator[None]:
    """Raise KeyboardInterrupt for both signals inside the context.

    A running graph answers Ctrl-C by sending the process SIGTERM, and job schedulers send it: both
    shut the run down cleanly. The process ends at once if the signal arrives during an import
    (frameworks swallow the exception or crash), if it arrives a second time, or if the program does
    not handle it in time. Only the main thread may set handlers, so a call from another thread
    changes nothing.

    Args:
        for_good: the process ends after this command. A signal after the command is then ignored,
            so that it cannot change the exit code while Python and the framework clean up; with
            several ranks it still stops them, because one may wait for another. If False, the
            previous handlers are restored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.stopping = False
    if for_good:
        _watch()
    before = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if not for_good:
                # None: the handler was not set from Python
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            elif _is_alone():
                signal.signal(number, signal.SIG_IGN)


def _is_alone() -> bool:
    """Whether this process is the only rank."""
    launch = sys.modules.get("mindyolo_ext.backend.launch")
    return not hasattr(launch, "world") or launch.world().size == 1


def _watch() -> None:
    """Start a thread that ends the process if it still runs ``GRACE_SECONDS`` after a signal: a
    compilation, or a collective operation with a lost rank, delays the handler.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def wait() -> None:
        while os.read(reading, 1)[0] not in _SIGNALS:
            pass
        time.sleep(GRACE_SECONDS)
        sys.stdout.write(f"error: {MESSAGE}\n")
        leave(STOPPED)

    threading.Thread(target=wait, name="watch signals", daemon=True).start()


def _interrupt(_number: int, frame: FrameType | None) -> None:
    """Signal handler. Raises: KeyboardInterrupt, if the process does not end at once."""
    if _State.stopping:
        leave(STOPPED)
    if _is_importing(frame):
        sys.stdout.write(f"error: {MESSAGE}\n")
        leave(STOPPED)
    _State.stopping = True
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    """Whether an import is under way in ``frame`` or its callers."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def leave(status: int) -> None:
    """End this process, and all other ranks, without cleanup."""
    launch = sys.modules.get("mindyolo_ext.backend.launch")
    if launch is not None and hasattr(launch, "abort"):  # else it is being imported
        launch.abort(status)
    sys.stdout.flush()
    os._exit(status)

"""How a command ends: signals, messages of errors, exit codes."""

import argparse
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mindyolo_ext.cli import backend
from mindyolo_ext.errors import UserError

logger = logging.getLogger("mindyolo_ext")
EXPLAINED = 1  # an error that a user can mend, in one line
STOPPED = 130  # Ctrl-C or SIGTERM
FAULT = 70  # a fault of this program, with its traceback; EX_SOFTWARE of sysexits.h
REPORT_TO = "the issue tracker of the repository that you have mindyolo_ext from"


def run(options: argparse.Namespace) -> int:
    """Run the chosen verb; returns the exit code: 0, ``EXPLAINED``, ``STOPPED`` or ``FAULT``.

    Raises: with ``--debug``, whatever the verb raises.
    """
    try:
        with sigterm_as_ctrl_c():
            backend.choose(options.backend)
            options.run(options)
    except KeyboardInterrupt:
        return _failed(
            "stopped by Ctrl-C; what was saved stays (train.py continues with --resume)", STOPPED
        )
    except (UserError, OSError) as error:
        if options.debug:
            raise
        return _failed(str(error), EXPLAINED)
    except Exception as error:
        if options.debug:
            raise
        return _failed(
            f"this is a fault of the program, not yours ({type(error).__name__}); please report "
            f"it, with the lines above and those of `mindyolo-ext doctor`, to {REPORT_TO}",
            FAULT,
            details=traceback.format_exc(),
        )
    return 0


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt inside; the handler from before is put back at the end.

    A running graph answers Ctrl-C by sending the process SIGTERM, and job schedulers send it: both
    end the run in order. Only the main thread may set handlers, so a call from another thread
    leaves them alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        # None: set outside Python
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def set_up_logging(level: str) -> None:
    """Log messages to standard output, without times."""
    logging.basicConfig(level=level, stream=sys.stdout, format="%(message)s", force=True)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)


def _interrupt(*_: object) -> None:
    """Signal handler: as Ctrl-C. Raises: KeyboardInterrupt."""
    raise KeyboardInterrupt


def _failed(message: str, status: int, *, details: str = "") -> int:
    """Log the message, after ``details`` if there are any, and return ``status``.

    With several ranks it ends them all, because the others would wait for this one.
    """
    logger.error("%serror: %s", details, message)
    launch = sys.modules.get("mindyolo_ext.backend.launch")
    if launch is not None and launch.world().size > 1:
        launch.abort(status)
    return status

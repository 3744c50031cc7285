"""How a command ends: messages of errors, exit codes."""

import argparse
import logging
import sys
import traceback

from mindyolo_ext.cli import backend, interrupts
from mindyolo_ext.errors import StuckError, UserError, printable

logger = logging.getLogger("mindyolo_ext")
EXPLAINED = 1  # an error that a user can mend, in one line
FAULT = 70  # a fault of this program, with its traceback; EX_SOFTWARE of sysexits.h
REPORT_TO = "the issue tracker of the repository that you have mindyolo_ext from"


def run(options: argparse.Namespace, *, ends_process: bool = False) -> int:
    """Run the chosen verb; returns the exit code: 0, ``EXPLAINED``, ``FAULT`` or
    ``interrupts.STOPPED``.

    Args:
        ends_process: whether the process ends with the verb.

    Raises: with ``--debug``, whatever the verb raises.
    """
    try:
        backend.choose(backend.asked(options))
        options.run(options)
    except KeyboardInterrupt:
        return _failed(interrupts.MESSAGE, interrupts.STOPPED)
    except (UserError, OSError) as error:
        if options.debug:
            raise
        status = _failed(str(error), EXPLAINED)
        if isinstance(error, StuckError) and ends_process:
            interrupts.leave(status)  # Python would wait for the thread that is stuck
        return status
    except MemoryError:
        if options.debug:
            raise
        return _failed(
            "not enough memory; take smaller batches or inputs, fewer workers, or set data.cache "
            "to none",
            EXPLAINED,
        )
    except Exception as error:
        if options.debug:
            raise
        if isinstance(error, ModuleNotFoundError) and _is_foreign(error.name):
            return _failed(
                f"the package {error.name} is not installed for {sys.executable}; install "
                "mindyolo_ext with what it needs (`pip install -e .` in its folder), or start the "
                "Python that has it",
                EXPLAINED,
            )
        return _failed(
            f"this is a fault of the program, not yours ({type(error).__name__}); please report "
            f"it, with the lines above and those of `mindyolo-ext doctor`, to {REPORT_TO}",
            FAULT,
            details=traceback.format_exc(),
        )
    return 0


def _is_foreign(module: str | None) -> bool:
    """Whether a module is not of this package."""
    return bool(module) and module.partition(".")[0] != __name__.partition(".")[0]


class _Printable(logging.Formatter):
    """The message alone. Control characters, which may come from a stranger's file, are written
    out, so that nothing of it can steer a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


class _AboveBars(logging.StreamHandler):
    """Writes a message above a progress bar instead of behind it on its line."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = sys.modules.get("tqdm")  # not before a bar is needed
        if tqdm is None or not sys.stderr.isatty():
            super().emit(record)
            return
        with tqdm.tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def set_up_logging(level: str) -> None:
    """Log messages to standard output, without times."""
    logging.basicConfig(level=level, handlers=[_AboveBars(sys.stdout)], force=True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Printable())
    logging.getLogger("matplotlib").setLevel(logging.WARNING)


def _failed(message: str, status: int, *, details: str = "") -> int:
    """Log the message, after ``details`` if there are any, and return ``status``.

    With several ranks it ends them all, because the others would wait for this one.
    """
    launch = sys.modules.get("mindyolo_ext.backend.launch")
    this = launch.world() if launch is not None else None
    rank = f"rank {this.rank}: " if this is not None and this.size > 1 else ""
    logger.error("%serror: %s%s", details, rank, message)
    if rank:
        launch.abort(status)
    return status

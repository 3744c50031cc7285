"""Error messages and exit codes of a command."""

import argparse
import logging
import sys
import traceback

from mindyolo_ext.cli import backend, interrupts
from mindyolo_ext.errors import StuckError, UserError, printable
from mindyolo_ext.framework import choose

logger = logging.getLogger("mindyolo_ext")
EXPLAINED = 1  # an error that a user can fix, in one line
FAULT = 70  # a bug in this program, with its traceback; EX_SOFTWARE of sysexits.h
REPORT_TO = "the issue tracker of the repository that you have mindyolo_ext from"


def run(options: argparse.Namespace, *, ends_process: bool = False) -> int:
    """Run the chosen verb and return the exit code: 0, ``EXPLAINED``, ``FAULT`` or
    ``interrupts.STOPPED``.

    Args:
        ends_process: whether the process ends after the verb.

    Raises: with ``--debug``, whatever the verb raises.
    """
    try:
        choose(backend.asked(options))
        options.run(options)
    except KeyboardInterrupt:
        return _failed(interrupts.MESSAGE, interrupts.STOPPED)
    except (UserError, OSError) as error:
        if options.debug:
            raise
        status = _failed(str(error), EXPLAINED)
        if isinstance(error, StuckError) and ends_process:
            interrupts.leave(status)  # Python would wait for the stuck thread
        return status
    except MemoryError:
        if options.debug:
            raise
        return _failed(
            "out of memory; use smaller batches or inputs, fewer workers, or set data.cache to "
            "none",
            EXPLAINED,
        )
    except Exception as error:
        if options.debug:
            raise
        if isinstance(error, ModuleNotFoundError) and _is_foreign(error.name):
            return _failed(
                f"the package {error.name} is not installed for {sys.executable}; install "
                "mindyolo_ext with its dependencies (`pip install -e .` in its folder), or use the "
                "Python that has them",
                EXPLAINED,
            )
        return _failed(
            f"this is a bug in mindyolo_ext ({type(error).__name__}); please report it, with the "
            f"lines above and the output of `mindyolo-ext doctor`, to {REPORT_TO}",
            FAULT,
            details=traceback.format_exc(),
        )
    return 0


def _is_foreign(module: str | None) -> bool:
    """Whether a module is not of this package."""
    return bool(module) and module.partition(".")[0] != __name__.partition(".")[0]


class _Printable(logging.Formatter):
    """Format the message alone. Control characters, which may come from an untrusted file, are
    escaped so that they cannot control the terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


class _AboveBars(logging.StreamHandler):
    """Write messages above a progress bar, not at the end of its line."""

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
    """Log ``details`` and the message, and return ``status``.

    With several ranks, end all of them: the others would wait for this one.
    """
    launch = sys.modules.get("mindyolo_ext.backend.launch")
    this = launch.world() if launch is not None else None
    rank = f"rank {this.rank}: " if this is not None and this.size > 1 else ""
    logger.error("%serror: %s%s", details, rank, message)
    if rank:
        launch.abort(status)
    return status

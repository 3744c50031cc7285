"""``run.log``: the messages of a run, in its folder."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

from mindyolo_ext.errors import printable

NAME = "run.log"
_PACKAGE = logging.getLogger("mindyolo_ext")
_MOST_HELD = 100_000  # records before the file is opened
_NEVER = logging.CRITICAL + 1


class RunLog(MemoryHandler):
    """Hold messages until ``open`` names their file; a run that never begins leaves no file."""

    def __init__(self) -> None:
        super().__init__(_MOST_HELD, flushLevel=_NEVER, flushOnClose=False)

    def open(self, folder: Path) -> None:
        """Write to the file in ``folder`` from now on, after its existing content."""
        file = logging.FileHandler(folder / NAME, encoding="utf-8", errors="backslashreplace")
        file.setFormatter(_WithTime("%(asctime)s %(levelname)s %(message)s"))
        self.setTarget(file)
        self.flush()
        self.capacity = 1

    def close(self) -> None:
        """Close the file."""
        target = self.target
        super().close()
        if target is not None:
            target.close()


class _WithTime(logging.Formatter):
    """Escape control characters, which may come from untrusted files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


class _Onward(logging.Handler):
    """Pass messages to the loggers above this package's, as if this handler were not there."""

    def emit(self, record: logging.LogRecord) -> None:
        above = _PACKAGE.parent
        if above is not None:
            above.callHandlers(record)


@contextmanager
def run_log(*, wanted: bool = True) -> Iterator[RunLog]:
    """Record what this package logs, and an exception that ends the block.

    The file contains the messages that the program shows, but at least those of level INFO and
    above; the program shows the same as without it.

    Args:
        wanted: False records nothing, for ranks other than 0.
    """
    log = RunLog()
    if not wanted:
        yield log
        return
    level, propagates, shown = _PACKAGE.level, _PACKAGE.propagate, _PACKAGE.getEffectiveLevel()
    handlers: list[logging.Handler] = [log]
    if propagates:
        handlers.append(_Onward(shown))
    for handler in handlers:
        _PACKAGE.addHandler(handler)
    _PACKAGE.setLevel(min(shown, logging.INFO))
    _PACKAGE.propagate = False
    try:
        yield log
    except BaseException as error:
        text = str(error) or type(error).__name__
        record = {"levelname": "ERROR", "levelno": logging.ERROR, "msg": f"the run ended: {text}"}
        log.emit(logging.makeLogRecord(record))
        raise
    finally:
        for handler in handlers:
            _PACKAGE.removeHandler(handler)
        _PACKAGE.setLevel(level)
        _PACKAGE.propagate = propagates
        log.close()

"""Progress bars with an ETA, and messages while a graph is compiled."""

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

logger = logging.getLogger(__name__)


class _Lines:
    """A stream that writes a new line for each state of a bar, for files and pipes."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> None:
        state = text.strip("\r\n ")
        if state:
            self.stream.write(f"{state}\n")

    def flush(self) -> None:
        self.stream.flush()


def bar(
    steps: Iterable | None = None,
    *,
    total: int | None = None,
    title: str = "",
    show: bool = True,
    in_bytes: bool = False,
    unit: str = "it",
) -> tqdm:
    """Create a progress bar with ETA; in a log file it writes a line every ten seconds instead of
    redrawing. Call its ``unpause()`` after work that should not count, such as a compilation.

    Args:
        in_bytes: count bytes, shown in kB, MB and so on.
        unit: unit of the count, as in ``12.3it/s``.
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        steps,
        total=total,
        desc=title,
        file=None if terminal else _Lines(sys.stderr),
        disable=not show,
        dynamic_ncols=terminal,
        leave=True,
        unit="B" if in_bytes else unit,
        unit_scale=in_bytes,
        mininterval=0.1 if terminal else 10.0,
        ascii=None if terminal else True,
    )


@contextmanager
def compiling(what: str, show: bool = True, *, done: str = "compiled") -> Iterator[None]:
    """Log that ``what`` is being compiled, repeat the message during a long compilation, and log
    the time it took; ``done`` is the verb of the last message.
    """
    if not show:
        yield
        return
    begin, over = time.perf_counter(), threading.Event()
    logger.info("compiling %s: once per input shape, the steps after it are fast ...", what)

    def tick() -> None:
        while not over.wait(15.0):
            logger.info("still compiling %s, %.0f s so far ...", what, time.perf_counter() - begin)

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    logger.info("%s %s in %.1f s", done, what, time.perf_counter() - begin)

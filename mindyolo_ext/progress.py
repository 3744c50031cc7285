"""What a person sees while they wait: bars with an ETA, and word that a graph is being compiled."""

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

logger = logging.getLogger(__name__)


def bar(
    steps: Iterable | None = None,
    *,
    total: int | None = None,
    title: str = "",
    show: bool = True,
    in_bytes: bool = False,
    unit: str = "it",
) -> tqdm:
    """A progress bar with ETA; in a log file it writes a line every ten seconds instead of
    redrawing.

    Args:
        in_bytes: count bytes, shown as kB, MB ...
        unit: what is counted, as the speed names it: ``12.3it/s``.
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        steps,
        total=total,
        desc=title,
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
    """Say that ``what`` is being compiled, keep saying it, and say how long it took; ``done`` is
    the word for it.
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

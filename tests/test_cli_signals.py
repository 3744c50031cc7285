"""SIGTERM during a verb: ends it as Ctrl-C does, and leaves the surrounding program's handler as
it was.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mindyolo_ext import cli
from mindyolo_ext.cli.about import add_info
from mindyolo_ext.cli.arguments import Verb


@pytest.fixture(autouse=True)
def own_handler() -> Iterator[list[int]]:
    """A surrounding program's handler for SIGTERM, and the signals that it got; logging is put
    back too.
    """
    root, package = logging.getLogger(), logging.getLogger("matplotlib")
    handlers, level, other = root.handlers[:], root.level, package.level
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    yield got
    signal.signal(signal.SIGTERM, before)
    root.handlers[:] = handlers
    root.setLevel(level)
    package.setLevel(other)


def info_that(monkeypatch: pytest.MonkeyPatch, run) -> None:
    """Let the verb ``info`` call ``run``."""
    monkeypatch.setattr(
        "mindyolo_ext.cli.parser.VERBS", (Verb("info", lambda _: run(), add_info, "for the test"),)
    )


def test_sigterm_ends_a_verb_and_the_old_handler_is_back(monkeypatch, capsys, own_handler):
    info_that(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert cli.main(["info", "x"]) == 130
    assert "stopped by Ctrl-C" in capsys.readouterr().out
    assert own_handler == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert own_handler == [signal.SIGTERM]


def test_the_old_handler_is_back_after_an_error_and_after_success(monkeypatch, own_handler):
    for run, status in ((lambda: None, 0), (lambda: Path("nowhere").read_text(), 1)):
        info_that(monkeypatch, run)
        assert cli.main(["info", "x"]) == status
        os.kill(os.getpid(), signal.SIGTERM)
    assert own_handler == [signal.SIGTERM] * 2


def test_a_verb_runs_in_another_thread_and_leaves_the_handler_alone(monkeypatch):
    during, statuses = [], []
    info_that(monkeypatch, lambda: during.append(signal.getsignal(signal.SIGTERM)))
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: statuses.append(cli.main(["info", "x"])))
    thread.start()
    thread.join()
    assert statuses == [0] and during == [before]

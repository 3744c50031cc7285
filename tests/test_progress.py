"""Progress bars and messages on one screen or in one file: they never share a line."""

import io
import logging
import sys

import pytest

from mindyolo_ext import progress
from mindyolo_ext.cli.ending import set_up_logging


class Screen(io.StringIO):
    """Standard output and error of a terminal, or of a file."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def lines(self) -> list[str]:
        """What a person sees: a carriage return goes back to the line's first column."""
        shown = []
        for line in self.getvalue().split("\n"):
            columns: list[str] = []
            for part in line.split("\r"):
                columns[: len(part)] = part
            shown.append("".join(columns).rstrip())
        return [line for line in shown if line]


@pytest.fixture
def screen(monkeypatch):
    """Replace standard output and error with a screen that also gets this package's logging."""
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level

    def put(*, terminal):
        found = Screen(terminal)
        monkeypatch.setattr(sys, "stdout", found)
        monkeypatch.setattr(sys, "stderr", found)
        set_up_logging("INFO")
        return found

    yield put
    logging.basicConfig(handlers=handlers or [logging.NullHandler()], force=True, level=level)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_message_has_a_line_of_its_own(screen, terminal):
    shown = screen(terminal=terminal)
    with progress.bar(total=2, title="epoch 1/3") as bar:
        bar.update()
        logging.getLogger("mindyolo_ext.engine").info("compiling")
        bar.update()
    lines = shown.lines()
    assert lines.count("compiling") == 1
    assert lines[-1].startswith("epoch 1/3: 100%")
    assert all(line == "compiling" or line.startswith("epoch 1/3:") for line in lines)
    assert len(lines) == (2 if terminal else 3), "a file also keeps the bar's beginning"


def test_a_bar_in_a_file_never_returns_to_the_start_of_its_line(screen):
    shown = screen(terminal=False)
    for _ in progress.bar(range(3), title="reading"):
        pass
    assert "\r" not in shown.getvalue() and shown.getvalue().endswith("\n")

"""SIGTERM and Ctrl-C during a verb, and during the imports before it: one line and exit code 130.
Signal handlers of the surrounding program are restored.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import ROOT

from mindyolo_ext import cli
from mindyolo_ext.cli import interrupts
from mindyolo_ext.cli.about import add_info
from mindyolo_ext.cli.arguments import Verb


@pytest.fixture(autouse=True)
def own_handler() -> Iterator[list[int]]:
    """A SIGTERM handler of the surrounding program, and the signals it received; logging is
    restored too.
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
    """Make the verb ``info`` call ``run``."""
    monkeypatch.setattr(
        "mindyolo_ext.cli.parser.VERBS", (Verb("info", lambda _: run(), add_info, "for the test"),)
    )


def test_sigterm_ends_a_verb_and_the_old_handler_is_back(monkeypatch, capsys, own_handler):
    # raised in this thread: a signal to the process may reach another one first, and this one so
    # late that it is importing, where a signal ends the process
    info_that(monkeypatch, lambda: signal.raise_signal(signal.SIGTERM))
    assert cli.main(["info", "x"]) == 130
    assert "stopped by Ctrl-C" in capsys.readouterr().out
    assert own_handler == []
    signal.raise_signal(signal.SIGTERM)
    assert own_handler == [signal.SIGTERM]


def test_the_old_handler_is_back_after_an_error_and_after_success(monkeypatch, own_handler):
    for run, status in ((lambda: None, 0), (lambda: Path("nowhere").read_text(), 1)):
        info_that(monkeypatch, run)
        assert cli.main(["info", "x"]) == status
        signal.raise_signal(signal.SIGTERM)
    assert own_handler == [signal.SIGTERM] * 2


def test_a_verb_runs_in_another_thread_and_leaves_the_handler_alone(monkeypatch):
    during, statuses = [], []
    info_that(monkeypatch, lambda: during.append(signal.getsignal(signal.SIGTERM)))
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: statuses.append(cli.main(["info", "x"])))
    thread.start()
    thread.join()
    assert statuses == [0] and during == [before]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", ["train.py", "test.py", "-m mindyolo_ext.cli"])
def test_a_signal_during_imports_ends_with_one_line(tmp_path, number, program):
    """The module swallows what a handler raises, as frameworks do."""
    (tmp_path / "yaml.py").write_text(
        f"import os, signal\ntry:\n    os.kill(os.getpid(), {int(number)})\n"
        "except BaseException:\n    pass\nprint('swallowed')\n"
    )
    arguments = ["--config", "x.yaml"] + (["--weight", "x.ckpt"] if "test" in program else [])
    verb = ["train"] if "cli" in program else []
    done = subprocess.run(
        [sys.executable, *program.split(), *verb, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 130
    assert done.stdout.splitlines() == [f"error: {interrupts.MESSAGE}"]


def test_a_second_signal_does_not_wait_for_the_tidying_up(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, time\nfrom mindyolo_ext.cli import interrupts\n"
        "with interrupts.handled(for_good=True):\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        print('tidying up')\n"
    )
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_command_leaves_its_exit_code(number):
    """Python restores the default handlers while it exits, and frameworks exit slowly."""
    program = (
        "import os, sys\nfrom mindyolo_ext.cli import interrupts\n"
        "class Late:\n    def __init__(self):\n        self.kill, self.own = os.kill, os.getpid()\n"
        f"    def __del__(self):\n        self.kill(self.own, {int(number)})\n"
        "with interrupts.handled(for_good=True):\n    pass\n"
        "sys.late = Late()\nsys.exit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


def test_a_signal_ends_a_program_that_does_not_get_to_it(tmp_path):
    """As during a compilation: Python runs no handler before the call returns."""
    program = tmp_path / "program.py"
    program.write_text(
        "import hashlib, threading\nfrom mindyolo_ext.cli import interrupts\n"
        "interrupts.GRACE_SECONDS = 0.1\n"
        "with interrupts.handled(for_good=True):\n"
        "    try:\n        print('ready', flush=True)\n"
        "        hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)\n"
        "    except KeyboardInterrupt:\n        threading.Event().wait()\n"  # it came earlier
    )
    with subprocess.Popen(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        output = process.communicate(timeout=60)[0]
    assert (process.returncode, output) == (130, f"error: {interrupts.MESSAGE}\n")

"""n ranks with batch b give the loss and the weights of one rank with batch n * b, through real
launchers; a rank that fails ends all ranks.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from launching import ROOT, environment, mpirun, msrun, run, torchrun

PROGRAM = Path(__file__).parent / "ranks_program.py"
FAILING = ROOT / "tests" / "backend" / "failing_program.py"


@pytest.fixture(scope="module", autouse=True)
def failing_run(tmp_path_factory) -> Iterator[tuple[subprocess.Popen, Path]]:
    """Two ranks, one of which fails, and their output. They mostly wait for each other, so they
    start before the first test.
    """
    path = tmp_path_factory.mktemp("failing") / "output.txt"
    with path.open("w") as output:
        process = subprocess.Popen(
            [*mpirun(2), sys.executable, FAILING],
            env=environment(),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    yield process, path
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(
    "launcher, statistics",
    [
        ("mpirun", "synchronized"),
        pytest.param("msrun", "frozen", marks=[pytest.mark.all_cases, pytest.mark.needs_mindspore]),
        pytest.param("torchrun", "frozen", marks=pytest.mark.needs_torch),
    ],
)
def test_two_ranks_equal_one(launcher, statistics, tmp_path):
    out, alone = tmp_path / "two.npz", tmp_path / "one.npz"
    run([sys.executable, PROGRAM, alone, statistics])
    if launcher == "mpirun":
        run([*mpirun(2), sys.executable, PROGRAM, out, statistics])
    elif launcher == "msrun":
        run([*msrun(2, tmp_path / "log"), PROGRAM, out, statistics])
    else:
        run([*torchrun(2), PROGRAM, out, statistics])
    two, one = dict(np.load(out)), dict(np.load(alone))
    np.testing.assert_array_equal(np.bincount(two.pop("ranks").astype(int)), [3, 5003])
    one.pop("ranks", None)
    # float32 sums in another order: 2e-7 per sum; the second step's loss has passed an update
    np.testing.assert_allclose(
        two["reports"][:, [0, 4, 5, 6]], one["reports"][:, [0, 4, 5, 6]], rtol=2e-4
    )
    # Noise of 1e-7 in the images moves the norm of the second step's gradient by 1.5e-3
    for step, tolerance in enumerate((2e-4, 2e-2)):
        np.testing.assert_allclose(two["reports"][step, 1], one["reports"][step, 1], rtol=tolerance)
    moved = 0
    for name, value in one.items():
        if name != "reports":
            np.testing.assert_allclose(two[name], value, rtol=1e-4, atol=2e-5, err_msg=name)
            moved += 1
    assert moved > 300


def test_a_rank_that_fails_ends_all_and_leaves_no_scheduler(failing_run):
    process, output = failing_run
    # otherwise rank 0 waits in its barrier forever; the time limit shows that it does not
    assert process.wait(timeout=400) != 0
    assert "rank 1 has had enough" in output.read_text()
    assert_gone(lambda: session(process.pid))


def session(leader: int) -> str:
    """The processes that are left of a launcher's session."""
    return subprocess.run(["pgrep", "-s", str(leader)], capture_output=True, text=True).stdout


def assert_gone(processes: Callable[[], str]) -> None:
    """Make sure that an ended run leaves no process behind, within a moment."""
    for _ in range(200):
        if not processes():
            return
        time.sleep(0.1)
    assert not processes(), f"processes {processes().split()} outlived the run"


@pytest.mark.needs_mindspore
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the watch needs Linux 5.3 or later")
@pytest.mark.parametrize("joined", [True, pytest.param(False, marks=pytest.mark.all_cases)])
def test_msrun_names_the_rank_that_fails_and_ends_the_others(joined, tmp_path):
    """Without --join, only the watch beside the scheduler can end them."""
    log = tmp_path / "log"
    command = [part for part in msrun(2, log) if joined or not part.startswith("--join")]
    # every process has the port in its environment, for the heartbeats
    mark = next(part for part in command if part.startswith("--master_port")).partition("=")[2]
    done = run([*command, FAILING], check=False, timeout=400)
    message = "has exit code 1; the other ranks are ended; its log: " + str(log / "worker_1.log")
    if joined:
        assert done.returncode != 0 and message in done.stdout
    scheduler = log / "scheduler.log"
    for _ in range(3000):
        if message in scheduler.read_text():
            break
        time.sleep(0.1)
    assert re.search(r"ERROR: rank 1 .process \d+. " + message, scheduler.read_text())
    assert "bug in mindyolo_ext" not in scheduler.read_text()
    assert_gone(lambda: " ".join(with_environment(f"MS_SCHED_PORT={mark}")))


def with_environment(text: str) -> list[str]:
    """The running processes that have ``text`` in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(entry.name)
    return found

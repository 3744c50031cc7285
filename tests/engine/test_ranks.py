"""n ranks with batch b give the loss and the weights of one rank with batch n * b, through real
launchers; a rank that fails ends all.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from launching import ROOT, environment, mpirun, msrun, run, torchrun

PROGRAM = Path(__file__).parent / "ranks_program.py"
FAILING = ROOT / "tests" / "backend" / "failing_program.py"


@pytest.fixture(scope="module", autouse=True)
def failing_run(tmp_path_factory) -> Iterator[tuple[subprocess.Popen, Path]]:
    """Two ranks of which one fails, and their output. They mostly wait for each other, so they
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
        ("mpirun", "synchronised"),
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
    # rank 0 would wait in its barrier for ever: the time limit only says that it does not
    assert process.wait(timeout=400) != 0
    assert "rank 1 has had enough" in output.read_text()
    for _ in range(100):
        left = subprocess.run(
            ["pgrep", "-s", str(process.pid)], capture_output=True, text=True
        ).stdout
        if not left:
            break
        time.sleep(0.1)
    assert not left, f"processes {left.split()} outlived the run"

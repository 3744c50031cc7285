"""n ranks with batch b give the loss and the weights of one rank with batch n * b, through real
launchers.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from launching import mpirun, msrun, run

PROGRAM = Path(__file__).parent / "ranks_program.py"


@pytest.mark.parametrize(
    "launcher, statistics",
    [("mpirun", "synchronised"), pytest.param("msrun", "frozen", marks=pytest.mark.all_cases)],
)
def test_two_ranks_equal_one(launcher, statistics, tmp_path):
    out, alone = tmp_path / "two.npz", tmp_path / "one.npz"
    run([sys.executable, PROGRAM, alone, statistics])
    if launcher == "mpirun":
        run([*mpirun(2), sys.executable, PROGRAM, out, statistics])
    else:
        run([*msrun(2, tmp_path / "log"), PROGRAM, out, statistics])
    two, one = dict(np.load(out)), dict(np.load(alone))
    np.testing.assert_array_equal(np.bincount(two.pop("ranks").astype(int)), [3, 5003])
    one.pop("ranks", None)
    # float32 sums in another order: 2e-7 per sum; the second step's loss has passed an update
    np.testing.assert_allclose(
        two["reports"][:, [0, 1, 4, 5, 6]], one["reports"][:, [0, 1, 4, 5, 6]], rtol=2e-4
    )
    moved = 0
    for name, value in one.items():
        if name != "reports":
            np.testing.assert_allclose(two[name], value, rtol=1e-4, atol=2e-5, err_msg=name)
            moved += 1
    assert moved > 300

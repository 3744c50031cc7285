"""The launcher: what the environment says, wrong combinations, and failures that end all ranks."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import mpirun, run

from mindyolo_ext.backend import launch


@pytest.mark.parametrize(
    "environ, expected",
    [
        ({}, ("python", 1)),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, ("mpirun", 4)),
        ({"PMI_SIZE": "2"}, ("mpirun", 2)),
        ({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "8"}, ("msrun", 8)),
        ({"MS_ROLE": "MS_SCHED", "MS_WORKER_NUM": "8"}, ("msrun", 8)),
    ],
)
def test_who_started_this_process(environ, expected):
    assert launch.launcher_of(environ) == expected


def test_wrong_combinations(monkeypatch):
    with pytest.raises(
        ValueError, match="--device_target must be one of CPU, GPU, Ascend, got 'TPU'"
    ):
        launch.start("TPU")
    with pytest.raises(RuntimeError, match="needs several processes: start with `mpirun"):
        launch.start("CPU", is_parallel=True)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(
        RuntimeError, match="mpirun started 2 processes, but --is_parallel is False"
    ):
        launch.start("CPU")


def test_a_rank_that_fails_ends_all_and_leaves_no_scheduler():
    # rank 0 would wait in its barrier for ever: the time limit only says that it does not
    done = run(
        [*mpirun(2), sys.executable, Path(__file__).parent / "failing_program.py"],
        check=False,
        timeout=400,
    )
    assert done.returncode != 0 and "rank 1 has had enough" in done.stdout
    for _ in range(100):
        left = subprocess.run(
            ["pgrep", "-f", "mindyolo_ext.backend.on_mindspore.scheduler"],
            capture_output=True,
            text=True,
        ).stdout
        if not left:
            break
        time.sleep(0.1)
    assert not left, f"the scheduler {left} outlived its ranks"


def test_the_cache_folder_follows_recipe_and_sources(tmp_path):
    first = launch.cache_folder(tmp_path, "a: 1")
    assert first == launch.cache_folder(tmp_path, "a: 1") and first != launch.cache_folder(
        tmp_path, "a: 2"
    )

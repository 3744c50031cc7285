"""The launcher: the environment, wrong combinations, and the folder of compiled graphs."""

import pytest

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


def test_the_cache_folder_follows_recipe_and_sources(tmp_path):
    first = launch.cache_folder(tmp_path, "a: 1")
    assert first == launch.cache_folder(tmp_path, "a: 1") and first != launch.cache_folder(
        tmp_path, "a: 2"
    )

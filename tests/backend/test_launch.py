"""The launcher: the environment, wrong combinations, and the folder of compiled graphs."""

import pytest

from mindyolo_ext.backend import BACKEND, launch
from mindyolo_ext.errors import DeviceError


@pytest.mark.parametrize(
    "environ, expected",
    [
        ({}, ("python", 1)),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, ("mpirun", 4)),
        ({"PMI_SIZE": "2"}, ("mpirun", 2)),
        ({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "8"}, ("msrun", 8)),
        ({"MS_ROLE": "MS_SCHED", "MS_WORKER_NUM": "8"}, ("msrun", 8)),
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "3"}, ("torchrun", 3)),
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


def test_a_launcher_of_the_other_framework_is_told(monkeypatch):
    others = {
        "mindspore": ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}, "msrun --worker_num"),
        "torch": ({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "2"}, "torchrun --nproc_per_node"),
    }
    variables, command = others[BACKEND]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError, match=f"starts .* processes; the .* backend wants .*{command}"):
        launch.start("CPU", is_parallel=True)


@pytest.mark.needs_torch
def test_devices_that_pytorch_does_not_serve_here(monkeypatch):
    from mindyolo_ext.backend.on_torch import launch as on_torch

    with pytest.raises(DeviceError, match="Ascend: the PyTorch backend .*`--backend mindspore`"):
        launch.start("Ascend")
    monkeypatch.setattr(on_torch.torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="GPU: this PyTorch .* finds no GPU; install a build"):
        launch.start("GPU")
    monkeypatch.setattr(on_torch.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(on_torch.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(DeviceError, match="is to use GPU 1, but there are 1; start as many"):
        on_torch.configure("GPU", device_number=None, graph_mode=True, compile_cache=None)


@pytest.mark.needs_torch
def test_a_build_without_a_gpu_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="finds no GPU; install a build .*--device_target CPU"):
        launch.configure("GPU", device_number=None, graph_mode=True, compile_cache=None)


@pytest.mark.needs_mindspore
def test_a_device_that_mindspore_lacks_says_what_to_do() -> None:
    from mindyolo_ext.backend.on_mindspore.launch import _not_installed

    message = _not_installed("GPU", "'CPU'")
    assert "install them, take `--backend torch` with PyTorch for CUDA, or use --dev" in message
    assert "install them, or use --device_target CPU" in _not_installed("Ascend", "'CPU'")

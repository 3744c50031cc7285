"""The launcher: the environment, invalid combinations, and the folder of compiled graphs."""

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
    with pytest.raises(DeviceError, match=f"is for the .* backend; start .* with .*{command}"):
        launch.start("CPU", is_parallel=True)


@pytest.mark.needs_torch
def test_ascend_is_mindspores():
    with pytest.raises(DeviceError, match="Ascend: the PyTorch backend .*`--backend mindspore`"):
        launch.start("Ascend")


@pytest.mark.needs_torch
@pytest.mark.parametrize(
    "cuda, advice",
    [
        (None, "without CUDA and finds no GPU; .*`pip install --force-reinstall torch`, or use"),
        ("12.6", "for CUDA 12.6 and finds no GPU; check whether `nvidia-smi` .*, or use --device_"),
    ],
)
def test_no_gpu(monkeypatch, cuda, advice):
    from mindyolo_ext.backend.on_torch import launch as on_torch

    monkeypatch.setattr(on_torch.torch.version, "cuda", cuda)
    monkeypatch.setattr(on_torch.torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        DeviceError, match=f"--device_target GPU: this PyTorch .* is built {advice}"
    ):
        launch.start("GPU")


@pytest.mark.needs_torch
def test_a_gpu_that_is_not_there_or_not_to_be_used(monkeypatch):
    from mindyolo_ext.backend.on_torch import launch as on_torch

    def configure(number):
        on_torch.configure("GPU", device_number=number, graph_mode=True, compile_cache=None)

    def busy(_):
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy\nCUDA kernel errors ...")

    monkeypatch.setattr(on_torch.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(on_torch.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(on_torch.torch.cuda, "set_device", busy)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(DeviceError, match="needs GPU 1, but there are 1; .*: `mpirun -n 1 python"):
        configure(None)
    with pytest.raises(
        DeviceError, match="GPU 3, but there are 1; set DEVICE_ID to a number below"
    ):
        configure(3)
    with pytest.raises(DeviceError, match="GPU 0 cannot be used .*are busy.; check .*`nvidia-smi`"):
        configure(0)
    assert on_torch.device().type == "cpu", "a GPU that fails is not chosen"


@pytest.mark.needs_torch
def test_two_ranks_on_one_gpu(monkeypatch):
    """As on a machine where each rank sees only one GPU, and both see the same one."""
    from mindyolo_ext.backend.on_torch import launch as on_torch

    def duplicate(backend, device_id):
        assert (backend, device_id.type) == ("nccl", "cuda"), "connects immediately"
        raise RuntimeError(
            "NCCL error in: ProcessGroupNCCL.cpp:1, invalid usage\nLast error:\n"
            "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1b000"
        )

    monkeypatch.setattr(on_torch._State, "uses_cuda", True)
    monkeypatch.setattr(on_torch, "device", lambda: on_torch.torch.device("cuda", 0))
    monkeypatch.setattr(on_torch.distributed, "init_process_group", duplicate)
    with pytest.raises(DeviceError, match="NCCL requires a GPU per rank: start as many .*-L"):
        on_torch.join()


@pytest.mark.needs_mindspore
def test_a_device_that_mindspore_lacks_says_what_to_do() -> None:
    from mindyolo_ext.backend.on_mindspore.launch import _not_installed

    message = _not_installed("GPU", "'CPU'")
    assert "install them, use `--backend torch` with PyTorch for CUDA, or use --dev" in message
    assert "install them, or use --device_target CPU" in _not_installed("Ascend", "'CPU'")


@pytest.mark.needs_torch
@pytest.mark.parametrize(
    "environ, spans",
    [
        ({}, False),
        ({"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4"}, False),
        ({"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}, True),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "WORLD_SIZE": "4"}, True),
    ],
)
def test_whether_ranks_are_on_other_machines(environ, spans):
    from mindyolo_ext.backend.on_torch.launch import _spans_machines

    assert _spans_machines(environ) is spans

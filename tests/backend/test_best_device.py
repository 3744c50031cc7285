"""The device that a process chooses and the settings of MindSpore's compiler. Where the device is
missing, recorders replace the frameworks' own functions.
"""

import logging

import pytest

from mindyolo_ext.backend import BACKEND, launch
from mindyolo_ext.backend.graph_options import GraphOptions
from mindyolo_ext.backend.processes import local_rank
from mindyolo_ext.errors import DeviceError, UsageError

if BACKEND == "mindspore":
    import mindspore as ms

    from mindyolo_ext.backend.on_mindspore import launch as backend
else:
    from mindyolo_ext.backend.on_torch import launch as backend


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "3"}, 3),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "5", "OMPI_COMM_WORLD_RANK": "13"}, 5),
        ({"MPI_LOCALRANKID": "2", "PMI_RANK": "10"}, 2),
    ],
)
def test_the_local_rank_is_that_on_its_machine(environ, rank):
    assert local_rank(environ) == rank


# ---- the best device -----------------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch):
    """A process that has not chosen a device and whose environment names none; records what would
    be set.
    """
    calls = []
    monkeypatch.setattr(launch._State, "device", "")
    monkeypatch.setattr(launch, "prepare", lambda *_, **__: None)
    monkeypatch.setattr(
        launch, "configure", lambda device, **others: calls.append((device, others))
    )
    monkeypatch.delenv("DEVICE_ID", raising=False)
    return calls


def test_without_a_device_the_best_is_taken_and_named(fresh, monkeypatch, caplog):
    monkeypatch.setattr(launch, "best_device", lambda: "GPU")
    with caplog.at_level(logging.INFO):
        launch.start()
    assert fresh[0][0] == launch.device() == "GPU"
    lines = [line for line in caplog.messages if line.startswith("device: ")]
    assert lines == [f"device: GPU, the best that {BACKEND} finds (--device_target)"]


def test_a_device_that_is_named_or_there_already_is_kept_silently(fresh, monkeypatch, caplog):
    monkeypatch.setattr(launch, "best_device", lambda: "GPU")
    with caplog.at_level(logging.INFO):
        launch.start("CPU")
        launch.start()
    assert [device for device, _ in fresh] == ["CPU", "CPU"] and not caplog.messages


def test_device_id_is_the_number_of_a_single_process(fresh, monkeypatch):
    launch.start("CPU")
    monkeypatch.setenv("DEVICE_ID", "3")
    launch.start("CPU")
    assert [others["device_number"] for _, others in fresh] == [0, 3]
    monkeypatch.setenv("DEVICE_ID", "npu0")
    with pytest.raises(UsageError, match="DEVICE_ID=npu0: wanted the number of a device"):
        launch.start("CPU")


def test_a_rank_leaves_its_number_to_the_backend(fresh, monkeypatch):
    monkeypatch.setattr(launch, "join", lambda: (0, 1, ""))
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("DEVICE_ID", "7")
    launch.start("CPU", is_parallel=True)
    assert fresh[0][1]["device_number"] is None


def test_a_rank_table_alone_starts_nothing(monkeypatch):
    monkeypatch.setenv("RANK_TABLE_FILE", "table.json")
    with pytest.raises(DeviceError, match="several processes: .*msrun: --rank_table_file=FILE"):
        launch.start("CPU", is_parallel=True)


@pytest.mark.needs_torch
@pytest.mark.parametrize(("is_there", "device"), [(True, "GPU"), (False, "CPU")])
def test_the_best_device_of_torch(monkeypatch, is_there, device):
    monkeypatch.setattr(backend.torch.cuda, "is_available", lambda: is_there)
    assert backend.best_device() == device


@pytest.mark.needs_mindspore
@pytest.mark.parametrize(
    ("counts", "device"),
    [
        ({"Ascend": 8, "GPU": 1}, "Ascend"),
        ({"Ascend": 0, "GPU": 2}, "GPU"),  # Ascend's libraries without a device
        ({"GPU": 1}, "GPU"),
        ({}, "CPU"),
    ],
)
def test_the_best_device_of_mindspore(monkeypatch, counts, device):
    for name, module in (("Ascend", ms.device_context.ascend), ("GPU", ms.device_context.gpu)):
        monkeypatch.setattr(module, "is_available", lambda name=name: name in counts)
        monkeypatch.setattr(module, "device_count", lambda name=name: counts[name])
    assert backend.best_device() == device
    assert backend.device_count("CPU") == 1


@pytest.mark.needs_mindspore
def test_a_driver_that_fails_counts_as_no_device(monkeypatch):
    def fail():
        raise RuntimeError("Device Ascend not exist.")

    monkeypatch.setattr(ms.device_context.ascend, "is_available", lambda: True)
    monkeypatch.setattr(ms.device_context.ascend, "device_count", fail)
    assert backend.device_count("Ascend") == 0


# ---- one of several devices ----------------------------------------------------------------------


@pytest.mark.needs_mindspore
@pytest.mark.parametrize(
    ("environ", "device", "number", "taken"),
    [
        ({}, "Ascend", 3, 3),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "5"}, "Ascend", None, 5),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "5"}, "GPU", None, 5),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "5"}, "CPU", None, None),
        ({"MS_ROLE": "MS_WORKER", "DEVICE_ID": "5"}, "Ascend", None, None),  # msrun assigns them
    ],
)
def test_which_device_a_process_of_mindspore_takes(monkeypatch, environ, device, number, taken):
    set_devices = []
    monkeypatch.delenv("MS_ROLE", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(backend, "device_count", lambda _: 8)
    monkeypatch.setattr(ms, "set_device", lambda *arguments: set_devices.append(arguments))
    backend.configure(device, device_number=number, graph_mode=True, compile_cache=None)
    assert set_devices == [(device,) if taken is None else (device, taken)]


@pytest.mark.needs_mindspore
def test_more_processes_than_devices(monkeypatch):
    monkeypatch.setattr(backend, "device_count", lambda _: 4)
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", "4")
    with pytest.raises(DeviceError, match="needs device 4, but there are 4; start .* -n 4"):
        backend._own_number("Ascend", None)
    with pytest.raises(DeviceError, match="device 9, but there are 4; set DEVICE_ID to .* below 4"):
        backend._own_number("Ascend", 9)


# ---- the compiler --------------------------------------------------------------------------------


@pytest.fixture
def compiler(monkeypatch):
    """The arguments that MindSpore's setters get."""
    calls = []
    monkeypatch.setattr(ms, "set_context", lambda **keywords: calls.append(keywords))
    precision = ms.device_context.ascend.op_precision
    monkeypatch.setattr(precision, "precision_mode", lambda mode: calls.append(mode))
    return calls


@pytest.mark.needs_mindspore
@pytest.mark.parametrize(
    ("device", "options", "calls"),
    [
        ("Ascend", GraphOptions(), []),
        ("CPU", GraphOptions(jit_level="O1"), [{"jit_config": {"jit_level": "O1"}}]),
        ("GPU", GraphOptions(graph_kernel=True), [{"jit_config": {"jit_level": "O1"}}]),
        (
            "Ascend",
            GraphOptions("O0", precision_mode="force_fp16"),
            ["force_fp16", {"jit_config": {"jit_level": "O0"}}],
        ),
    ],
)
def test_options_reach_the_compiler(compiler, device, options, calls):
    backend._choose_compiler(device, options)
    assert compiler == calls


@pytest.mark.needs_mindspore
@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        (
            "CPU",
            GraphOptions(precision_mode="force_fp16"),
            "Ascend's compiler, but .* is CPU; .*O2",
        ),
        (
            "GPU",
            GraphOptions(precision_mode="force_fp16"),
            "Ascend's compiler, but .* is GPU; .*O2",
        ),
        (
            "CPU",
            GraphOptions(graph_kernel=True),
            "graph_kernel: .* but the device is CPU; leave it",
        ),
        ("GPU", GraphOptions("O2", graph_kernel=True), "is jit_level O1, got train.jit_level=O2"),
    ],
)
def test_options_that_a_device_lacks(compiler, device, options, message):
    with pytest.raises(DeviceError, match=message):
        backend._choose_compiler(device, options)
    assert compiler == []


@pytest.mark.needs_torch
@pytest.mark.parametrize(
    ("options", "instead"),
    [
        (GraphOptions(jit_level="O1"), "train.jit_level: .*--set train.compile=true"),
        (GraphOptions(graph_kernel=True), "train.graph_kernel: .*--set train.compile=true"),
        (GraphOptions(precision_mode="force_fp16"), "train.precision_mode: .*--ms_amp_level"),
    ],
)
def test_torch_names_its_own_options(options, instead):
    with pytest.raises(DeviceError, match=instead):
        launch.start("CPU", options=options)

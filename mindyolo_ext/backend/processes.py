"""The processes of a run, and how they were started. Loads no framework."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """The processes of this run. ``launcher`` is ``python``, ``mpirun``, ``msrun`` or
    ``torchrun``; ``local_size`` counts those on this machine.
    """

    rank: int = 0
    size: int = 1
    launcher: str = "python"
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs to the user."""
        return self.rank == 0


class _State:
    """The world of this process."""

    world = World()


def world() -> World:
    """Return the world set by ``launch.start``, a single process before that."""
    return _State.world


def enter_world(new: World) -> None:
    """Set the world of this process; ``launch.start`` calls this once."""
    _State.world = new


def local_rank(environ: Mapping[str, str]) -> int:
    """Return the number of this process on its machine, inferred from environment variables."""
    for name in ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"):
        if name in environ:
            return int(environ[name])
    return 0


def launcher_of(environ: Mapping[str, str]) -> tuple[str, int]:
    """Return launcher and number of processes, inferred from environment variables."""
    if environ.get("MS_ROLE") in ("MS_WORKER", "MS_SCHED"):
        return "msrun", int(environ.get("MS_WORKER_NUM", "1"))
    if "TORCHELASTIC_RUN_ID" in environ:
        return "torchrun", int(environ["WORLD_SIZE"])
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if name in environ:
            return "mpirun", int(environ[name])
    return "python", 1

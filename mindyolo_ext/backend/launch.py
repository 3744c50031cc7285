"""Starts the framework on one process or on the ranks of a launcher, on any device."""

import hashlib
import importlib.metadata
import os
from pathlib import Path

from mindyolo_ext.backend import initial, lifeline
from mindyolo_ext.backend.choice import BACKEND
from mindyolo_ext.backend.mpi import abort
from mindyolo_ext.backend.processes import World, enter_world, launcher_of, world
from mindyolo_ext.errors import DeviceError, UsageError

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.launch import (
        DEVICE_TARGETS,
        PARALLEL_COMMANDS,
        configure,
        join,
        prepare,
        seed_framework,
    )
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.launch import (
        DEVICE_TARGETS,
        PARALLEL_COMMANDS,
        configure,
        join,
        prepare,
        seed_framework,
    )

__all__ = [
    "DEVICE_TARGETS",
    "World",
    "abort",
    "cache_folder",
    "launcher_of",
    "set_seed",
    "start",
    "world",
]


class _State:
    """Whether ``start`` was called before; one per process."""

    started = False


def start(
    device_target: str = "CPU",
    *,
    is_parallel: bool = False,
    graph_mode: bool = True,
    compile_cache: str | None = None,
    seed: int | None = None,
) -> World:
    """Choose the device and join the other ranks, once per process.

    Args:
        device_target: one of ``DEVICE_TARGETS``.
        is_parallel: whether the processes of the launcher train together.
        graph_mode: False runs operator by operator, for debugging.
        compile_cache: folder where compiled graphs are kept for the next start.
        seed: of the numbers from which fresh weights are drawn, and of the framework's own.

    Raises: UsageError for an unknown device; DeviceError if launcher and ``is_parallel`` disagree,
        or the device or the other ranks cannot be reached; SystemExit at the end of the run in a
        process that only serves the others.
    """
    if device_target not in DEVICE_TARGETS:
        raise UsageError(
            f"--device_target must be one of {', '.join(DEVICE_TARGETS)}, got {device_target!r}"
        )
    launcher, size = launcher_of(os.environ)
    if is_parallel and launcher == "python":
        raise DeviceError(
            f"--is_parallel True needs several processes: start with {PARALLEL_COMMANDS}"
        )
    if size > 1 and not is_parallel:
        raise DeviceError(
            f"{launcher} started {size} processes, but --is_parallel is False: they would all do "
            "the same work. Add --is_parallel True, or start with plain python"
        )
    joins = is_parallel and not _State.started
    prepare(device_target, launcher=launcher, joins=joins)
    configure(
        device_target,
        device_number=None if size > 1 else int(os.environ.get("DEVICE_ID", "0")),
        graph_mode=graph_mode,
        compile_cache=compile_cache,
    )
    if joins:
        rank, size, meeting_point = join()
        enter_world(World(rank, size, launcher))
        from mindyolo_ext.backend.distributed import sum_over_ranks

        lifeline.tie(world(), sum_over_ranks, meeting_point, abort)
    _State.started = True
    if seed is not None:
        set_seed(seed)
    return world()


def set_seed(seed: int) -> None:
    """Seed the numbers from which fresh weights are drawn, and the framework's own."""
    initial.seed(seed)
    seed_framework(seed)


def cache_folder(root: str | Path, recipe: str) -> str:
    """The folder below ``root`` for compiled graphs of ``recipe`` as this version of the code
    builds them.

    A compiled graph holds constants (anchors, loss weights) that the framework's own check does not
    see, so the name is a hash of the recipe, the package's sources, the framework's version and the
    launcher's number of processes.
    """
    digest = hashlib.sha256(recipe.encode())
    for path in sorted(Path(__file__).resolve().parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    digest.update(f"{importlib.metadata.version(BACKEND)} {launcher_of(os.environ)}".encode())
    return str(Path(root).resolve() / digest.hexdigest()[:16])

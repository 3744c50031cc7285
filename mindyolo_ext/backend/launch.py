"""Start the framework in one process or on the ranks of a launcher, on any device."""

import hashlib
import importlib.metadata
import logging
import os
from dataclasses import replace
from pathlib import Path

from mindyolo_ext.backend import initial, lifeline
from mindyolo_ext.backend.choice import BACKEND
from mindyolo_ext.backend.graph_options import DEFAULTS, GraphOptions
from mindyolo_ext.backend.mpi import abort
from mindyolo_ext.backend.processes import World, enter_world, launcher_of, world
from mindyolo_ext.errors import DeviceError, UsageError

logger = logging.getLogger("mindyolo_ext")

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.launch import (
        DEVICE_TARGETS,
        PARALLEL_COMMANDS,
        best_device,
        configure,
        join,
        prepare,
        seed_framework,
    )
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.launch import (
        DEVICE_TARGETS,
        PARALLEL_COMMANDS,
        best_device,
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
    "device",
    "launcher_of",
    "set_seed",
    "start",
    "world",
]


class _State:
    """Device of this process after ``start``."""

    device = ""


def start(
    device_target: str | None = None,
    *,
    is_parallel: bool = False,
    graph_mode: bool = True,
    compile_cache: str | None = None,
    seed: int | None = None,
    options: GraphOptions = DEFAULTS,
) -> World:
    """Choose the device and join the other ranks, once per process.

    Args:
        device_target: one of ``DEVICE_TARGETS``; None keeps the device of this process, or else
            selects the best available one and logs it.
        is_parallel: whether the processes of the launcher train together.
        graph_mode: False runs operator by operator, for debugging.
        compile_cache: folder that keeps compiled graphs for the next start.
        seed: seed of initial weights and of the framework.
        options: compiler options.

    One of several processes takes the device with its number on its machine. A single process takes
    the device in the environment variable ``DEVICE_ID``, or the first one.

    Raises: UsageError for an unknown device or ``DEVICE_ID``; DeviceError if launcher and
        ``is_parallel`` disagree, or the device or the other ranks cannot be reached; SystemExit at
        the end of the run in a process that only serves the others.
    """
    if device_target and device_target not in DEVICE_TARGETS:
        raise UsageError(
            f"--device_target must be one of {', '.join(DEVICE_TARGETS)}, got {device_target!r}"
        )
    launcher, size = launcher_of(os.environ)
    _check_launcher(launcher, size, is_parallel=is_parallel)
    chosen = device_target or _State.device or best_device()
    joins = is_parallel and not _State.device
    prepare(chosen, launcher=launcher, joins=joins)
    configure(
        chosen,
        device_number=None if size > 1 else _device_number(),
        graph_mode=graph_mode,
        compile_cache=compile_cache,
        options=options,
    )
    if joins:
        rank, size, meeting_point = join()
        enter_world(World(rank, size, launcher))
        from mindyolo_ext.backend.distributed import sum_over_ranks

        here = lifeline.tie(world(), sum_over_ranks, meeting_point, abort)
        enter_world(replace(world(), local_size=here))
    if not (device_target or _State.device) and world().is_main:
        logger.info("device: %s, the best that %s finds (--device_target)", chosen, BACKEND)
    _State.device = chosen
    if seed is not None:
        set_seed(seed)
    return world()


def device() -> str:
    """Return the device of this process, one of ``DEVICE_TARGETS``; empty before ``start``."""
    return _State.device


def _check_launcher(launcher: str, size: int, *, is_parallel: bool) -> None:
    """Raises: DeviceError if launcher and ``is_parallel`` disagree."""
    if is_parallel and launcher == "python":
        table = (
            ", and pass the file in RANK_TABLE_FILE to msrun: --rank_table_file=FILE"
            if "RANK_TABLE_FILE" in os.environ
            else ""
        )
        raise DeviceError(
            f"--is_parallel True needs several processes: start with {PARALLEL_COMMANDS}{table}"
        )
    if size > 1 and not is_parallel:
        raise DeviceError(
            f"{launcher} started {size} processes, but --is_parallel is False: they would all do "
            "the same work. Add --is_parallel True, or start with plain python"
        )


def _device_number() -> int:
    """Return the device of a single process. Raises: UsageError for a wrong ``DEVICE_ID``."""
    text = os.environ.get("DEVICE_ID", "0")
    if not text.isdecimal():
        raise UsageError(f"DEVICE_ID={text}: wanted the number of a device, 0 or more")
    return int(text)


def set_seed(seed: int) -> None:
    """Seed initial weights and the framework."""
    initial.seed(seed)
    seed_framework(seed)


def cache_folder(root: str | Path, recipe: str) -> str:
    """Return the folder below ``root`` for graphs of ``recipe`` compiled by this version of the
    code.

    A compiled graph holds constants (anchors, loss weights) that the framework does not check. So
    the name is a hash of the recipe, the package's sources, the framework's version and the
    launcher's number of processes.
    """
    digest = hashlib.sha256(recipe.encode())
    for path in sorted(Path(__file__).resolve().parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    digest.update(f"{importlib.metadata.version(BACKEND)} {launcher_of(os.environ)}".encode())
    return str(Path(root).resolve() / digest.hexdigest()[:16])

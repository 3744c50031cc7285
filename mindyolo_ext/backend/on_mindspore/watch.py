"""Watch the ranks that ``msrun`` started on this machine, beside MindSpore's scheduler.

``msrun`` itself reports only that a process ended, and the scheduler waits half a minute for a
heartbeat. Without ``--join`` the other ranks would not end at all. The scheduler blocks Python, so
it has its own process. Linux only; other systems rely on the heartbeats.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_SEARCH_SECONDS = 1.0  # between two searches for new ranks
_GRACE_SECONDS = 3.0  # time for the other ranks to end normally
_SAME_RUN = ("MS_SCHED_HOST", "MS_SCHED_PORT")


@dataclass(frozen=True)
class Process:
    """A process to watch.

    Args:
        pid, handle: process ID, and a handle that becomes readable when the process ends.
        name: name for messages, ``rank 1``.
        log: file of its output, empty if unknown.
    """

    pid: int
    handle: int
    name: str
    log: str


def serve_and_watch(scheduler: Sequence[str]) -> int:
    """Run MindSpore's scheduler until it ends; end the run with a message as soon as a rank fails.
    Return the scheduler's exit code, 1 if a rank failed.

    Args:
        scheduler: command that starts the scheduler.
    """
    with subprocess.Popen(scheduler, stdin=subprocess.DEVNULL) as process:
        try:
            if not hasattr(os, "pidfd_open") or not _PROC.is_dir():
                return process.wait()
            return _Watch(process).run()
        finally:
            process.kill()


class _Watch:
    """Known ranks of this run, and ``msrun`` while it waits for them."""

    def __init__(self, scheduler: subprocess.Popen):
        self.scheduler = scheduler
        self.handle = os.pidfd_open(scheduler.pid)
        self.ranks: dict[int, Process] = {}
        self.gone: set[int] = set()
        self.launcher = _launcher()

    def run(self) -> int:
        """Wait until a process ends, searching for new ranks periodically. Return an exit code."""
        while True:
            self._find()
            watched = [*self.ranks.values(), *filter(None, [self.launcher])]
            by_handle = {process.handle: process for process in watched}
            ready, _, _ = select.select([self.handle, *by_handle], [], [], _SEARCH_SECONDS)
            for process in filter(None, map(by_handle.get, ready)):
                problem = self._problem(process)
                if problem:
                    sys.stdout.write(f"ERROR: {problem}\n")  # msrun shows lines with this word
                    sys.stdout.flush()
                    self._end_ranks()
                    return 1
            if self.handle in ready:
                return self.scheduler.wait()

    def _find(self) -> None:
        """Add the ranks that were started since the last search."""
        wanted = {key: os.environ.get(key) for key in _SAME_RUN}
        for entry in _PROC.iterdir():
            if not entry.name.isdecimal() or int(entry.name) in {*self.ranks, *self.gone}:
                continue
            values = _environment(entry)
            if values.get("MS_ROLE") != "MS_WORKER" or any(
                values.get(key) != value for key, value in wanted.items()
            ):
                continue
            process = _opened(int(entry.name), f"rank {values.get('RANK_ID', '?')}")
            # a child of a rank, such as a loader's worker, inherits its environment
            if process is not None and not _is_child_of(entry, self.ranks):
                self.ranks[process.pid] = process

    def _problem(self, process: Process) -> str:
        """Return why the run must end after ``process`` ended; empty if it ended normally."""
        if process is self.launcher:
            return "msrun has ended before its ranks; they are ended too"
        del self.ranks[process.pid]
        self.gone.add(process.pid)
        status = _exit_status(process.pid)
        if not status:
            return ""
        number = status & 127
        how = f"was killed by signal {number}" if number else f"has exit code {status >> 8}"
        log = f"; its log: {process.log}" if process.log else ""
        return f"{process.name} (process {process.pid}) {how}; the other ranks are ended{log}"

    def _end_ranks(self) -> None:
        """Let the other ranks end normally, and kill those that do not."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self.ranks.values():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process.handle, number)
            until = time.monotonic() + _GRACE_SECONDS
            for process in self.ranks.values():
                select.select([process.handle], [], [], max(0.0, until - time.monotonic()))


def _launcher() -> Process | None:
    """Open ``msrun`` if it started this process and waits for it."""
    parent = os.getppid()
    try:
        command = (_PROC / str(parent) / "cmdline").read_bytes()
    except OSError:
        return None
    return _opened(parent, "msrun") if b"msrun" in command else None


def _opened(pid: int, name: str) -> Process | None:
    """Open a process to watch it; None if it has ended."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        log = os.readlink(_PROC / str(pid) / "fd" / "1")
    except OSError:
        log = ""
    return Process(pid, handle, name, log if log.startswith("/") else "")


def _environment(entry: Path) -> dict[str, str]:
    """Read the environment variables of a process; empty without permission."""
    try:
        text = (entry / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(part.split("=", 1) for part in text.split("\0") if "=" in part)


def _stat(entry: Path) -> list[str]:
    """Read the fields of proc(5)'s ``stat`` from the third on; empty if the process has ended."""
    try:
        return (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _is_child_of(entry: Path, ranks: dict[int, Process]) -> bool:
    """Whether one of ``ranks`` started the process."""
    fields = _stat(entry)
    return not fields or int(fields[1]) in ranks


def _exit_status(pid: int) -> int:
    """Return how a process ended, as ``wait`` does; 0 if its status was read before."""
    fields = _stat(_PROC / str(pid))
    return int(fields[-1]) if fields and fields[0] == "Z" else 0

"""Worker processes, paired timing and the Markdown of the results."""

import argparse
import contextlib
import datetime
import functools
import json
import logging
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from marks import with_part

logger = logging.getLogger("benchmarks")
HERE = Path(__file__).resolve().parent
MAX_COUNT = 50
# A file in each peer's clone.
CLONES = {
    "yolo_fastestv2": "model/detector.py",
    "yolox": "yolox/models/yolo_head.py",
    "gold_yolo": "gold_yolo/reppan.py",
    "dynamicdet": "train_step2.py",
    "simple_yolo": "core/loss.py",
    "mindyolo": "mindyolo/models/losses/yolox_loss.py",
}
HEAD = (
    "what is timed",
    "ours",
    "peer",
    "ratio of medians",
    "quartiles of the paired ratios",
    "smallest .. largest",
    "target",
    "met",
)


class Skipped(Exception):
    """A case cannot run here; the text says what is missing."""


class Worker:
    """A process that answers jobs; it is stopped (SIGSTOP) while it has none."""

    def __init__(self, command: Sequence[str], log: Path):
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )

    def __call__(self, job: str, **arguments: object) -> object:
        """The answer to a job. Raises: RuntimeError with the worker's own traceback if it fails."""
        self.process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"job": job, "arguments": arguments}) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"worker ended during {job}:\n{self.log.read_text(errors='replace')[-3000:]}"
            )
        self.process.send_signal(signal.SIGSTOP)
        answer = json.loads(line)
        if "error" in answer:
            log = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{job}: in the worker:\n{answer['error']}\n{log}")
        return answer["value"]

    def close(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.stdin.close()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@dataclass
class Row:
    """Seconds of ours and of the peer, pair by pair.

    Args:
        target: largest acceptable ratio ours / peer.
        target_seconds: largest acceptable median of ours.
    """

    what: str
    ours: list[float]
    peer: list[float]
    target: float | None = None
    target_seconds: float | None = None
    note: str = ""

    def cells(self) -> list[str]:
        """The row's texts in the order of ``HEAD``."""
        ratios = sorted(a / b for a, b in zip(self.ours, self.peer, strict=True))
        low, _, high = (
            statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        )
        mine, other = statistics.median(self.ours), statistics.median(self.peer)
        wanted, met = "", ""
        if self.target is not None:
            wanted, met = f"<= {self.target:g}", "yes" if mine / other <= self.target else "no"
        if self.target_seconds is not None:
            wanted, met = (
                f"<= {self.target_seconds:g} s",
                "yes" if mine <= self.target_seconds else "no",
            )
        what = f"{self.what} ({self.note})" if self.note else self.what
        return [
            what,
            _seconds(mine),
            _seconds(other),
            f"**{mine / other:.3g}**",
            f"{low:.3g} .. {high:.3g}",
            f"{ratios[0]:.3g} .. {ratios[-1]:.3g}",
            wanted,
            met,
        ]


@dataclass
class Section:
    """The results of a case."""

    name: str
    rows: list[Row]
    notes: list[str]
    conditions: str

    def markdown(self) -> str:
        """Heading, notes, table and the conditions of the measurement."""
        lines = [f"### {self.name}", "", *self.notes, ""]
        if self.rows:
            lines += [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
            lines += [f"| {' | '.join(row.cells())} |" for row in self.rows]
            lines += ["", self.conditions]
        return "\n".join(lines).rstrip()


class Bench:
    """The tools of a case: options, a folder of its own, and the workers."""

    def __init__(self, options: argparse.Namespace, folder: Path, stack: contextlib.ExitStack):
        self.options, self.folder, self.stack = options, folder, stack
        self.shared = Path(options.shared)
        self.program_repeats = max(2, options.repeats // 5)
        self.workers: list[Worker] = []
        self.shares: list[float] = []  # of other programs, during each pair that counts
        self.waited = 0.0
        self.versions: dict[str, str] = {}
        stack.callback(self.close_workers)

    def ours(self) -> Worker:
        """A new process of this project."""
        return self._worker([sys.executable, str(HERE / "ours.py"), str(self.options.threads)])

    def theirs(self, family: str) -> Worker:
        """A new process of a family's original program. Raises: Skipped without its Python or
        clone.
        """
        return self._worker(self.theirs_command(family))

    def theirs_command(self, family: str) -> list[str]:
        """The command that starts the original."""
        if not self.options.torch_python:
            raise Skipped("needs --torch-python")
        clone = self.clone(family)
        return [
            self.options.torch_python,
            str(HERE / "theirs.py"),
            family,
            clone,
            str(self.options.threads),
        ]

    def mindyolo(self) -> Worker:
        """A new process of MindYOLO in this Python. Raises: Skipped without its clone."""
        return self._worker(
            [sys.executable, str(HERE / "mindyolo_peer.py"), self.clone("mindyolo")]
        )

    def clone(self, name: str) -> str:
        """The folder of a peer's clone. Raises: Skipped without one."""
        path = self.options.clones[name]
        if not path:
            raise Skipped(f"needs --{name.replace('_', '-')}-repo")
        self.need(path / CLONES[name])
        return str(path.resolve())

    def need(self, path: Path) -> None:
        """Raises: Skipped if ``path`` does not exist."""
        if not path.exists():
            raise Skipped(f"{path} does not exist")

    def _worker(self, command: list[str]) -> Worker:
        worker = Worker(command, self.folder / f"worker{len(self.workers)}.log")
        self.workers.append(worker)
        self.versions |= worker("about")
        return worker

    def close_workers(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()

    def interleave(self, tasks: Mapping[str, tuple[Worker, str]]) -> dict[str, list[float]]:
        """Seconds per call of each task, measured in turns; the first turn does not count."""
        counts = {}
        for name, (worker, task) in tasks.items():
            seconds = min(worker("measure", task=task, count=1) for _ in range(2))
            counts[name] = max(1, min(MAX_COUNT, round(self.options.min_seconds / seconds)))
        calls = {
            name: functools.partial(
                worker, "measure", task=task, count=counts[name], clock=self.options.clock
            )
            for name, (worker, task) in tasks.items()
        }
        return self.quiet_turns(calls, self.options.repeats)

    def quiet_turns(
        self, calls: Mapping[str, Callable[[], float]], repeats: int
    ) -> dict[str, list[float]]:
        """Results of each call from the ``repeats`` turns in which other programs used the machine
        least.

        A turn starts when the machine is quiet. Disturbed turns are repeated while ``--patience``
        lasts. Which turns count depends only on other programs' activity, never on the times.
        """
        turns: list[tuple[float, list[float]]] = []
        while sum(share <= self.options.quiet for share, _ in turns) < repeats:
            if len(turns) >= repeats and self.waited >= self.options.patience:
                break
            begin = time.monotonic()
            while self.waited + time.monotonic() - begin < self.options.patience:
                meter = Meter()
                time.sleep(0.5)
                if meter.share() <= self.options.quiet:
                    break
            self.waited += time.monotonic() - begin
            meter, begin = Meter(), time.monotonic()
            times = [call() for call in calls.values()]
            turns.append((meter.share(), times))
            if turns[-1][0] > self.options.quiet:
                self.waited += time.monotonic() - begin
        kept = sorted(turns, key=lambda turn: turn[0])[:repeats]
        self.shares += [share for share, _ in kept]
        found = {name: [times[i] for _, times in kept] for i, name in enumerate(calls)}
        medians = ", ".join(
            f"{name} {_seconds(statistics.median(times))}" for name, times in found.items()
        )
        logger.info(
            "   %s; others %.0f%%", medians, 100 * statistics.median(share for share, _ in kept)
        )
        return found


class Meter:
    """Measure the share of the machine used by programs other than this one and its children."""

    def __init__(self):
        self.begin, self.busy, self.own = (
            time.monotonic(),
            _busy_seconds(),
            _tree_seconds(os.getpid()),
        )

    def share(self) -> float:
        """0..1 since the meter was made."""
        others = _busy_seconds() - self.busy - (_tree_seconds(os.getpid()) - self.own)
        return max(0.0, others) / ((time.monotonic() - self.begin) * os.cpu_count())


def measured_section(
    name: str, bench: Bench, case: Callable[[Bench], tuple[list[Row], list[str]]]
) -> Section:
    """Run a case and note other activity on the machine."""
    load = os.getloadavg()[0]
    rows, notes = case(bench)
    versions = ", ".join(f"{key} {value}" for key, value in bench.versions.items())
    pairs = "/".join(sorted({str(len(row.ours)) for row in rows}, key=int))
    others = (
        f"{min(bench.shares):.0%} to {max(bench.shares):.0%}, "
        f"median {statistics.median(bench.shares):.0%}"
    )
    conditions = (
        f"{datetime.date.today()}; {processor_name()}, {bench.options.threads} of {os.cpu_count()} "
        f"processors, {bench.options.clock} time; {pairs} pairs, in which other programs took "
        f"{others} of the machine; load before {load:.1f}{'; ' + versions if versions else ''}."
    )
    return Section(name, rows, notes, conditions)


def program_seconds(
    command: Sequence[str], folder: Path, marks: Mapping[str, str]
) -> tuple[float, dict[str, float]]:
    """Seconds of a whole program, and seconds until it first printed a line with each of ``marks``.

    Raises: RuntimeError if it fails or a mark is missing.
    """
    begin, found, tail = time.perf_counter(), {}, []
    with (folder / "program.log").open("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder
        )
        for line in process.stdout:
            tail = [*tail[-30:], line]
            for name, text in marks.items():
                if text in line:
                    found.setdefault(name, time.perf_counter() - begin)
        status, seconds = process.wait(), time.perf_counter() - begin
    if status or len(found) < len(marks):
        log = (folder / "program.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(
            f"{' '.join(command)}: status {status}, wanted lines {dict(marks)}, saw {found}\n"
            f"{''.join(tail)}\n{log}"
        )
    return seconds, found


def write_sections(path: Path, sections: Sequence[Section]) -> None:
    """Replace the sections between their markers in ``path``, or add them at its end."""
    text = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
    for section in sections:
        text = with_part(text, section.name, section.markdown())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _seconds(value: float) -> str:
    """Seconds in readable form."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _busy_seconds() -> float:
    """Processor seconds that all programs used since the machine started."""
    numbers = [int(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(numbers) - numbers[3] - numbers[4]) / os.sysconf("SC_CLK_TCK")


def _tree_seconds(pid: int) -> float:
    """Processor seconds of a process and its descendants, including those that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        children = " ".join(
            path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")
        ).split()
    except OSError:  # it has ended
        return 0.0
    own = sum(int(v) for v in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + sum(_tree_seconds(int(child)) for child in children)


def processor_name() -> str:
    """Name of the processor."""
    match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return match.group(1) if match else "unknown processor"

"""Keep workers busy, replace those that ended, and count their verdicts."""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from mindyolo_ext.progress import bar

from .formats import MAKERS, make, write
from .verdict import ACCEPTED, FAT, FORBIDDEN, FOREIGN, OTHER, REFUSED, SLOW, Verdict

ROOT = Path(__file__).parents[2]
MUTANTS_PER_WORKER = 2000  # then a new one, so that memory kept by libraries does not add up


class Mutant(NamedTuple):
    """What a mutant is made from."""

    format: str
    seed: int
    number: int

    def command(self) -> str:
        """The command that reproduces it."""
        return (
            f"python -m tests.fuzz --format {self.format} --seed {self.seed} --number {self.number}"
        )


class Worker:
    """A process of ``program``, and a folder for what it writes."""

    def __init__(self, program: str):
        self.home = tempfile.TemporaryDirectory()
        self.errors = Path(self.home.name, "errors.txt")
        with self.errors.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", program, self.home.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                text=True,
            )
        self.left = MUTANTS_PER_WORKER

    def judge(self, mutant: Mutant) -> Verdict:
        """The verdict on ``mutant``, also if it ends the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.left -= 1
        try:
            self.process.stdin.write(" ".join(map(str, mutant)) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.left = 0
            return self._ended()
        verdict = Verdict(**json.loads(answer))
        if verdict.verdict in (FAT, FOREIGN):  # its remains would hide the next ones
            self.left = 0
        return verdict

    def _ended(self) -> Verdict:
        """The verdict on what ended the process: a crash, or a call that did not return."""
        status = self.process.wait()
        lines = self.errors.read_text(encoding="utf-8", errors="replace").splitlines()
        hung = status == -signal.SIGPROF or any(line.startswith("Timeout") for line in lines)
        # faulthandler writes the innermost line first
        place = next((line.strip() for line in lines if "mindyolo_ext/" in line), "no traceback")
        what = "no end" if hung else f"process ended with status {status}"
        return Verdict(SLOW if hung else OTHER, place=f"{what}: {place}", text="".join(lines[-1:]))

    def close(self) -> None:
        """End the process and remove its folder."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.home.cleanup()


def judged(
    mutants: Sequence[Mutant], program: str = "tests.fuzz.worker"
) -> Iterator[tuple[Mutant, Verdict]]:
    """Verdicts in the order of ``mutants``, by workers that run ``program``."""
    worker = Worker(program)
    try:
        for mutant in mutants:
            if worker.left <= 0:
                worker.close()
                worker = Worker(program)
            yield mutant, worker.judge(mutant)
    finally:
        worker.close()


@dataclass
class Row:
    """The outcomes of the mutants of one format."""

    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0  # of the slowest
    bytes: int = 0  # of the largest

    def add(self, verdict: Verdict) -> None:
        self.counts[verdict.verdict] = self.counts.get(verdict.verdict, 0) + 1
        self.seconds = max(self.seconds, verdict.seconds)
        self.bytes = max(self.bytes, verdict.bytes)


@dataclass
class Finding:
    """A forbidden verdict at one place: the first mutant that caused it, and how many did."""

    verdict: Verdict
    mutant: Mutant
    count: int = 0


@dataclass
class Report:
    """All verdicts, by format, and the forbidden ones by place."""

    rows: dict[str, Row] = field(default_factory=dict)
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.findings

    def add(self, mutant: Mutant, verdict: Verdict) -> None:
        self.rows.setdefault(mutant.format, Row()).add(verdict)
        if verdict.verdict in FORBIDDEN:
            key = verdict.verdict, verdict.place
            self.findings.setdefault(key, Finding(verdict, mutant)).count += 1

    def table(self, style: str = "simple") -> str:
        """A row per format and one for all; ``style`` is one of tabulate's."""
        verdicts = (REFUSED, ACCEPTED, *FORBIDDEN)
        columns = ("format", "tried", *verdicts, "slowest, s", "most memory, MB")
        lines = []
        for name, row in self.rows.items():
            counts = [row.counts.get(verdict, 0) for verdict in verdicts]
            lines.append([name, sum(counts), *counts, f"{row.seconds:.2f}", row.bytes >> 20])
        sums = [sum(column) for column in list(zip(*lines))[1:-2]]
        slowest = max(row.seconds for row in self.rows.values())
        most = max(row.bytes for row in self.rows.values()) >> 20
        return tabulate([*lines, ["all", *sums, f"{slowest:.2f}", most]], columns, tablefmt=style)

    def faults(self, *, shown: int = 50) -> str:
        """Every place with a forbidden verdict, the most frequent first."""
        found = sorted(self.findings.values(), key=lambda finding: -finding.count)
        lines = [
            f"{one.count} x {one.verdict.verdict}: {one.verdict.place}\n    {one.verdict.text}\n"
            f"    {one.mutant.command()}"
            for one in found[:shown]
        ]
        if len(found) > shown:
            lines.append(f"... and at {len(found) - shown} more places")
        return "\n".join(lines)

    def keep(self, folder: Path) -> None:
        """Save the files of every finding."""
        for finding in self.findings.values():
            mutant = finding.mutant
            write(make(*mutant), folder / f"{mutant.format}-{mutant.seed}-{mutant.number}")


def plan(count: int, seed: int, formats: Sequence[str] = tuple(MAKERS)) -> list[Mutant]:
    """``count`` mutants, the formats in turn."""
    return [Mutant(formats[i % len(formats)], seed, i // len(formats)) for i in range(count)]


def run(mutants: Sequence[Mutant], *, jobs: int = 1) -> Report:
    """Try ``mutants`` in ``jobs`` processes at a time."""
    report = Report()

    def work(start: int) -> list[tuple[Mutant, Verdict]]:
        share = mutants[start::jobs]
        show = start == 0 and sys.stderr.isatty()  # the others have come as far
        return list(bar(judged(share), total=len(share), title="mutants", show=show))

    with ThreadPoolExecutor(jobs) as pool:
        for found in pool.map(work, range(jobs)):
            for mutant, verdict in found:
                report.add(mutant, verdict)
    report.rows = {name: report.rows[name] for name in MAKERS if name in report.rows}
    return report

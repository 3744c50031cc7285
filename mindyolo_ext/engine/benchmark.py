"""Compare one network in several runtimes: accuracy, speed, size, memory, start-up time."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mindyolo_ext import atomic
from mindyolo_ext.config import Config
from mindyolo_ext.errors import RunError, UsageError, shown
from mindyolo_ext.framework import FRAMEWORKS, VARIABLE
from mindyolo_ext.runtimes.file import read_exported
from mindyolo_ext.runtimes.names import EXPORTED, is_exported, runtime_of

logger = logging.getLogger(__name__)
FILES = ("benchmark.json", "benchmark.txt")
_MARK = "benchmark: "


@dataclass
class Benchmark:
    """The result of ``benchmark``.

    Args:
        weight: the file.
        threads: per network, 0 for each runtime's default.
        rows: by runtime, the result of ``benchmark_worker.measure`` and the ``bytes`` of the file.
        failed: by runtime, the reason why it did not run.
    """

    weight: Path
    threads: int = 0
    rows: dict[str, dict[str, float | None]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def table(self) -> str:
        """One row per runtime in the given order, then those that failed."""
        head = ("runtime", "AP", "ms/image", "90 %", "MB", "memory, MB", "start-up, s", "")
        rows = [
            (
                name,
                _text(row["AP"], 2),
                _text(row["ms"], 1),
                _text(row["ms_90"], 1),
                _text((row["bytes"] or 0) / 1e6, 2),
                _text(row["memory"], 0),
                _text(row["start_up"], 2),
                "" if row["hard"] is None else f"{100 * row['hard']:.0f} % hard",
            )
            for name, row in self.rows.items()
        ]
        failed = [f"{name}: {reason}" for name, reason in self.failed.items()]
        table = tabulate(
            rows, head, disable_numparse=True, colalign=("left", *["right"] * 6, "left")
        )
        return "\n".join([table, *failed] if rows else failed)

    def save(self, folder: Path) -> None:
        """Write the table as text, and everything as JSON."""
        values = {
            "weight": str(self.weight),
            "threads": self.threads,
            "rows": self.rows,
            "failed": self.failed,
        }
        atomic.write_json(folder / FILES[0], values, indent=1)
        atomic.write_text(folder / FILES[1], self.table() + "\n")


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def benchmark(
    weight: Path,
    runtimes: Sequence[str],
    config: Config,
    folder: Path,
    *,
    split: str = "val",
    threads: int = 0,
    images: int | None = None,
) -> Benchmark:
    """Measure a network in each of ``runtimes``, one after the other, on the CPU with one image at
    a time.

    Args:
        weight: a checkpoint, which is exported into ``folder`` for runtimes that need it; or an
            exported file, for runtimes that run such files.
        config: recipe; its ``data`` and ``eval`` sections are used.
        folder: for exported files and the results.
        split: images of the recipe.
        threads: per network; 0 uses each runtime's default.
        images: largest number of images to process; AP is computed if these are all. None: all.

    Raises: UsageError for a runtime that cannot run the file, or a rectangular evaluation;
        RunError if no runtime could be measured.
    """
    if config.eval.rectangular:
        raise UsageError(
            "benchmark: compares runtimes at one size; set --set eval.rectangular=false"
        )
    names = list(dict.fromkeys(runtimes))
    for name in names:
        runtime_of(weight, name)
    size = tuple(config.input.size) or None
    copies = _Copies(weight, folder, size)
    atomic.write_text(folder / "recipe.yaml", config.to_yaml())
    task = {
        "recipe": str(folder / "recipe.yaml"),
        "split": split,
        "threads": threads,
        "images": images,
        "size": size,
    }
    found = Benchmark(weight, threads)
    for name in names:
        try:
            file = copies.file_for(name)
            row = _measured({**task, "weight": str(file), "runtime": name})
        except RunError as error:
            found.failed[name] = str(error)
            logger.error("%s: %s", name, error)
        else:
            found.rows[name] = {**row, "bytes": float(bytes_of(file))}
            logger.info("%s: %.1f ms per image", name, row["ms"])
    if not found.rows:
        raise RunError(
            f"benchmark: no runtime could be measured; the first: {found.failed[names[0]]}"
        )
    found.save(folder)
    return found


class _Copies:
    """Exported copies of a checkpoint in ``folder``, each written once."""

    def __init__(self, weight: Path, folder: Path, size: tuple[int, int] | None):
        self.weight, self.folder, self.size = weight, folder, size
        self.made: dict[str, Path] = {}

    def file_for(self, runtime: str) -> Path:
        """The file that ``runtime`` runs. Raises: RunError if the export fails."""
        if is_exported(self.weight) or runtime in FRAMEWORKS:
            return self.weight
        kind = EXPORTED[runtime].format
        if not kind:
            raise RunError("give the .engine of deploy/build_tensorrt.py")
        if kind not in self.made:
            self.made[kind] = self._export(kind)
        return self.made[kind]

    def _export(self, kind: str) -> Path:
        folder = self.folder / kind
        output = folder / self.weight.stem
        size = [] if self.size is None else ["--img_size", *map(str, self.size)]
        _run(
            ["mindyolo_ext.cli", "export", "--weight", str(self.weight), "--format", kind]
            + ["--output", str(output), *size],
            framework="mindspore" if kind == "mindir" else None,
        )
        # A routed model has several files, and each of them names the others
        return next(path for path in sorted(folder.iterdir()) if is_exported(path))


def bytes_of(file: Path) -> int:
    """Size of a network; for an exported one, of all its files."""
    if not is_exported(file):
        return file.stat().st_size
    files = read_exported(file).files or {"": file}
    weights = [path.with_suffix(".bin") for path in files.values()]
    return sum(path.stat().st_size for path in [*files.values(), *weights] if path.is_file())


def _measured(task: Mapping[str, Any]) -> dict[str, float | None]:
    """Measure one runtime in a separate process. Raises: RunError if it fails."""
    runtime = task["runtime"]
    framework = {"mindir": "mindspore"}.get(runtime, runtime if runtime in FRAMEWORKS else None)
    began = json.dumps({**task, "began": time.time()})
    output = _run(["mindyolo_ext.engine.benchmark_worker"], framework=framework, given=began)
    answer = json.loads(output[output.rindex(_MARK) + len(_MARK) :])
    if "error" in answer:
        raise RunError(answer["error"])
    return answer


def _run(module: Sequence[str], *, framework: str | None, given: str = "") -> str:
    """Run a module of this package and return its standard output. Raises: RunError if it fails."""
    variables = dict(os.environ)
    if framework is not None:
        variables[VARIABLE] = framework
    done = subprocess.run(
        [sys.executable, "-m", *module],
        env=variables,
        input=given,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        last = lines[-1].removeprefix("error: ") if lines else f"status {done.returncode}"
        raise RunError(shown(last, 500))
    return done.stdout

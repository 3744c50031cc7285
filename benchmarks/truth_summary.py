"""Ends of whole trainings, from the CSV files of ``training_truth.py``, in one table:

    python benchmarks/truth_summary.py benchmarks/results docs/parity.md

puts it between the marks ``<!-- trainings -->`` and ``<!-- end of trainings -->`` of the page.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from marks import with_part
from scipy import stats
from tabulate import tabulate
from truth_families import FAMILIES

from mindyolo_ext.atomic import write_text

LAST = 5  # epochs whose losses are averaged
ALIKE = 1e-6
HEAD = ("training", "epochs", "seeds", "", "original", "here", "difference", "95 %", "p (Welch)")


def compared(first: np.ndarray, second: np.ndarray) -> tuple[str, ...]:
    """Mean and deviation of both, their difference, its 95 % interval and p by Welch's test; no
    interval and no p if the seeds of both sides are equal.
    """
    digits = 2 if max(first.mean(), second.mean()) >= 1 else 4
    spread = [f"{x.mean():.{digits}f} +- {x.std(ddof=1):.{digits}f}" for x in (first, second)]
    gap = f"{second.mean() - first.mean():+.{digits}f}"
    if max(np.ptp(first), np.ptp(second)) < ALIKE:
        return *spread, gap, "-", "-"
    found = stats.ttest_ind(second, first, equal_var=False)
    low, high = found.confidence_interval()
    return *spread, gap, f"{low:+.{digits}f} to {high:+.{digits}f}", f"{found.pvalue:.3f}"


def picked(rows: Sequence[dict], side: str, epoch: int, name: str, *, since: int = 1) -> np.ndarray:
    """The values of all seeds, each a mean over the last ``since`` epochs."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row["side"] == side and epoch - since < int(row["epoch"]) <= epoch:
            found.setdefault(row["seed"], []).append(float(row[name]))
    return np.array([np.mean(values) for values in found.values()])


def summary(folder: Path) -> str:
    """A row per training, side and number at the end."""
    lines: list[Sequence[object]] = []
    for name, family in FAMILIES.items():
        path = folder / f"truth_{name}.csv"
        if not path.is_file():
            continue
        with path.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        epochs = max(int(row["epoch"]) for row in rows)
        for side in list(dict.fromkeys(row["side"] for row in rows))[1:]:
            where = f"`{name}`" + ("" if side == "ours" else f", {side}")
            seeds = len({row["seed"] for row in rows if row["side"] == side})
            start: tuple[object, ...] = (where, epochs, seeds)
            for column in (*family.metrics, "loss"):
                since = LAST if column == "loss" else 1
                both = (picked(rows, x, epochs, column, since=since) for x in ("original", side))
                lines.append((*start, column, *compared(*both)))
                start = ("", "", "")
    return tabulate(lines, HEAD, tablefmt="github", disable_numparse=True)


def with_summary(page: str, folder: Path) -> str:
    """The text of a page with the table between its marks."""
    return with_part(page, "trainings", summary(folder))


if __name__ == "__main__":
    results, target = map(Path, sys.argv[1:])
    write_text(target, with_summary(target.read_text(encoding="utf-8"), results))

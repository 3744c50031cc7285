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

from mindyolo_ext.atomic import write_text

FAMILIES = (
    "yolo_fastestv2",
    "yolox",
    "gold_yolo_n",
    "gold_yolo_n_step2",
    "dynamicdet_w0125",
    "dynamicdet_w0125_step2",
    "simple_yolo_single_grid",
    "simple_yolo_nearby_grid",
    "simple_yolo_all_grid",
)
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


def ends(path: Path) -> tuple[int, dict[str, dict[str, np.ndarray]]]:
    """Number of epochs, and by the side and the column the values of all seeds at the end."""
    with path.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    last = max(int(row["epoch"]) for row in table)
    found: dict[str, dict[str, np.ndarray]] = {}
    for side in dict.fromkeys(row["side"] for row in table):
        rows = [row for row in table if row["side"] == side]
        columns = found.setdefault(side, {})
        for name in list(table[0])[3:]:
            if name[:2] in ("AP", "th"):
                columns[name] = np.array([float(r[name]) for r in rows if int(r["epoch"]) == last])
        losses: dict[str, list[float]] = {}
        for row in rows:
            if int(row["epoch"]) > last - LAST:
                losses.setdefault(row["seed"], []).append(float(row["loss"]))
        columns["loss"] = np.array([np.mean(its) for its in losses.values()])
    return last, found


def summary(folder: Path) -> str:
    """A row per training, side and number."""
    lines: list[Sequence[object]] = []
    for family in FAMILIES:
        path = folder / f"truth_{family}.csv"
        if not path.is_file():
            continue
        epochs, sides = ends(path)
        for side in list(sides)[1:]:
            where = f"`{family}`" + ("" if side == "ours" else f", {side}")
            start: tuple[object, ...] = (where, epochs, len(sides[side]["loss"]))
            for column, values in sides[side].items():
                lines.append((*start, column, *compared(sides["original"][column], values)))
                start = ("", "", "")
    return tabulate(lines, HEAD, tablefmt="github", disable_numparse=True)


def with_summary(page: str, folder: Path) -> str:
    """The text of a page with the table between its marks."""
    return with_part(page, "trainings", summary(folder))


if __name__ == "__main__":
    results, target = map(Path, sys.argv[1:])
    write_text(target, with_summary(target.read_text(encoding="utf-8"), results))

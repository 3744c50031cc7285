"""Plot a routed model: accuracy over FLOPs and speed, and the easiness of a data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mindyolo_ext.visual.colors import LINE_COLORS
from mindyolo_ext.visual.figure import save_figure


def plot_tradeoff(
    rows: Sequence[Mapping[str, float]], out_png: str | Path, *, title: str = ""
) -> None:
    """Plot AP over GFLOPs and over images per second, a point per threshold.

    Args:
        rows: per threshold ``easy`` (share in 0..1), ``gflops``, ``images_per_second`` and ``AP``
            (0..1).
        out_png: file to write.
        title: title of the figure.

    Raises: ValueError without rows.
    """
    if not rows:
        raise ValueError("plot_tradeoff: wanted at least one threshold, got none")
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    figure.suptitle(title)
    work, speed = figure.subplots(1, 2)
    _points(work, rows, "gflops", "mean GFLOPs per image")
    _points(speed, rows, "images_per_second", "images per second")
    save_figure(figure, out_png)


def _points(axes: Axes, rows: Sequence[Mapping[str, float]], column: str, label: str) -> None:
    """Plot AP over ``column``, each point with its share of easy images."""
    x, y = [row[column] for row in rows], [100 * row["AP"] for row in rows]
    axes.plot(x, y, marker="o", markersize=4, linewidth=1.6)
    for row, place in zip(rows, zip(x, y)):
        axes.annotate(
            f"{100 * row['easy']:.0f} %",
            place,
            xytext=(4, -10),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set(xlabel=label, ylabel="AP, %")
    axes.set_title("labels: share of easy images", fontsize=9)
    axes.margins(0.08)
    axes.grid(alpha=0.3)


def plot_easiness(easiness: np.ndarray, thresholds: np.ndarray, out_png: str | Path) -> None:
    """Plot a histogram of the easiness of a data set, with the thresholds for 90, 50 and 10 % easy
    images.

    Args:
        easiness: (N,) easiness of each image.
        thresholds: (11,) thresholds for 0, 10, ... 100 % hard images.
        out_png: file to write.

    Raises: ValueError without images or for another number of thresholds.
    """
    if not len(easiness) or len(thresholds) != 11:
        raise ValueError(
            f"plot_easiness: wanted images and 11 thresholds, got {len(easiness)} and "
            f"{len(thresholds)}"
        )
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    bins = min(60, max(10, len(easiness) // 10))
    axes.hist(np.asarray(easiness, np.float64), bins=bins, color="0.7")
    for index, color, dashes in zip((1, 5, 9), LINE_COLORS, ("--", "-", ":")):
        axes.axvline(
            thresholds[index],
            color=color,
            linestyle=dashes,
            linewidth=2,
            label=f"{100 - 10 * index} % easy above {thresholds[index]:.6f}",
        )
    axes.set(
        title=f"Easiness of {len(easiness)} images",
        xlabel="easiness (below the threshold: second exit)",
        ylabel="images",
    )
    axes.legend(fontsize=9)
    axes.grid(alpha=0.3)
    save_figure(figure, out_png)

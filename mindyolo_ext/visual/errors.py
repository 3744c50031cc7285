"""Plot the errors of an evaluation: the confusion matrix and the kinds of errors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mindyolo_ext.evaluation.error_kinds import KINDS, Breakdown
from mindyolo_ext.visual.colors import LINE_COLORS
from mindyolo_ext.visual.figure import save_figure

_WITH_NUMBERS = 20  # classes of a matrix whose cells have room for their counts


def plot_confusion(
    matrix: np.ndarray, class_names: Sequence[str], out_png: str | Path, *, confidence: float
) -> None:
    """Plot the confusion matrix; each row shows shares of its true class.

    Args:
        matrix: (K + 1, K + 1) counts, true classes in rows, detected ones in columns, background
            last.
        class_names: K names.
        confidence: lowest confidence of the detections, for the title.
    """
    names = [*class_names, "background"]
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(5.0, 0.45 * len(names) + 2.5), 16.0)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    font = 9 if len(names) <= _WITH_NUMBERS + 1 else 6
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font)
    axes.set_yticks(range(len(names)), names, fontsize=font)
    axes.set(xlabel="detected", ylabel="true")
    axes.set_title(f"Confusion at IoU 0.5, confidence from {confidence:.3f}")
    if len(names) <= _WITH_NUMBERS + 1:
        for row, column in np.argwhere(matrix > 0).tolist():
            color = "white" if share[row, column] > 0.5 else "black"
            text = str(matrix[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    save_figure(figure, out_png)


def plot_errors(errors: Breakdown, out_png: str | Path) -> None:
    """Plot the AP50 that each kind of error costs, and the errors by size and shape."""
    figure = Figure(figsize=(12.5, 4.8), layout="constrained")
    costs, shapes = figure.subplots(1, 2, width_ratios=(1, 1.5))
    names = [*KINDS, "missed"]
    bars = costs.barh(names, [100 * errors.gains[name] for name in names], color=LINE_COLORS[4])
    costs.bar_label(bars, fmt="%.1f", padding=3)
    costs.invert_yaxis()
    costs.margins(x=0.15)
    costs.set(title=f"What each kind costs (AP50 {100 * errors.ap50:.1f} %)", xlabel="AP50, %")
    costs.grid(alpha=0.3, axis="x")
    _stacked(shapes, errors)
    shapes.set(title=f"Boxes and errors above {errors.confidence:.3f}", xlabel="number")
    save_figure(figure, out_png)


def _stacked(axes: Axes, errors: Breakdown) -> None:
    """Draw a bar of found objects and errors for each size and shape."""
    names = [bucket.name for bucket in errors.buckets]
    left = np.zeros(len(names))
    values = {"found": [bucket.found for bucket in errors.buckets]}
    for kind in (*KINDS, "missed"):
        values[kind] = [bucket.errors[kind] for bucket in errors.buckets]
    for color, (kind, counts) in zip(LINE_COLORS, values.items()):
        axes.barh(names, counts, left=left, label=kind, color=color, edgecolor="white")
        left += counts
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, axis="x")

"""Plot a training run and an evaluation as PNG files, without a display."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mindyolo_ext.evaluation.coco_map import CocoClass, CocoResult
from mindyolo_ext.evaluation.confidence import curves
from mindyolo_ext.visual.colors import LINE_COLORS
from mindyolo_ext.visual.figure import save_figure

_BOOKKEEPING = (
    "epoch",
    "gradient_norm",
    "finite",
    "loss_scale",
    "seconds",
    "seconds_waiting_for_data",
)
_MAIN_METRICS = ("AP", "AP50", "AP75", "own_AP50", "voc07_AP50", "voc_AP50")
_VALIDATION = "val_"
_METRICS = (
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
    "own_precision",
    "own_recall",
    "own_F1",
)
_THRESHOLDS = np.linspace(0, 1, 201)  # of confidence
_LEGEND_CLASSES = 12
_MARKERS = "os^Dv*PX"


def plot_results(results_csv: str | Path, out_png: str | Path) -> None:
    """Plot losses, learning rate and accuracy over the epochs of a run.

    Args:
        results_csv: table with a row per epoch and the columns ``epoch``, ``loss``, ``lr``, the
            terms of the loss and, in epochs with an evaluation, metrics in 0..1. Empty cells and
            non-finite numbers are skipped. A column ``val_X`` becomes a dashed line in the color
            of ``X``.
        out_png: file to write; its epochs count from 1.

    Raises: FileNotFoundError; ValueError if the file has no rows or no column ``epoch``.
    """
    columns = _read_columns(Path(results_csv))
    epochs = columns["epoch"] + 1
    known = {*_BOOKKEEPING, *_MAIN_METRICS, *_METRICS, "loss", "lr"}
    terms = [n for n in columns if n not in known and not n.startswith(_VALIDATION)]
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    (loss, parts), (rate, accuracy) = figure.subplots(2, 2, sharex=True)
    _lines(loss, epochs, columns, ["loss"], title="Loss")
    _lines(parts, epochs, columns, terms, title="Terms of the loss")
    _lines(rate, epochs, columns, ["lr"], title="Learning rate")
    _lines(
        accuracy,
        epochs,
        {name: 100 * values for name, values in columns.items()},
        _MAIN_METRICS,
        title="Accuracy, %",
    )
    for axes in (loss, parts):
        _logarithmic_if_wide(axes)
    save_figure(figure, out_png)


def _read_columns(path: Path) -> dict[str, np.ndarray]:
    """Read the columns of a numeric table by name; empty and non-finite cells become NaN."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names, rows = reader.fieldnames or [], list(reader)
    if "epoch" not in names or not rows:
        raise ValueError(
            f"{path}: wanted a column epoch and a row per epoch, got columns {names}, {len(rows)} "
            "rows"
        )
    return {name: np.array([_number(row[name], path) for row in rows]) for name in names}


def _number(text: str | None, path: Path) -> float:
    """Parse the number in a cell."""
    try:
        value = float(text) if text else math.nan
    except ValueError:
        raise ValueError(f"{path}: wanted numbers, got {text!r}") from None
    return value if math.isfinite(value) else math.nan


def _lines(
    axes: Axes,
    epochs: np.ndarray,
    columns: dict[str, np.ndarray],
    names: Sequence[str],
    *,
    title: str,
) -> None:
    """Plot a line per named column that has numbers, over the epochs that have them."""
    axes.set_prop_cycle(color=LINE_COLORS)
    for name in names:
        drawn = _line(axes, epochs, columns.get(name), name.replace("own_", "own "))
        if drawn is not None:
            other = _VALIDATION + name
            _line(axes, epochs, columns.get(other), other, color=drawn, linestyle="--")
    axes.set_title(title, fontsize=12)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.xaxis.set_tick_params(labelbottom=True)  # a shared axis would hide them
    if len(axes.lines) > 1:
        axes.legend(fontsize=9)
    if not axes.lines:
        axes.text(
            0.5,
            0.5,
            "no values yet",
            ha="center",
            va="center",
            transform=axes.transAxes,
            color="0.5",
        )


def _line(
    axes: Axes, epochs: np.ndarray, values: np.ndarray | None, label: str, **style: Any
) -> Any:
    """Plot a line over the epochs that have a number. Return its color, None without numbers."""
    there = np.zeros(0, bool) if values is None else np.isfinite(values)
    if values is None or not there.any():
        return None
    marker = _MARKERS[len(axes.lines) % len(_MARKERS)] if there.sum() <= 40 else None
    style = {"marker": marker, "markersize": 3.5, "linewidth": 1.6, "label": label, **style}
    return axes.plot(epochs[there], values[there], **style)[0].get_color()


def _logarithmic_if_wide(axes: Axes) -> None:
    """Use a logarithmic axis if the values are positive and span more than a factor of 50."""
    values = np.concatenate([line.get_ydata() for line in axes.lines]) if axes.lines else np.ones(1)
    if values.min() > 0 and values.max() > 50 * values.min():
        axes.set_yscale("log")


def plot_pr_curves(result: CocoResult, out_png: str | Path) -> None:
    """Plot precision over recall at IoU 0.5, per class and on average, as in COCO (envelopes).

    Raises: ValueError if the ground truth has no boxes.
    """
    classes = _classes_with_truth(result)
    precision = result.precision50[:, classes]
    figure, axes = _square(
        f"Precision and recall at IoU 0.5, AP50 {100 * result.ap50:.1f} %", "recall", "precision"
    )
    _curves(axes, result.recall, precision, [result.per_class[k] for k in classes])
    save_figure(figure, out_png)


def plot_f1_curves(result: CocoResult, out_png: str | Path) -> None:
    """Plot F1 at IoU 0.5 over the confidence threshold, per class and on average, to help choose a
    threshold.

    Raises: ValueError if the ground truth has no boxes.
    """
    scores = _over_confidence(result)["F1"]
    mean = scores.mean(axis=1)
    best = int(mean.argmax())
    figure, axes = _square(
        f"F1 at IoU 0.5, best mean {mean[best]:.2f} at confidence {_THRESHOLDS[best]:.2f}",
        "confidence threshold",
        "F1",
    )
    classes = [result.per_class[k] for k in _classes_with_truth(result)]
    _curves(axes, _THRESHOLDS, scores, classes)
    axes.axvline(_THRESHOLDS[best], color="0.4", linestyle="--", linewidth=1)
    save_figure(figure, out_png)


def plot_over_confidence(result: CocoResult, what: str, out_png: str | Path) -> None:
    """Plot precision or recall at IoU 0.5 over the confidence threshold, per class and on average.

    Args:
        what: ``precision``, whose lines end at the class's best score, or ``recall``.

    Raises: ValueError if the ground truth has no boxes.
    """
    values = _over_confidence(result)[what]
    figure, axes = _square(f"{what.capitalize()} at IoU 0.5", "confidence threshold", what)
    classes = [result.per_class[k] for k in _classes_with_truth(result)]
    _curves(axes, _THRESHOLDS, values, classes)
    save_figure(figure, out_png)


def _over_confidence(result: CocoResult) -> dict[str, np.ndarray]:
    """Compute precision, recall and F1 (T, K) at ``_THRESHOLDS`` for the classes with ground truth.

    Raises: ValueError if the ground truth has no boxes.
    """
    columns = [
        curves(
            result.scores50[k], result.hits50[k], result.per_class[k].num_ground_truth, _THRESHOLDS
        )
        for k in _classes_with_truth(result)
    ]
    stacked = (np.stack(values, axis=1) for values in zip(*columns))
    return dict(zip(("precision", "recall", "F1"), stacked))


def _classes_with_truth(result: CocoResult) -> list[int]:
    """Return the indices of the classes with ground truth. Raises: ValueError without any."""
    classes = [k for k, c in enumerate(result.per_class) if not math.isnan(c.ap)]
    if not classes:
        raise ValueError("plot: the ground truth has no boxes, so there is no curve")
    return classes


def _square(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Create a figure with both axes from 0 to 1."""
    figure = Figure(figsize=(8.5, 6.2), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=LINE_COLORS)
    axes.set(title=title, xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    return figure, axes


def _curves(axes: Axes, x: np.ndarray, lines: np.ndarray, classes: Sequence[CocoClass]) -> None:
    """Plot a thin line per class (x (T,), lines (T, K)), named if there are few, and a thick line
    for their mean.
    """
    few = len(classes) <= _LEGEND_CLASSES
    for k, one in enumerate(classes):
        style = (
            {"label": f"{one.name} (AP50 {100 * one.ap50:.1f})", "alpha": 0.9}
            if few
            else {"color": "0.65", "alpha": 0.5}
        )
        if not few and k == 0:
            style["label"] = "one line per class"
        axes.plot(x, lines[:, k], linewidth=1.2 if few else 0.8, **style)
    there = np.isfinite(lines).any(axis=1)
    axes.plot(
        x[there],
        np.nanmean(lines[there], axis=1),
        color="tab:blue" if not few else "black",
        linewidth=3,
        label="mean of the classes" + ("" if few else f" ({len(classes)})"),
    )
    axes.legend(
        fontsize=9,
        loc="upper left" if few else "best",
        bbox_to_anchor=(1.01, 1) if few else None,
    )

"""Plot the boxes of a data set: classes, number, sizes and positions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.visual.figure import save_figure

_MOST_IMAGES = 5000  # images whose boxes are measured; their sizes may have to be read from files
_MOST_NAMES = 30
_BINS = 50
_MOST_LINEAR = 20  # with more boxes in a bin, the color scale is logarithmic


def plot_labels(dataset: Dataset, out_png: str | Path) -> None:
    """Plot the boxes per class, the boxes per image, and the sizes and centers of boxes relative to
    their image, without ignored boxes.

    Boxes are counted in all images, and measured in at most 5000 images spread over the set.
    """
    count = min(len(dataset), _MOST_IMAGES)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int))
    boxes = _boxes(dataset, chosen.tolist())
    figure = Figure(figsize=(11, 9), layout="constrained")
    (classes, numbers), (sizes, places) = figure.subplots(2, 2)
    counts = dataset.class_counts()
    _bars(classes, dataset.class_names, counts)
    per_image = dataset.boxes_per_image()
    numbers.hist(per_image, bins=_whole_bins(per_image), color="tab:blue")
    numbers.set(title=f"Boxes per image ({len(dataset)} images)", xlabel="boxes", ylabel="images")
    for axis in (numbers.xaxis, numbers.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    of = "" if len(chosen) == len(dataset) else f" (of {len(chosen)} images)"
    corner, far = boxes[:, :2], boxes[:, 2:]
    _density(sizes, far - corner, title=f"Sizes{of}", labels=("width", "height"))
    _density(places, (corner + far) / 2, title=f"Centers{of}", labels=("x", "y"))
    places.invert_yaxis()
    save_figure(figure, out_png)


def _boxes(dataset: Dataset, indices: Sequence[int]) -> np.ndarray:
    """Return the boxes of the images, (N, 4) xyxy, relative to width and height."""
    parts = [np.zeros((0, 4))]
    for index in indices:
        truth = dataset.annotations(index)
        size = [truth.width, truth.height] * 2
        parts.append(truth.boxes[~truth.ignore].astype(np.float64) / size)
    return np.concatenate(parts)


def _bars(axes: Axes, names: Sequence[str], counts: np.ndarray) -> None:
    """Draw a bar per class, most frequent first, with names if there is room for them."""
    order = np.argsort(-counts, kind="stable")
    shown = counts[order]
    if len(names) <= _MOST_NAMES:
        bars = axes.barh([f"{names[k]}" for k in order], shown, color="tab:blue")
        axes.bar_label(bars, padding=3, fontsize=8)
        axes.tick_params(axis="y", labelsize=9 if len(names) <= 15 else 7)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel("boxes")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    else:
        axes.bar(range(len(shown)), shown, width=1.0, color="tab:blue")
        first, last = names[order[0]], names[order[-1]]
        axes.set(xlabel=f"classes, from {first} to {last}", ylabel="boxes")
        axes.set_yscale("symlog", linthresh=1)
    without = int((counts == 0).sum())
    rest = f", none for {without} class{'' if without == 1 else 'es'}" if without else ""
    axes.set_title(f"{counts.sum()} boxes{rest}")


def _whole_bins(values: np.ndarray) -> np.ndarray:
    """Return the edges of at most 50 bins around integers."""
    most = int(values.max(initial=1))
    step = -(-(most + 1) // _BINS)
    return np.arange(0, most + step + 1, step) - 0.5


def _density(axes: Axes, points: np.ndarray, *, title: str, labels: tuple[str, str]) -> None:
    """Plot the density of points (N, 2) in 0..1."""
    edges = np.linspace(0, 1, _BINS + 1)
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=(edges, edges))
    most = max(float(counts.max(initial=0)), 2.0)
    image = axes.pcolormesh(
        edges,
        edges,
        np.ma.masked_equal(counts.T, 0),
        norm=LogNorm(1, most) if most > _MOST_LINEAR else Normalize(1, most),
        cmap="viridis",
    )
    bar = axes.figure.colorbar(image, ax=axes, label="boxes", shrink=0.8)
    if most <= _MOST_LINEAR:
        bar.locator = MaxNLocator(integer=True, min_n_ticks=1)
    x, y = labels
    axes.set(title=title, xlabel=f"{x}, share of the image", ylabel=f"{y}, share of the image")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")

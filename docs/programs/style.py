"""The look of the pictures in the docs: as wide as a README, legible at half their size, in colors
that color-blind readers can tell apart.
"""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
MARKERS = "os^Dv*PX"  # lines differ in these as well as in color
WIDTH = 13.0  # inches; 1690 pixels, twice the width of a README
DPI = 130
FONT = 17
_LOOK = {
    "font.size": FONT,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 2.5,
    "lines.markersize": 8,
}


def panels(
    columns: int, height: float, *, rows: int = 1, **options: Any
) -> tuple[Figure, list[Any]]:
    """A figure of the common width, and its panels row by row.

    Args:
        height: of the figure, in inches.
        options: of ``Figure.subplots``.
    """
    with rc_context(_LOOK):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def title(axes: Any, text: str) -> None:
    """Write the title of a panel."""
    axes.set_title(text, loc="left", fontsize=FONT + 1, fontweight="bold")


def save(figure: Figure, path: Path) -> None:
    """Write a figure; JPEG for photos, PNG for curves, as the suffix says."""
    options = {"pil_kwargs": {"quality": 88}} if path.suffix == ".jpg" else {}
    with rc_context(_LOOK):
        figure.savefig(path, dpi=DPI, **options)
    print(path)

"""Save figures as files."""

from pathlib import Path

from matplotlib.figure import Figure

from mindyolo_ext import atomic

_DPI = 130


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure so that it appears complete or not at all; the suffix chooses the format.

    Raises: WriteError if the disk refuses.
    """
    with atomic.replacing(Path(path)) as unfinished:
        figure.savefig(unfinished, dpi=_DPI)

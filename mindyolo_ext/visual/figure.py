"""Save figures as files."""

from pathlib import Path

from matplotlib.figure import Figure

from mindyolo_ext import atomic

_DPI = 130


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure, completely or not at all; the suffix selects the format.

    Raises: WriteError if the file cannot be written.
    """
    with atomic.replacing(Path(path)) as unfinished:
        figure.savefig(unfinished, dpi=_DPI)

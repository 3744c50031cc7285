"""Pictures of a routed model: the points and lines in them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from mindyolo_ext.visual.tradeoff import plot_easiness, plot_tradeoff

ROWS = [
    {"easy": 1.0, "gflops": 2.0, "images_per_second": 90.0, "AP": 0.30},
    {"easy": 0.5, "gflops": 2.7, "images_per_second": 70.0, "AP": 0.34},
    {"easy": 0.0, "gflops": 3.4, "images_per_second": 50.0, "AP": 0.35},
]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The saved figures."""
    saved, plain = [], Figure.savefig

    def savefig(figure: Figure, *arguments: object, **keywords: object) -> None:
        saved.append(figure)
        plain(figure, *arguments, **keywords)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def test_a_point_per_threshold(tmp_path: Path, figures: list[Figure]):
    plot_tradeoff(ROWS, tmp_path / "curve.png", title="toy")
    assert cv2.imread(str(tmp_path / "curve.png")).shape[:2] == (624, 1430)
    work, speed = figures[0].axes
    np.testing.assert_allclose(work.lines[0].get_xydata(), [[2.0, 30], [2.7, 34], [3.4, 35]])
    np.testing.assert_allclose(speed.lines[0].get_xydata(), [[90, 30], [70, 34], [50, 35]])
    assert [text.get_text() for text in work.texts] == ["100 %", "50 %", "0 %"]
    assert figures[0].get_suptitle() == "toy"


def test_every_picture_is_in_the_histogram(tmp_path: Path, figures: list[Figure]):
    easiness, thresholds = np.linspace(0.2, 0.8, 33), np.linspace(0, 1, 11)
    plot_easiness(easiness, thresholds, tmp_path / "easiness.png")
    assert cv2.imread(str(tmp_path / "easiness.png")) is not None
    axes = figures[0].axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 33
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx([0.1, 0.5, 0.9])
    assert axes.get_legend().get_texts()[0].get_text() == "90 % easy above 0.100000"


def test_nothing_to_draw(tmp_path: Path):
    with pytest.raises(ValueError, match="at least one threshold"):
        plot_tradeoff([], tmp_path / "a.png")
    for easiness, thresholds in ((np.zeros(0), np.zeros(11)), (np.zeros(3), np.zeros(10))):
        with pytest.raises(ValueError, match="wanted images and 11 thresholds"):
            plot_easiness(easiness, thresholds, tmp_path / "a.png")

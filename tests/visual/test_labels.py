"""The picture of a data set's labels: the numbers behind its bars and maps."""

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.visual.labels import plot_labels

SIZE = (50, 100)  # height, width


def dataset(rows, classes=3) -> Dataset:
    """Images with boxes ``(x1, y1, x2, y2, label, ignore)``."""
    annotations = []
    for its in rows:
        table = np.array(its, np.float32).reshape(-1, 6)
        annotations.append((table[:, :4], table[:, 4].astype(np.int64), table[:, 5] > 0))
    count = len(rows)
    return Dataset(
        "set",
        [f"class {k}" for k in range(classes)],
        [f"{k}.jpg" for k in range(count)],
        list(range(count)),
        annotations=annotations,
        sizes=[SIZE] * count,
    )


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved during the test."""
    figures, save = [], Figure.savefig

    def keep(figure, *args, **options):
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


ROWS = [
    [(0, 0, 50, 25, 1, 0), (50, 25, 100, 50, 1, 0), (0, 0, 99, 49, 2, 1)],  # the last is ignored
    [(85, 0, 96, 6.5, 2, 0)],
    [],
]


def test_its_numbers(tmp_path, drawn):
    plot_labels(dataset(ROWS), tmp_path / "labels.png")
    assert cv2.imread(str(tmp_path / "labels.png")).shape[:2] > (500, 800)
    classes, numbers, sizes, centers = drawn[0].axes[:4]
    assert classes.get_title() == "3 boxes, none for 1 class"
    bars = [bar.get_width() for bar in classes.patches]
    names = [text.get_text() for text in classes.get_yticklabels()]
    assert (names, bars) == (["class 1", "class 2", "class 0"], [2, 1, 0])
    assert [bar.get_height() for bar in numbers.patches] == [1, 1, 1]  # none, one and two boxes
    assert places(sizes) == {(0.1, 0.12): 1, (0.5, 0.5): 2}
    assert places(centers) == {(0.24, 0.24): 1, (0.74, 0.74): 1, (0.9, 0.06): 1}
    assert centers.yaxis_inverted(), "y grows downwards, as in images"


def places(axes) -> dict[tuple[float, float], int]:
    """Lower corner of a bin -> boxes in it."""
    counts = np.ma.filled(axes.collections[0].get_array(), 0).reshape(50, 50)
    return {(c / 50, r / 50): int(counts[r, c]) for r, c in np.argwhere(counts).tolist()}


def test_many_classes_have_no_names(tmp_path, drawn):
    plot_labels(dataset(ROWS, classes=200), tmp_path / "labels.png")
    assert drawn[0].axes[0].get_xlabel() == "classes, from class 1 to class 199"


def test_a_large_set_is_measured_in_part(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr("mindyolo_ext.visual.labels._MOST_IMAGES", 2)
    plot_labels(dataset(ROWS), tmp_path / "labels.png")
    classes, _, sizes, _ = drawn[0].axes[:4]
    assert classes.get_title().startswith("3 boxes")
    assert sizes.get_title() == "Sizes (of 2 images)" and places(sizes) == {(0.5, 0.5): 2}


def test_a_set_without_boxes(tmp_path):
    plot_labels(dataset([[], []]), tmp_path / "labels.png")
    assert (tmp_path / "labels.png").stat().st_size > 0

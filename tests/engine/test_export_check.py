"""The comparison of boxes before an exported file gets its name."""

from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.engine.export_check import (
    EXACT,
    check_pictures,
    compare_boxes,
    confidence_for,
)
from mindyolo_ext.errors import ExportError, UsageError

PICTURES = [np.zeros((40, 60, 3), np.uint8)]


def rows(count: int = 40) -> np.ndarray:
    rng = np.random.RandomState(0)
    corner = rng.uniform(0, 30, (count, 2))
    return np.column_stack(
        [
            corner,
            corner + rng.uniform(5, 9, (count, 2)),
            rng.uniform(0, 1, count),
            corner[:, 0] > 15,
        ]
    ).astype(np.float32)


def compared(found: np.ndarray, wanted: np.ndarray | None = None) -> str:
    source = rows() if wanted is None else wanted
    return str(compare_boxes(lambda _: source, lambda _: found, PICTURES, EXACT, name="the x file"))


def test_equal_boxes_in_any_order_pass():
    assert compared(rows()[::-1]) == "40 boxes of 1 images within 0 pixels and 0.0e+00 of the score"
    assert compared(rows()[:39]).endswith("1 without a partner")
    line = np.array([[5, 5, 5, 30, 0.5, 0]], np.float32)
    assert "within 0.01 pixels" in compared(line + [0.01, 0, 0.01, 0, 0, 0], line)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda r: r[:37], "3 without a partner"),
        (lambda r: np.concatenate([r, r[:2] + [20, 0, 20, 0, 0, 0]]), "2 without a partner"),
        (lambda r: r + [0, 0, 0, 0, 0.01, 0], "allowed are 0.002 of the score"),
        (lambda r: r + [0, 0, 0, 0, 0, 1], "without a partner"),
        (lambda r: r + [1, 0, 1, 0, 0, 0], "without a partner"),
    ],
)
def test_other_boxes_are_refused(change, wanted: str):
    with pytest.raises(
        ExportError, match=f"the x file does not find the network's boxes: .*{wanted}"
    ):
        compared(change(rows()))


def test_the_confidence_lies_in_the_widest_gap():
    scores = np.concatenate([np.linspace(0.9, 0.6, 150), np.linspace(0.5, 0.1, 500)])
    found = (np.zeros((1, 650, 4)), scores.reshape(1, -1, 1))
    assert confidence_for([found]) == pytest.approx(0.55, abs=0.01)
    alike = (np.zeros((1, 650, 4)), np.full((1, 650, 1), 0.3))
    assert confidence_for([alike]) == pytest.approx(0.29)
    assert confidence_for([(np.zeros((1, 3, 4)), np.zeros((1, 3, 1)))]) == 0


def test_pictures_are_the_users_or_drawn(tmp_path: Path):
    drawn = check_pictures(None)
    assert len(drawn) == 2 and min(picture.std() for picture in drawn) > 5
    assert all(np.array_equal(a, b) for a, b in zip(drawn, check_pictures(None)))
    for number in range(9):
        write_image(tmp_path / f"{number}.png", np.full((4, 4, 3), number, np.uint8))
    assert [int(picture[0, 0, 0]) for picture in check_pictures(tmp_path)] == list(range(8))
    (tmp_path / "film").mkdir()
    (tmp_path / "film" / "a.mp4").touch()
    with pytest.raises(UsageError, match="no image there to check the exported files with"):
        check_pictures(tmp_path / "film")

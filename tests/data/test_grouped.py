"""Processing all images at once gives the same result as one after the other."""

from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.data import grouped as grouped_module
from mindyolo_ext.data.arrays import Arrays
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.grouped import Rows, grouped
from mindyolo_ext.data.image_file import write_image

TOLERANCE = 0.5
SIZES = ((20, 30), (40, 25), None, (20, 30), None, (8, 9))


def pictures(folder: Path) -> list[str]:
    """Files of all images but the last; the fifth file is not an image."""
    for number, size in enumerate(SIZES[:-1]):
        write_image(folder / f"{number}.png", np.zeros((*(size or (30, 30)), 3), np.uint8))
    (folder / "4.png").write_bytes(b"no picture")
    return [str(folder / f"{number}.png") for number in range(len(SIZES))]


def one_by_one(paths: list[str], rows: Rows, sizes: list, outlines: list) -> Dataset:
    collector = Collector("set", ["a", "b"], relative=False, tolerance=TOLERANCE)
    for index, path in enumerate(paths):
        its = np.flatnonzero(rows.images == index)
        collector.add(
            path,
            index + 7,
            sizes[index],
            boxes=rows.boxes[its],
            labels=rows.labels[its],
            ignore=rows.crowds[its].astype(bool),
            where=[f"row {row}" for row in its],
            polygons=[outlines[row] for row in its],
        )
    return collector.finish(strict=False)


def at_once(paths: list[str], rows: Rows, sizes: list) -> Dataset:
    collector = Collector("set", ["a", "b"], relative=False, tolerance=TOLERANCE)
    arranged = grouped(rows, np.array([size or (0, 0) for size in sizes]), TOLERANCE)
    order = arranged["order"]
    collector.add_grouped(
        paths,
        [index + 7 for index in range(len(paths))],
        Arrays(arranged),
        box=lambda row: (rows.boxes[order[row]], f"row {order[row]}"),
        noted={},
    )
    return collector.finish(strict=False)


@pytest.mark.parametrize("seed", range(12))
def test_the_same_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(grouped_module, "_CHUNK", 7)
    rng, paths = np.random.default_rng(seed), pictures(tmp_path)
    count = int(rng.choice([0, 1, 5, 80]))
    begin = rng.uniform(-10, 45, (count, 2)).round(rng.integers(3))
    sides = rng.uniform(-3, 90, (count, 2)).round()
    outlines = [
        rng.uniform(-9, 60, (int(rng.integers(3, 9)), 2)) if rng.random() < 0.7 else None
        for _ in range(count)
    ]
    points = [np.zeros((0, 2)) if its is None else its for its in outlines]
    counts = np.array([len(its) for its in points], np.int64)
    rows = Rows(
        np.concatenate([begin, begin + sides], axis=1),
        rng.integers(len(paths), size=count),
        rng.integers(2, size=count),
        rng.integers(2, size=count),
        (np.concatenate([np.zeros((0, 2)), *points]), np.cumsum(counts) - counts, counts),
    )
    sizes = [size or (30, 30) if index == 2 else size for index, size in enumerate(SIZES)]
    wanted, found = one_by_one(paths, rows, sizes, outlines), at_once(paths, rows, sizes)
    assert found.problems == wanted.problems
    assert repr(found) == repr(wanted) and found.has_polygons == wanted.has_polygons
    assert set(wanted._columns) == set(found._columns) - {"order", "row_offsets", "doubts"}
    for name, column in wanted._columns.items():
        assert column.dtype == found._columns[name].dtype, name
        np.testing.assert_array_equal(column, found._columns[name], err_msg=name)


def test_no_image_and_no_box() -> None:
    nothing = np.zeros(0, int)
    arranged = grouped(Rows(np.zeros((0, 4)), nothing, nothing, nothing), np.zeros((0, 2), int), 0)
    assert arranged["offsets"].tolist() == [0] and arranged["boxes"].shape == (0, 4)

"""Large images in tiles: every pixel is covered, and what several tiles see is reported once."""

import numpy as np
import pytest

from mindyolo_ext.errors import UsageError
from mindyolo_ext.evaluation.nms import NMSOptions
from mindyolo_ext.evaluation.tiles import Tiling, merge

OPTIONS = NMSOptions(conf_thres=0.1, iou_thres=0.5)


def rows(*boxes: tuple[float, ...]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 6)


@pytest.mark.parametrize("size", [(100, 100), (100, 101), (480, 640), (333, 1000)])
def test_tiles_cover_the_image_and_overlap(size: tuple[int, int]):
    height, width = size
    windows = Tiling(100, 0.25).windows(height, width)
    assert windows[0].tolist() == [0, 0, width, height]
    tiles = windows[1:]
    assert (len(tiles) == 0) == (size == (100, 100))
    seen = np.zeros(size, int)
    for x1, y1, x2, y2 in tiles:
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        assert (x2 - x1, y2 - y1) == (min(100, width), min(100, height))
        seen[y1:y2, x1:x2] += 1
    assert len(tiles) == 0 or seen.min() >= 1
    starts = np.unique(tiles[:, 0])
    assert (np.diff(starts) <= 75).all()


def test_an_object_that_two_tiles_see_stands_once():
    windows = np.array([[0, 0, 180, 100], [0, 0, 100, 100], [80, 0, 180, 100]])
    whole = (82, 10, 98, 30, 0.8, 1)
    found = [rows(), rows(whole), rows((83, 10, 98, 30, 0.7, 1))]
    np.testing.assert_array_equal(merge(found, windows, OPTIONS), rows(whole))


def test_a_part_at_the_border_of_a_tile_gives_way_to_the_whole():
    windows = np.array([[0, 0, 180, 100], [0, 0, 100, 100], [80, 0, 180, 100]])
    whole, part = (60, 10, 160, 50, 0.5, 0), (60, 10, 100, 50, 0.9, 0)
    other = (60, 10, 100, 50, 0.9, 1)  # of another class
    found = [rows(whole), rows(part, other), rows()]
    np.testing.assert_array_equal(merge(found, windows, OPTIONS), rows(other, whole))
    agnostic = NMSOptions(conf_thres=0.1, iou_thres=0.5, class_agnostic=True)
    np.testing.assert_array_equal(merge(found, windows, agnostic), rows(whole))


def test_a_part_stays_where_nothing_stands_for_it():
    windows = np.array([[0, 0, 180, 100], [0, 0, 100, 100], [80, 0, 180, 100]])
    left, right = (10, 10, 100, 50, 0.9, 0), (80, 12, 99, 48, 0.6, 0)
    found = [rows(), rows(left), rows((80, 12, 99, 48, 0.6, 0))]
    np.testing.assert_array_equal(merge(found, windows, OPTIONS), rows(left))
    found = [rows(), rows(), rows(right)]
    np.testing.assert_array_equal(merge(found, windows, OPTIONS), rows(right))


def test_a_small_box_within_a_large_one_of_its_class_stays():
    windows = np.array([[0, 0, 180, 100], [0, 0, 100, 100], [80, 0, 180, 100]])
    large, small = (5, 5, 95, 95, 0.9, 0), (40, 40, 50, 50, 0.8, 0)
    found = [rows(large), rows(small), rows()]
    np.testing.assert_array_equal(merge(found, windows, OPTIONS), rows(large, small))


def test_the_best_are_kept_and_nothing_is_fine():
    windows = Tiling(50).windows(60, 60)
    few = NMSOptions(conf_thres=0.1, iou_thres=0.5, max_detections=1)
    found = [rows((1, 1, 9, 9, 0.5, 0), (20, 20, 29, 29, 0.6, 0))] + [rows()] * (len(windows) - 1)
    np.testing.assert_array_equal(merge(found, windows, few), found[0][1:])
    assert merge([rows()] * len(windows), windows, OPTIONS).shape == (0, 6)


@pytest.mark.parametrize(("side", "overlap"), [(16, 0.2), (100, 0.95), (100, -0.1)])
def test_tilings_that_make_no_sense(side: int, overlap: float):
    with pytest.raises(UsageError, match="tiles: wanted"):
        Tiling(side, overlap)

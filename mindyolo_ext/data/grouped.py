"""Process the boxes of many images at once, in columns, as ``Collector.add`` does per image."""

from dataclasses import dataclass

import numpy as np

from mindyolo_ext.data.collector import LARGEST, clipped_boxes

LARGEST_SIDE = 2**31 - 1  # pixels; no image is larger, whatever its labels say
_CHUNK = 20_000  # outlines that are processed together


@dataclass(frozen=True)
class Rows:
    """Well-formed boxes of several images, in any order.

    Args:
        boxes: (N, 4) float64 xyxy in pixels.
        images: (N,) image index of each box.
        labels, crowds: (N,).
        outlines: ``points`` (P, 2) float64 pixels, and per box the start and number of its points
            (N,), 0 for a box without; None if outlines are not kept.
    """

    boxes: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    crowds: np.ndarray
    outlines: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None


def grouped(rows: Rows, sizes: np.ndarray, tolerance: float) -> dict[str, np.ndarray]:
    """Build the columns of a ``Dataset``: boxes grouped by image and clipped, without boxes that
    have no area left.

    Args:
        sizes: (n, 2) height and width of each image; 0 if unknown, so that its boxes are not
            clipped and lose their outlines.
        tolerance: as in ``Collector``.

    Returns: the columns; ``order`` (N,), the boxes by image; ``row_offsets`` (n + 1,), where each
        image begins in ``order``; and ``doubts``, the positions in ``order`` of boxes that were
        clipped or dropped.
    """
    order = np.argsort(rows.images, kind="stable")
    images, boxes = rows.images[order], rows.boxes[order]
    is_known = sizes.all(1)[images]
    limits = np.tile(sizes[images, ::-1], 2).astype(np.float64)
    clipped, inside, outside, _ = clipped_boxes(boxes, limits, tolerance)
    kept = inside | ~is_known
    clipped[~is_known] = boxes[~is_known]
    crowds, labels = rows.crowds[order], rows.labels[order]
    columns = {
        "sizes": np.minimum(sizes, LARGEST_SIDE).astype(np.int32),
        "offsets": _offsets(images[kept], len(sizes)),
        "boxes": np.clip(clipped[kept], -LARGEST, LARGEST).astype(np.float32),
        "labels": labels[kept].astype(np.int64),
        "ignore": crowds[kept].astype(np.uint8).view(bool),
        "order": order,
        "row_offsets": _offsets(images, len(sizes)),
        "doubts": np.flatnonzero(is_known & (~inside | outside)),
    }
    if rows.outlines is not None:
        points, starts, counts = rows.outlines
        starts, counts = starts[order][kept], np.where(is_known, counts[order], 0)[kept]
        if counts.any():
            columns["points"] = _fractions(points, starts, counts, limits[kept, :2])
            columns["first_points"] = _ends(counts)
    return columns


def _offsets(images: np.ndarray, count: int) -> np.ndarray:
    """Return where the boxes of each image begin, (count + 1,), given their sorted image
    indices.
    """
    return _ends(np.bincount(images, minlength=count))


def _ends(counts: np.ndarray) -> np.ndarray:
    """Return the cumulative sums of ``counts``, beginning with 0."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _fractions(
    points: np.ndarray, starts: np.ndarray, counts: np.ndarray, limits: np.ndarray
) -> np.ndarray:
    """Return the points of each box as fractions of its ``limits`` (N, 2): (sum of counts, 2)
    float32.
    """
    result = np.empty((int(counts.sum()), 2), np.float32)
    done = 0
    for begin in range(0, len(counts), _CHUNK):
        some = slice(begin, begin + _CHUNK)
        ends = np.cumsum(counts[some])
        total = int(ends[-1])
        places = np.repeat(starts[some] - (ends - counts[some]), counts[some]) + np.arange(total)
        limit = np.repeat(limits[some], counts[some], axis=0)
        result[done : done + total] = np.clip(points[places] / limit, 0, 1)
        done += total
    return result

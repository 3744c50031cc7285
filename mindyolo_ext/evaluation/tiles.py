"""Find small objects in large images: cut an image into overlapping tiles, and merge the detections
of the tiles and of the whole image. NumPy only.
"""

from dataclasses import dataclass

import numpy as np

from mindyolo_ext.errors import UsageError
from mindyolo_ext.evaluation.nms import NMSOptions, nms

COVERED = 0.5  # share of a cut box that a whole box must cover to replace it


@dataclass(frozen=True)
class Tiling:
    """Options for cutting an image into tiles.

    Args:
        side: of a tile in image pixels.
        overlap: share of a tile that overlaps its neighbor, in 0..0.9; objects up to this size
            are complete in at least one of them.

    Raises: UsageError for a value outside these rules.
    """

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.side < 32:
            raise UsageError(f"tiles: wanted a side of at least 32 pixels, got {self.side}")
        if not 0.0 <= self.overlap <= 0.9:
            raise UsageError(f"tiles: wanted an overlap in 0..0.9, got {self.overlap}")

    def windows(self, height: int, width: int) -> np.ndarray:
        """(T, 4) int x1, y1, x2, y2: the whole image, then the tiles if it is larger than one."""
        whole = [(0, 0, width, height)]
        if max(height, width) <= self.side:
            return np.array(whole)
        tiles = [
            (x, y, min(x + self.side, width), min(y + self.side, height))
            for y in self._starts(height)
            for x in self._starts(width)
        ]
        return np.array(whole + tiles)

    def _starts(self, length: int) -> list[int]:
        """Start positions of tiles along a side; the last tile ends with the side."""
        last, step = max(length - self.side, 0), max(round(self.side * (1 - self.overlap)), 1)
        return [*range(0, last, step), last]


def merge(found: list[np.ndarray], windows: np.ndarray, options: NMSOptions) -> np.ndarray:
    """Merge the detections of an image and of its tiles.

    A box at a border inside the image is cut off, so its IoU with the whole box of the same object
    is low. It is dropped if a box of its class covers half of it. The remaining boxes go through
    ``nms``.

    Args:
        found: per window (N, 6) x1, y1, x2, y2, score, class in pixels of the image.
        windows: (T, 4) x1, y1, x2, y2; the first is the whole image.

    Returns: (N, 6), at most ``options.max_detections``, highest score first.
    """
    height, width = int(windows[0, 3]), int(windows[0, 2])
    is_cut = [
        _cut(rows, window, width, height) for rows, window in zip(found, windows, strict=True)
    ]
    rows, cut = np.concatenate(found), np.concatenate(is_cut)
    kept = _thinned(rows[~cut], options)
    parts = _thinned(rows[cut], options)
    parts = parts[~_is_covered(parts, kept, options.class_agnostic)]
    alone = [  # of two parts of one object the better one is kept
        part
        for k, part in enumerate(parts)
        if not _is_covered(part[None], parts[:k], options.class_agnostic)[0]
    ]
    rows = np.concatenate([kept, np.array(alone, np.float32).reshape(-1, 6)])
    order = np.argsort(-rows[:, 4], kind="stable")
    return rows[order][: options.max_detections]


def _cut(rows: np.ndarray, window: np.ndarray, width: int, height: int) -> np.ndarray:
    """Which boxes (N,) end at a border of their window that is not one of the image."""
    near = 2.0  # pixels: a network does not hit the border exactly
    x1, y1, x2, y2 = window.tolist()
    return (
        ((rows[:, 0] < x1 + near) & (x1 > 0))
        | ((rows[:, 1] < y1 + near) & (y1 > 0))
        | ((rows[:, 2] > x2 - near) & (x2 < width))
        | ((rows[:, 3] > y2 - near) & (y2 < height))
    )


def _thinned(rows: np.ndarray, options: NMSOptions) -> np.ndarray:
    """``nms`` of detections (N, 6)."""
    if not len(rows):
        return rows
    classes = rows[:, 5].astype(int)
    scores = np.zeros((len(rows), classes.max() + 1), np.float32)
    scores[np.arange(len(rows)), classes] = rows[:, 4]
    return nms(rows[:, :4], scores, options)


def _is_covered(parts: np.ndarray, boxes: np.ndarray, any_class: bool) -> np.ndarray:
    """Which of ``parts`` (N, 6) have more than ``COVERED`` of their area in one of ``boxes``."""
    corners = np.maximum(parts[:, None, :2], boxes[None, :, :2])
    ends = np.minimum(parts[:, None, 2:4], boxes[None, :, 2:4])
    shared = np.prod(np.maximum(ends - corners, 0), axis=2)
    area = np.prod(np.maximum(parts[:, 2:4] - parts[:, :2], 1e-6), axis=1)[:, None]
    same = any_class | (parts[:, None, 5] == boxes[None, :, 5])
    return ((shared > COVERED * area) & same).any(axis=1)

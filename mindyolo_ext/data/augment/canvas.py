"""Place photos on a canvas and transform it into an image, as mosaics do. Uses NumPy and OpenCV
only.

These are plain functions without random numbers. Boxes are float64 within a step.

Source: YOLOv5's ``utils/datasets.py``, from which Gold-YOLO's and DynamicDet's loaders descend.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mindyolo_ext.data.augment.boxes import keep_boxes, with_boxes
from mindyolo_ext.data.augment.registry import AugmentContext
from mindyolo_ext.data.types import Sample, unseen

# A box stays if its sides are longer than this in pixels, if more than this share of its scaled
# area remains, and if its aspect ratio is below this.
MIN_SIDE, MIN_AREA, MAX_ASPECT = 2.0, 0.1, 20.0
MIN_AREA_OUTLINED = 0.01  # for a box that follows its outline
_OUTLINE_POINTS = 1000
_MARGIN = 4.0  # pixels outside the image that interpolation may read


@dataclass(frozen=True)
class Movement:
    """A rotation, scaling, shear and shift of a canvas into an image.

    Args:
        angle: degrees.
        factor: factor of the scaling.
        shear: degrees along x and y.
        target: position of the canvas center in the image, as fractions (x, y).
        perspective: how fast sizes decrease along x and y, per pixel from the center of the canvas.
    """

    angle: float
    factor: float
    shear: tuple[float, float]
    target: tuple[float, float]
    perspective: tuple[float, float] = (0.0, 0.0)

    def matrix(self, canvas: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        """Return the (2, 3) matrix from pixels of ``canvas`` (height, width) to pixels of the image
        ``size`` (height, width), without perspective.
        """
        turn = cv2.getRotationMatrix2D((0, 0), self.angle, self.factor)[:, :2]
        shear_x, shear_y = (math.tan(math.radians(degrees)) for degrees in self.shear)
        linear = np.array([[1, shear_x], [shear_y, 1]]) @ turn
        center = np.array([canvas[1], canvas[0]]) / 2
        return np.column_stack(
            [linear, np.array(self.target) * (size[1], size[0]) - linear @ center]
        )

    def projection(self, canvas: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        """Return the (3, 3) matrix that does the same to points (x, y, 1), with perspective."""
        matrix = np.vstack([self.matrix(canvas, size), (0.0, 0.0, 1.0)])
        if not any(self.perspective):
            return matrix
        height, width = canvas
        tilt, center = np.eye(3), np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
        tilt[2, :2] = self.perspective
        return matrix @ center @ tilt @ np.linalg.inv(center)


def fitted(sample: Sample, context: AugmentContext) -> Sample:
    """Scale the sample to fit into the network's size, with sides rounded down to whole pixels;
    drop crowds.
    """
    height, width = sample.size
    new_h, new_w = fitted_size((height, width), context)
    image = scaled(sample, (new_h, new_w))
    boxes = sample.boxes.astype(np.float64) * np.array([new_w / width, new_h / height] * 2)
    return keep_boxes(replace(sample, image=image, boxes=boxes), ~sample.ignore)


def scaled(sample: Sample, size: tuple[int, int]) -> np.ndarray:
    """Resize the sample's image to ``size`` (height, width); an ``unseen`` one stays unseen."""
    if sample.is_unseen:
        return unseen(*size)
    if size == sample.size:
        return sample.image
    return cv2.resize(sample.image, size[::-1], interpolation=cv2.INTER_LINEAR)


def seen_parts(
    sources: Sequence[Sample | int],
    fit: Callable[[Sample], Sample],
    place: Callable[[Sequence[tuple[int, int]]], Sequence[tuple[int, int]]],
    *,
    matrix: np.ndarray,
    context: AugmentContext,
) -> list[Sample]:
    """Load and scale the photos of a mosaic. Photos outside the final image are not decoded: their
    images are ``unseen``.

    Args:
        sources: photos, or their indices.
        fit: scales a photo.
        place: computes (left, top) of each on the canvas from the (height, width) of all.
        matrix: (2, 3) or (3, 3) from pixels of the canvas to the image of the network's size; with
            perspective all photos are decoded.
    """
    load = context.dataset
    parts = [fit(s if isinstance(s, Sample) else load.load_unseen(s)) for s in sources]
    corners = place([part.size for part in parts])
    for number, (source, corner) in enumerate(zip(sources, corners, strict=True)):
        if not isinstance(source, Sample) and is_seen(
            corner, parts[number].size, matrix, context.input_spec.size
        ):
            parts[number] = fit(load.load(source))
    return parts


def is_seen(
    corner: tuple[int, int], part: tuple[int, int], matrix: np.ndarray, size: tuple[int, int]
) -> bool:
    """Whether a photo on a canvas may reach into an image.

    Args:
        corner: (left, top) of the photo on the canvas.
        part: (height, width) of the photo.
        matrix: (2, 3) or (3, 3) from pixels of the canvas to those of the image.
        size: (height, width) of the image.
    """
    window = _window(matrix, size)
    if window is None:
        return True
    photo = _corners(corner[0], corner[1], part)
    # two parallelograms are disjoint if they are disjoint along the sides of one of them
    moved = photo @ matrix[:2, :2].T + matrix[:2, 2]
    return _meet(photo, window) and _meet(moved, _corners(0, 0, size))


def seen_window(
    matrix: np.ndarray, size: tuple[int, int], canvas: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Return left, top, right, bottom of the visible part of a canvas; None for all of it.

    Args:
        matrix, size: as in ``is_seen``.
        canvas: (height, width).
    """
    window = _window(matrix, size)
    if window is None:
        return None
    low = np.floor(window.min(0) - _MARGIN).clip(0, canvas[::-1]).astype(int)
    high = np.ceil(window.max(0) + _MARGIN).clip(0, canvas[::-1]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _window(matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """Return the corners (4, 2) on the canvas of an image of ``size``; None with perspective, or
    for a degenerate matrix.
    """
    if len(matrix) == 3 and matrix[2, :2].any():
        return None
    ((a, b, x), (c, d, y)) = matrix[:2].tolist()
    determinant = a * d - b * c
    if abs(determinant) < 1e-6:
        return None
    # written out: NumPy would start all threads of its library for four numbers, which takes
    # milliseconds
    inverse = np.array([[d, -b], [-c, a]]) / determinant
    return (_corners(0, 0, size) - (x, y)) @ inverse.T


def _corners(left: int, top: int, size: tuple[int, int]) -> np.ndarray:
    """Return the corners x, y (4, 2) of a rectangle of ``size`` (height, width)."""
    right, bottom = left + size[1], top + size[0]
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def _meet(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the bounding boxes of two sets of points (N, 2) overlap or nearly do."""
    gap = np.maximum(first.min(0) - second.max(0), second.min(0) - first.max(0))
    return bool((gap <= _MARGIN).all())


def fitted_size(photo: tuple[int, int], context: AugmentContext) -> tuple[int, int]:
    """Return the (height, width) of a photo of (height, width) after ``fitted``."""
    size = context.input_spec.size
    ratio = min(size[0] / photo[0], size[1] / photo[1])
    return max(1, int(photo[0] * ratio)), max(1, int(photo[1] * ratio))


def letterboxed(sample: Sample, context: AugmentContext) -> Sample:
    """Place a fitted sample in the middle of an image of the network's size, which rounding may
    have made a pixel larger.
    """
    spec = replace(
        context.input_spec,
        resize="letterbox",
        rounding="nearest",
        pad_anchor="center",
        scale_up=True,
        shrink="linear",
        border=None,
    )
    height, width = sample.size
    image, placement = spec.resize_image(sample.image)
    free = [
        spec.size[1] - round(width * placement.scale_x),
        spec.size[0] - round(height * placement.scale_y),
    ]
    # As in the original: boxes are centered exactly, while the photo is off by half a pixel if the
    # remainder is odd
    return replace(
        sample, image=image, boxes=sample.boxes * placement.scale_x + np.array(free * 2) / 2
    )


def around(center: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (left, top) of four photos that touch the point ``center`` (x, y): upper left, upper
    right, lower left, lower right.

    Args:
        sizes: (height, width) of each.
    """
    return [
        (
            center[0] if number % 2 else center[0] - width,
            center[1] if number // 2 else center[1] - height,
        )
        for number, (height, width) in enumerate(sizes)
    ]


def join(
    parts: Sequence[Sample],
    corners: Sequence[tuple[int, int]],
    canvas: tuple[int, int],
    pad_value: int,
    window: tuple[int, int, int, int] | None = None,
) -> Sample:
    """Paint photos on a gray canvas, later ones over earlier ones. Boxes are clipped to the canvas;
    none is dropped.

    Args:
        corners: (left, top) of each photo on the canvas; photos may lie partly outside.
        canvas: (height, width).
        pad_value: gray value of empty areas.
        window: left, top, right, bottom of the visible part; the rest is undefined.
    """
    height, width = canvas
    image = np.empty((height, width, 3), np.uint8)
    left, top, right, bottom = window or (0, 0, width, height)
    seen = image[top:bottom, left:right]
    seen[:] = pad_value
    for part, corner in zip(parts, corners, strict=True):
        if not part.is_unseen:
            paint(seen, part.image, (corner[0] - left, corner[1] - top))
    boxes = np.concatenate(
        [part.boxes + corner * 2 for part, corner in zip(parts, corners, strict=True)]
    )
    return with_boxes(
        parts[0],
        image,
        np.clip(boxes, 0, (width, height) * 2),
        np.concatenate([part.labels for part in parts]),
    )


def paint(canvas: np.ndarray, image: np.ndarray, corner: tuple[int, int]) -> None:
    """Paint ``image`` (h, w, 3) on ``canvas`` in place, cropped to the canvas.

    Args:
        corner: (left, top) of the image on the canvas.
    """
    (left, top), (height, width) = corner, canvas.shape[:2]
    x1, x2 = max(left, 0), min(left + image.shape[1], width)
    y1, y2 = max(top, 0), min(top + image.shape[0], height)
    if x1 < x2 and y1 < y2:
        canvas[y1:y2, x1:x2] = image[y1 - top : y2 - top, x1 - left : x2 - left]


def move(
    sample: Sample,
    movement: Movement,
    context: AugmentContext,
    outlines: Sequence[np.ndarray | None] | None = None,
) -> Sample:
    """Transform the sample into an image of the network's size. Boxes become the bounding boxes of
    their transformed corners, or of the visible part of their transformed outlines.

    A box stays if both sides are longer than 2 pixels, more than a tenth of its scaled area remains
    (a hundredth if it follows an outline), and its aspect ratio is below 20.

    Args:
        outlines: (points, 2) in pixels per box, None for a box without outline.
    """
    height, width = context.input_spec.size
    projection = movement.projection(sample.size, (height, width))
    warp, matrix = (
        (cv2.warpPerspective, projection)
        if any(movement.perspective)
        else (cv2.warpAffine, projection[:2])
    )
    image = warp(
        sample.image, matrix, (width, height), borderValue=(context.input_spec.pad_value,) * 3
    )
    # (N, 4, 2)
    corners = moved_points(sample.boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2), projection)
    moved = np.clip(np.concatenate([corners.min(1), corners.max(1)], 1), 0, (width, height) * 2)
    least = np.full(len(moved), MIN_AREA)
    followed = {row: line for row, line in enumerate(outlines or ()) if line is not None}
    if followed:
        rows = list(followed)
        moved[rows] = outline_frames(list(followed.values()), projection, (height, width))
        least[rows] = MIN_AREA_OUTLINED
    before = (sample.boxes[:, 2:] - sample.boxes[:, :2]) * movement.factor
    after = moved[:, 2:] - moved[:, :2]
    keep = (
        (after > MIN_SIDE).all(1)
        & (after.prod(1) > least * before.prod(1))
        & (after.max(1) < MAX_ASPECT * after.min(1))
    )
    return keep_boxes(replace(sample, image=image, boxes=moved), keep)


def moved_points(points: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """Transform points (..., 2) by ``projection`` (3, 3)."""
    moved = points @ projection[:2, :2].T + projection[:2, 2]
    if projection[2, :2].any():
        moved = moved / (points @ projection[2, :2] + projection[2, 2])[..., None]
    return moved


def outline_frames(
    outlines: Sequence[np.ndarray], projection: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Return bounding boxes (N, 4) of the parts of transformed outlines that are inside an image;
    zeros if there are none.

    As in the original: an outline is sampled at 1000 points, equally many on each edge, so corners
    may lie between two of them.

    Args:
        outlines: (points, 2) each, closed by an edge from the last point to the first.
        projection: (3, 3).
        size: (height, width) of the image.
    """
    counts = np.array([len(outline) for outline in outlines])
    points = np.concatenate(outlines).astype(np.float64)
    first = np.cumsum(counts) - counts
    place = np.linspace(0, counts, _OUTLINE_POINTS, axis=1)  # (N, 1000), integers are corners
    edge = np.minimum(place.astype(np.int64), counts[:, None] - 1)
    start = points[first[:, None] + edge]
    end = points[first[:, None] + (edge + 1) % counts[:, None]]
    # (N, 1000, 2)
    moved = moved_points(start + (end - start) * (place - edge)[..., None], projection)
    seen = ((moved >= 0) & (moved <= (size[1], size[0]))).all(2)[..., None]
    frames = np.concatenate(
        [np.where(seen, moved, np.inf).min(1), np.where(seen, moved, -np.inf).max(1)], 1
    )
    return np.where(seen.any(1), frames, 0.0)


def blend(sample: Sample, other: Sample, share: float) -> Sample:
    """Blend ``share`` of the sample with the rest of the other, rounded down to integers, and keep
    the boxes of both.
    """
    image = sample.image * share
    image += other.image * (1 - share)
    return with_boxes(
        sample,
        image.astype(np.uint8),
        np.concatenate([sample.boxes, other.boxes]),
        np.concatenate([sample.labels, other.labels]),
    )

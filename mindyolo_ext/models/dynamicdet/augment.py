"""DynamicDet's augmentations. Uses NumPy and OpenCV only.

A training image passes these steps in order:

    dynamicdet_mosaic     four or nine photos on a canvas (or one photo, letterboxed)
                          -> scaled and moved -> perhaps blended with a second such mosaic
    hsv
    dynamicdet_paste_in   possibly objects of other photos, cut out along their outlines
    horizontal_flip

Outlines come from the data set (``polygons: true``); boxes of transformed photos follow them. Each
step draws its random numbers and passes them to plain functions.

Source: DynamicDet, arXiv:2304.05552 (a fork of YOLOv7), ``utils/datasets.py``. Omitted:
    ``copy_paste``, which is 0 in all its recipes. Unlike the original: an image keeps at most
    ``max_boxes`` boxes, because arrays have a fixed shape here; a mosaic may have boxes with and
    without outlines, which the original mixes up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mindyolo_ext.data.augment.boxes import keep_boxes
from mindyolo_ext.data.augment.canvas import (
    Movement,
    around,
    blend,
    fitted,
    fitted_size,
    join,
    letterboxed,
    move,
    seen_parts,
    seen_window,
)
from mindyolo_ext.data.augment.registry import AugmentContext, register_augmentation
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.types import Sample

Place = Callable[[Sequence[tuple[int, int]]], Sequence[tuple[int, int]]]
_CUTOUTS = 30  # objects to choose from, at least
_MOSAICS = 30  # looked through for them, at most
# Largest sides of the places that objects are pasted to, as fractions of the image
_PLACES = (0.75,) * 2 + (0.5,) * 4 + (0.25,) * 4 + (0.125,) * 4 + (0.0625,) * 6
_MAX_COVERED = 0.3  # share of a box that an area may hide
# smallest side in pixels; smallest number of values in three channels
_MIN_PLACE, _MIN_OBJECT, _MIN_VALUES = 20, 10, 60


@register_augmentation(images=18, from_photo=True, is_mosaic=True)
def dynamicdet_mosaic(
    sample: Sample,
    context: AugmentContext,
    *,
    probability: float = 1.0,
    nine_probability: float = 0.2,
    scale: float = 0.9,
    translate: float = 0.2,
    degrees: float = 0.0,
    shear: float = 0.0,
    perspective: float = 0.0,
    mixup_probability: float = 0.15,
    max_boxes: float = 160,
) -> Sample:
    """Combine four or nine photos into one image of the network's size, or letterbox the photo.

    The result is scaled, rotated, sheared and shifted at random, and a mosaic is possibly blended
    with a second one. Boxes of which too little remains are dropped.

    Args:
        probability: probability of the mosaic; otherwise the photo alone is used.
        nine_probability: probability that a mosaic has nine photos.
        scale: the factor is in 1 - ``scale`` .. 1.1 + ``scale``.
        translate: largest shift from the center as a fraction of the network's width and height.
        degrees: largest rotation in either direction.
        shear: largest shear angle in degrees along x and y.
        perspective: largest decrease of size per pixel along x and y.
        mixup_probability: probability of a second mosaic, if there is a first.
        max_boxes: further boxes of an image are dropped.
    """
    rng, dataset = context.rng, context.dataset

    def movement() -> Movement:
        tilt = tuple(rng.uniform(-perspective, perspective, 2))
        angle, factor = rng.uniform(-degrees, degrees), rng.uniform(1 - scale, 1.1 + scale)
        return Movement(
            angle,
            factor,
            tuple(rng.uniform(-shear, shear, 2)),
            tuple(rng.uniform(0.5 - translate, 0.5 + translate, 2)),
            tilt,
        )

    def mosaic(first: Sample, index: int) -> Sample:
        draw = place_four if rng.random() < 1 - nine_probability else place_nine
        indices, place = draw(index, context)
        moved = movement()
        canvas, outlines = join_placed(first, indices, place, context, moved)
        return move(canvas, moved, context, outlines)

    if rng.random() < probability:
        result = mosaic(sample, context.index)
        if rng.random() < mixup_probability:
            index = int(rng.integers(len(dataset)))
            other = mosaic(dataset.load(index), index)
            result = blend(result, other, float(rng.beta(8.0, 8.0)))
    else:
        # As in the original: boxes of a single photo do not follow outlines
        result = move(letterboxed(fitted(sample, context), context), movement(), context)
    return keep_boxes(replace(result, boxes=result.boxes.astype(np.float32)), slice(int(max_boxes)))


def join_four(
    first: Sample, index: int, context: AugmentContext
) -> tuple[Sample, list[np.ndarray | None]]:
    """Place four photos on a canvas of twice the network's size around a random point of its inner
    half; return outlines, too.

    Args:
        first: the upper left photo, image ``index`` of the data set; the others are drawn.
    """
    return join_placed(first, *place_four(index, context), context)


def join_placed(
    first: Sample,
    indices: Sequence[int],
    place: Place,
    context: AugmentContext,
    movement: Movement | None = None,
) -> tuple[Sample, list[np.ndarray | None]]:
    """Photos on a canvas of twice the network's size; outlines.

    Args:
        first: the first photo, loaded already.
        indices: of all photos.
        place: (left, top) of each on the canvas, from their sizes.
        movement: the transformation that follows; photos outside of its view are not decoded.
    """
    height, width = context.input_spec.size
    canvas = 2 * height, 2 * width
    still = Movement(0.0, 0.5, (0.0, 0.0), (0.5, 0.5))  # shows the whole canvas
    matrix = (movement or still).projection(canvas, (height, width))
    parts = seen_parts(
        [first, *indices[1:]],
        lambda part: fitted(part, context),
        place,
        matrix=matrix,
        context=context,
    )
    corners = place([part.size for part in parts])
    window = seen_window(matrix, (height, width), canvas)
    joined = join(parts, corners, canvas, context.input_spec.pad_value, window)
    return joined, outlines_on_canvas(indices, parts, corners, context)


def place_four(index: int, context: AugmentContext) -> tuple[list[int], Place]:
    """Indices of four photos, the first ``index``, and their places on the canvas."""
    center, indices = draw_four(index, context)
    return indices, lambda sizes: around(center, sizes)


def place_nine(index: int, context: AugmentContext) -> tuple[list[int], Place]:
    """Indices of nine photos, the first ``index`` in the middle, and their places on a canvas
    that shows a random window of them.
    """
    height, width = context.input_spec.size
    indices = [index, *map(int, context.rng.integers(len(context.dataset), size=8))]
    top, left = int(context.rng.uniform(0, height)), int(context.rng.uniform(0, width))
    return indices, lambda sizes: [(x + width - left, y + height - top) for x, y in ring(sizes)]


def draw_four(index: int, context: AugmentContext) -> tuple[tuple[int, int], list[int]]:
    """Draw the point (x, y) where four photos touch, and their indices, beginning with
    ``index``.
    """
    height, width = context.input_spec.size
    center_y = int(context.rng.uniform(height // 2, 3 * height // 2))
    center_x = int(context.rng.uniform(width // 2, 3 * width // 2))
    return (center_x, center_y), [
        index,
        *map(int, context.rng.integers(len(context.dataset), size=3)),
    ]


def join_nine(
    first: Sample, index: int, context: AugmentContext
) -> tuple[Sample, list[np.ndarray | None]]:
    """Place eight photos around a photo, and crop a random window of twice the network's size;
    return outlines, too.

    Args:
        first: the center photo, image ``index`` of the data set; the others are drawn.
    """
    return join_placed(first, *place_nine(index, context), context)


def ring(sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (left, top) of nine photos: one at (0, 0) and eight clockwise around it, starting
    above.

    Each touches the center photo and the previous one. As in the original, nothing closes the ring,
    so there may be gaps, and later photos may hide earlier ones.

    Args:
        sizes: (height, width) of each.
    """
    (h0, w0), (h1, w1), (h2, w2), (h3, w3), (h4, w4), (h5, w5), (h6, w6), (h7, w7), (h8, w8) = sizes
    return [
        (0, 0),
        (0, -h1),
        (w1, -h2),
        (w0, 0),
        (w0, h3),
        (w0 - w5, h0),
        (w0 - w5 - w6, h0),
        (-w7, h0 - h7),
        (-w8, h0 - h7 - h8),
    ]


def outlines_on_canvas(
    indices: Sequence[int],
    parts: Sequence[Sample],
    corners: Sequence[tuple[int, int]],
    context: AugmentContext,
) -> list[np.ndarray | None]:
    """Return the outline of every box of a mosaic in its pixels, clipped to it; None for a box
    without outline.
    """
    height, width = context.input_spec.size
    found: list[np.ndarray | None] = []
    for index, part, corner in zip(indices, parts, corners, strict=True):
        if not context.dataset.has_polygons:
            found += [None] * len(part.boxes)
            continue
        size = np.array(part.image.shape[1::-1], np.float32)
        found += [
            None
            if outline is None
            else np.clip(outline * size + np.float32(corner), 0, (2 * width, 2 * height))
            for outline in trained_outlines(context.dataset, index)
        ]
    return found


def trained_outlines(dataset: Dataset, index: int) -> list[np.ndarray | None]:
    """Return the outlines of the boxes of image ``index`` that are not ignored, as fractions."""
    ignore = dataset.annotations(index).ignore
    return [
        outline
        for outline, ignored in zip(dataset.polygons(index), ignore, strict=True)
        if not ignored
    ]


@dataclass(frozen=True)
class Cutout:
    """An object of a photo that can be pasted.

    Args:
        index: index of the photo.
        label: label of the object.
        frame: x1, y1, x2, y2 of the cutout, in whole pixels of a mosaic.
        outline: (points, 2) int32 in pixels of the mosaic.
        corner: (left, top) of the photo in the mosaic.
    """

    index: int
    label: int
    frame: tuple[int, int, int, int]
    outline: np.ndarray
    corner: tuple[int, int]


@register_augmentation(images=1 + len(_PLACES), wants_polygons=True)
def dynamicdet_paste_in(
    sample: Sample, context: AugmentContext, *, probability: float = 0.15, max_boxes: float = 160
) -> Sample:
    """Paste up to 20 objects of other photos where they hide less than 30 % of every box.

    At least 30 objects are chosen, half of the objects of random mosaics. Each of 20 random areas,
    from large to small, receives one of them, scaled to fit into its upper left corner. The data
    set must have outlines.

    Args:
        probability: probability of the step.
        max_boxes: objects are pasted until the image has this many boxes.
    """
    rng = context.rng
    if rng.random() >= probability or not context.dataset.has_polygons:
        return sample
    cutouts = draw_cutouts(context)
    height, width = sample.size
    boxes, labels = sample.boxes.astype(np.float64), sample.labels
    image = sample.image.copy()
    for largest in _PLACES:
        if not cutouts or len(boxes) >= max_boxes:
            break
        if rng.random() < 0.2:
            continue
        place = draw_place(largest, (height, width), rng)
        if (
            (covered(place, boxes) >= _MAX_COVERED).any()
            or place[2] - place[0] <= _MIN_PLACE
            or place[3] - place[1] <= _MIN_PLACE
        ):
            continue
        chosen = cutouts[int(rng.integers(len(cutouts)))]
        pasted = paste(image, chosen, place, context)
        if pasted is not None:
            boxes, labels = np.concatenate([boxes, [pasted]]), np.append(labels, chosen.label)
    ignore = np.concatenate([sample.ignore, np.zeros(len(boxes) - len(sample.boxes), bool)])
    return replace(
        sample, image=image, boxes=boxes.astype(np.float32), labels=labels, ignore=ignore
    )


def draw_cutouts(context: AugmentContext) -> list[Cutout]:
    """Draw at least 30 objects with outlines, half of the objects of random mosaics of four photos;
    none if the first mosaic has none.

    Unlike the original: the search ends after 30 mosaics, even without 30 objects, and no mosaic is
    painted only to be cut up.
    """
    found: list[Cutout] = []
    for _ in range(_MOSAICS):
        objects = mosaic_objects(
            *draw_four(int(context.rng.integers(len(context.dataset))), context), context
        )
        chosen = (
            context.rng.choice(len(objects), round(len(objects) / 2), replace=False)
            if objects
            else ()
        )
        found += [
            objects[row]
            for row in chosen
            if objects[row].frame[2] > objects[row].frame[0]
            and objects[row].frame[3] > objects[row].frame[1]
        ]
        if not found or len(found) >= _CUTOUTS:
            break
    return found


def mosaic_objects(
    center: tuple[int, int], indices: Sequence[int], context: AugmentContext
) -> list[Cutout]:
    """Return the outlined objects of a mosaic of four photos that touch ``center``; opens no
    image.
    """
    height, width = context.input_spec.size
    notes = [context.dataset.annotations(index) for index in indices]
    sizes = [fitted_size((note.height, note.width), context) for note in notes]
    objects = []
    for index, note, size, corner in zip(indices, notes, sizes, around(center, sizes), strict=True):
        scale = np.array([size[1] / note.width, size[0] / note.height] * 2)
        frames = np.clip(note.boxes * scale + corner * 2, 0, (2 * width, 2 * height) * 2).astype(
            np.int64
        )
        frames = np.minimum(frames, (2 * width - 1, 2 * height - 1) * 2)
        for frame, label, ignored, outline in zip(
            frames.tolist(), note.labels, note.ignore, context.dataset.polygons(index), strict=True
        ):
            if outline is not None and not ignored:
                points = np.clip(
                    outline * np.float32(size[::-1]) + np.float32(corner),
                    0,
                    (2 * width, 2 * height),
                )
                objects.append(
                    Cutout(index, int(label), tuple(frame), points.astype(np.int32), corner)
                )
    return objects


def draw_place(
    largest: float, size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw x1, y1, x2, y2 of a random area in an image of ``size`` (height, width), clipped to it.

    Args:
        largest: its largest sides as fractions of the image's.
    """
    height, width = size
    side_y, side_x = (int(rng.integers(1, int(side * largest), endpoint=True)) for side in size)
    x1 = max(0, int(rng.integers(0, width, endpoint=True)) - side_x // 2)
    y1 = max(0, int(rng.integers(0, height, endpoint=True)) - side_y // 2)
    return x1, y1, min(width, x1 + side_x), min(height, y1 + side_y)


def covered(place: tuple[int, int, int, int], boxes: np.ndarray) -> np.ndarray:
    """Compute the share of each box (N, 4) that is inside ``place`` xyxy, (N,)."""
    common = np.minimum(boxes[:, 2:], place[2:]) - np.maximum(boxes[:, :2], place[:2])
    return common.clip(0).prod(1) / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + 1e-16)


def paste(
    image: np.ndarray, cutout: Cutout, place: tuple[int, int, int, int], context: AugmentContext
) -> tuple[int, int, int, int] | None:
    """Paste the object into the upper left corner of ``place``. Returns its box, or None if it
    would be too small.
    """
    x1, y1, x2, y2 = place
    taken_w, taken_h = cutout.frame[2] - cutout.frame[0], cutout.frame[3] - cutout.frame[1]
    factor = min((y2 - y1) / taken_h, (x2 - x1) / taken_w)
    width, height = int(taken_w * factor), int(taken_h * factor)
    if width <= _MIN_OBJECT or height <= _MIN_OBJECT:
        return None
    pixels = cv2.resize(cut_out(cutout, context), (width, height))
    if np.count_nonzero(pixels) <= _MIN_VALUES:
        return None
    target = image[y1 : y1 + height, x1 : x1 + width]
    np.copyto(target, pixels, where=pixels > 0)
    return x1, y1, x1 + width, y1 + height


def cut_out(cutout: Cutout, context: AugmentContext) -> np.ndarray:
    """Cut out the object's frame, (height, width, 3) uint8, with 0 outside the outline.

    As in the original: values of 0 inside the outline become 255, so that they do not count as
    outside.
    """
    photo = fitted(context.dataset.load(cutout.index), context).image
    # drawn as on the whole mosaic and cropped afterwards, because OpenCV draws lines differently if
    # a border cuts
    height, width = context.input_spec.size
    low, high = (
        cutout.outline.min(0),
        np.minimum(cutout.outline.max(0) + 1, (2 * width, 2 * height)),
    )
    mask = np.zeros(np.maximum(high - low, 1)[::-1], np.uint8)
    cv2.drawContours(mask, [cutout.outline - low], -1, 255, cv2.FILLED)
    inside = _window(mask, (int(low[0]), int(low[1])), cutout.frame)
    pixels = _window(photo, cutout.corner, cutout.frame)
    return np.where(inside[..., None] > 0, np.where(pixels > 0, pixels, 255), 0).astype(np.uint8)


def _window(
    image: np.ndarray, corner: tuple[int, int], frame: tuple[int, int, int, int]
) -> np.ndarray:
    """Crop ``frame`` xyxy of an image whose (left, top) is ``corner``; 0 outside of the image."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (
        frame[0] - corner[0],
        frame[1] - corner[1],
        frame[2] - corner[0],
        frame[3] - corner[1],
    )
    seen = image[max(y1, 0) : y2, max(x1, 0) : x2]
    spare = [(max(-y1, 0), max(y2 - height, 0)), (max(-x1, 0), max(x2 - width, 0))]
    return np.pad(seen, spare + [(0, 0)] * (image.ndim - 2))

"""Compute anchor boxes for a data set by k-means, for ``mindyolo-ext anchors``."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy.cluster.vq import ClusterError, kmeans2

from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.formats.label_files import label_path, list_images, parse_label
from mindyolo_ext.data.text import MAX_LABEL_BYTES, read_lines
from mindyolo_ext.errors import DataError, MissingFileError, UsageError

logger = logging.getLogger(__name__)
_ITERATIONS = 50
_SAMPLE = 20000  # boxes per restart; the last run uses all
_Map: TypeAlias = Callable[[Any], np.ndarray]
# The forms of sizes that k-means clusters, and their inverses
_FORMS: tuple[tuple[_Map, _Map], ...] = (
    (np.asarray, np.asarray),
    (np.sqrt, np.square),
    (np.log, np.exp),
)


@dataclass(frozen=True)
class AnchorResult:
    """Anchors of a data set.

    Args:
        anchors: (k, 2) width and height in pixels of the network input, by rising width.
        mean_iou: mean IoU of the boxes with their best anchor, corners aligned.
    """

    anchors: np.ndarray
    mean_iou: float

    @property
    def text(self) -> str:
        """Format as Yolo-FastestV2's file ``anchors<k>.txt``: pairs on one line, then the mean
        IoU.
        """
        return (
            ", ".join(f"{width:.2f},{height:.2f}" for width, height in self.anchors)
            + f"\n{self.mean_iou:.6f}\n"
        )


def generate_anchors(
    source: Dataset | np.ndarray,
    *,
    num_anchors: int,
    input_size: tuple[int, int],
    seed: int = 0,
    restarts: int = 20,
) -> AnchorResult:
    """Compute the best anchors of several seeded k-means runs.

    Args:
        source: data set (ignored boxes are left out), or box sizes (N, 2) width, height as
            fractions of the image.
        num_anchors: k.
        input_size: (height, width) of the network input, to which images are stretched.
        seed: seed of the starting points.
        restarts: runs in each of three forms of the sizes (unchanged, square root, logarithm).

    Raises: UsageError for too few different boxes or sizes outside 0..1.
    Source: Yolo-FastestV2 ``genanchors.py``. Unlike the original: its distance is 1 - IoU and its
        only start is drawn without a seed; here SciPy's Euclidean k-means runs from many starts in
        three forms of the sizes, and the result with the highest mean IoU, the quantity that the
        original reports, is used. So the anchors differ from the original's: on 240 reference
        boxes (one start of the original, seed 0 here) the mean IoU is 0.6075 against 0.5944 for k =
        6, and 0.6561 against 0.6439 for k = 9.
    """
    sizes = box_fractions(source) if isinstance(source, Dataset) else np.asarray(source, np.float64)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not ((sizes > 0) & (sizes <= 1)).all():
        raise UsageError(
            "generate_anchors: wanted box sizes (N, 2) as fractions of the image, above 0 and "
            f"up to 1, got shape {sizes.shape}"
            + (f", values {sizes.min():g}..{sizes.max():g}" if sizes.size else "")
        )
    different = len(np.unique(sizes, axis=0))
    if not 1 <= num_anchors <= different:
        raise UsageError(
            f"generate_anchors: wanted 1..{different} anchors (as many different boxes), "
            f"got {num_anchors}"
        )
    rng = np.random.default_rng(seed)
    part = sizes if len(sizes) <= _SAMPLE else sizes[rng.choice(len(sizes), _SAMPLE, replace=False)]
    starts = np.unique(part, axis=0)
    best: np.ndarray | None = None
    best_iou, best_form = -1.0, _FORMS[0]
    for form, back in _FORMS:
        for _ in range(restarts if len(starts) >= num_anchors else 0):
            start = starts[rng.choice(len(starts), num_anchors, replace=False)]
            centers = _cluster(form(part), form(start))
            iou = -1.0 if centers is None else mean_best_iou(part, back(centers))
            if centers is not None and iou > best_iou:
                best, best_iou, best_form = back(centers), iou, (form, back)
    if best is None:
        raise UsageError(
            f"generate_anchors: no start gave {num_anchors} different clusters of {len(sizes)} "
            "boxes; use fewer anchors"
        )
    best_iou = mean_best_iou(sizes, best)
    if part is not sizes:  # continue with all boxes
        form, back = best_form
        centers = _cluster(form(sizes), form(best))
        if centers is not None and mean_best_iou(sizes, back(centers)) > best_iou:
            best, best_iou = back(centers), mean_best_iou(sizes, back(centers))
    height, width = input_size
    anchors = best[np.argsort(best[:, 0], kind="stable")] * (width, height)
    return AnchorResult(anchors, best_iou)


def mean_best_iou(sizes: np.ndarray, anchors: np.ndarray) -> float:
    """Compute the mean over boxes ``sizes`` (N, 2) of the highest IoU with one of ``anchors`` (k,
    2), corners aligned.
    """
    best = np.zeros(len(sizes))
    for anchor in anchors:  # k is small, and (N,) arrays stay small
        common = np.minimum(sizes, anchor).prod(1)
        best = np.maximum(best, common / (sizes.prod(1) + anchor.prod() - common))
    return float(best.mean())


def box_fractions(dataset: Dataset) -> np.ndarray:
    """Return width and height of all boxes as fractions of their image, (N, 2) float64, without
    ignored boxes.
    """
    rows = [np.zeros((0, 2))]
    for index in range(len(dataset)):
        found = dataset.annotations(index)
        boxes = found.boxes[~found.ignore].astype(np.float64)
        rows.append(np.minimum((boxes[:, 2:] - boxes[:, :2]) / (found.width, found.height), 1.0))
    return np.concatenate(rows)


def sizes_from_list(path: str | Path, data_root: str | Path = ".") -> np.ndarray:
    """Read width and height of all boxes in the label files of an image list, as fractions, (N, 2)
    float64.

    The label file is next to the image, or in the folder ``labels`` if the image is in
    ``JPEGImages`` or ``images``. As in training, boxes are clipped to the image, outlines become
    their bounding boxes, and boxes without area are skipped with a warning.

    Args:
        path: text file with one image per line.
        data_root: folder that the lines refer to; an image that does not exist there is looked up
            in the list's folder.

    Raises: MissingFileError for a missing list or label file; DataError that names file and line.
    Source: Yolo-FastestV2 ``genanchors.py``. Unlike the original: any white space separates, and
        any image suffix is allowed.
    """
    sizes, without_area = [], []
    for image in list_images(Path(path), data_root):
        label = _label_of(image, path)
        for number, line in read_lines(label, most=MAX_LABEL_BYTES):
            try:
                found = parse_label(line)
            except DataError as error:
                raise DataError(f"{label}:{number}: {error}") from None
            box = np.clip(found.box, 0, 1)
            size = found.sides if tuple(box) == found.box else tuple(box[2:] - box[:2])
            if all(side > 0 for side in size):  # False for NaN
                sizes.append(size)
            else:
                without_area.append(f"{label}:{number}")
    if without_area:
        logger.warning(
            "%s: %d boxes without area inside their images are left out, the first: %s",
            path,
            len(without_area),
            without_area[0],
        )
    if not sizes:
        raise DataError(f"{path}: wanted at least one box in the label files of its images")
    return np.array(sizes, np.float64)


def _label_of(image: str, source: str | Path) -> str:
    """Find the label file of an image. Raises: MissingFileError."""
    beside = os.path.splitext(image)[0] + ".txt"
    places = dict.fromkeys(
        [beside.replace("JPEGImages", "labels"), label_path(image, None, None), beside]
    )
    label = next((place for place in places if os.path.isfile(place)), None)
    if label is None:
        raise MissingFileError(
            f"{source}: no label file for {image}, looked for {', '.join(places)}"
        )
    return label


def _cluster(values: np.ndarray, start: np.ndarray) -> np.ndarray | None:
    """Return the k-means centers (k, 2) from ``start``, None if a cluster became empty."""
    try:
        return kmeans2(values, start, iter=_ITERATIONS, minit="matrix", missing="raise")[0]
    except ClusterError:
        return None

"""Ground truth and detections of a data set as columns: a few arrays instead of a dictionary per
box. Uses NumPy only.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mindyolo_ext.errors import DataError, UsageError
from mindyolo_ext.evaluation.collect import CocoRecords

RECORD_KEYS = ("image_id", "category_id", "bbox", "score")
_CHUNK = 65536  # records that are collected as Python numbers before they become an array


@dataclass(frozen=True)
class Truth:
    """Objects of the evaluated images.

    Args:
        image_ids: ids of these images, rising.
        category_ids, names: the categories by rising id.
        image, category: (m,) positions in ``image_ids`` and ``category_ids``.
        xywh: (m, 4) float64 x, y, width, height in photo pixels.
        area: (m,) float64, the object's area as COCO defines it.
        crowd: (m,) bool, whether it is a crowd region, on which detections are ignored.
    """

    image_ids: list
    category_ids: list[int]
    names: list[str]
    image: np.ndarray
    category: np.ndarray
    xywh: np.ndarray
    area: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True)
class Found:
    """Detections on the images of a ``Truth``, in the order of their records.

    Args:
        image, category: (n,) positions in the lists of the ``Truth``.
        xywh: (n, 4) float64 x, y, width, height in photo pixels.
        score: (n,) float64.
    """

    image: np.ndarray
    category: np.ndarray
    xywh: np.ndarray
    score: np.ndarray


def truth_columns(truth: Mapping[str, Any], image_ids: Sequence[int | str] | None) -> Truth:
    """Read the annotations of a data set in COCO's format.

    Args:
        truth: with the sections images, annotations and categories.
        image_ids: use these images only; None means all.

    Raises: UsageError for ``image_ids`` that the data set does not have.
    """
    known = {image["id"] for image in truth["images"]}
    wanted = known if image_ids is None else set(image_ids)
    if not wanted <= known:
        raise UsageError(
            f"evaluate_coco: image_ids: {some(wanted - known)} not in the ground truth"
        )
    names = {category["id"]: category["name"] for category in truth["categories"]}
    images, categories = sorted(wanted), sorted(names)
    image_of, category_of = _positions(images), _positions(categories)
    kept = [a for a in truth["annotations"] if a["image_id"] in image_of]
    return Truth(
        images,
        categories,
        [names[one] for one in categories],
        np.array([image_of[a["image_id"]] for a in kept], np.int64),
        np.array([category_of.get(a["category_id"], -1) for a in kept], np.int64),
        np.array([a["bbox"] for a in kept], np.float64).reshape(-1, 4),
        np.array([a.get("area", a["bbox"][2] * a["bbox"][3]) for a in kept], np.float64),
        np.array([a.get("iscrowd", 0) for a in kept], bool),
    )


def found_columns(
    detections: CocoRecords | Iterable[Mapping[str, Any]], truth: Truth, known_images: Iterable
) -> Found:
    """Read the detections on the images of ``truth``.

    Args:
        detections: arrays, or records of the COCO results format.
        known_images: ids of all images of the ground truth, including those that are not evaluated.

    Raises: DataError for an invalid record, on any image.
    """
    if isinstance(detections, CocoRecords):
        return _from_arrays(detections, truth, set(known_images))
    return _from_records(detections, truth, set(known_images))


def _from_arrays(detections: CocoRecords, truth: Truth, known: set) -> Found:
    """Build columns from the arrays (N, 6) of each photo."""
    image_of, category_of = _positions(truth.image_ids), _positions(truth.category_ids)
    for image_id in detections.image_ids:
        _check_known("evaluate_coco", "image_id", image_id, known)
    for category_id in detections.category_ids:
        _check_known("evaluate_coco", "category_id", category_id, category_of)
    position = np.array([image_of.get(one, -1) for one in detections.image_ids], np.int64)
    category = np.array([category_of[one] for one in detections.category_ids], np.int64)
    counts, rows = detections.stacked()  # (N, 6) of all photos, once
    image = np.repeat(position, counts)
    if not np.isfinite(rows[:, :5]).all():
        worst = int(np.flatnonzero(~np.isfinite(rows[:, :5]).all(axis=1))[0])
        raise DataError(
            f"evaluate_coco: detection {worst}: wanted four finite numbers and a finite score, got "
            f"{rows[worst, :4].tolist()}, {rows[worst, 4]}"
        )
    if (position < 0).any():
        image, rows = image[image >= 0], rows[image >= 0]
    xywh = rows[:, :4].astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    return Found(image, category[rows[:, 5].astype(np.int64)], xywh, rows[:, 4].astype(np.float64))


def _from_records(detections: Iterable[Mapping[str, Any]], truth: Truth, known: set) -> Found:
    """Build columns from records, which are read once and need not fit into memory."""
    image_of, category_of = _positions(truth.image_ids), _positions(truth.category_ids)
    chunks: list[np.ndarray] = [np.zeros((0, 7))]
    waiting: list[list[float]] = []
    for number, record in enumerate(detections):
        box, score = _checked_numbers(number, record, known, category_of)
        image = image_of.get(record["image_id"])
        if image is None:
            continue
        waiting.append([image, category_of[record["category_id"]], *box, score])
        if len(waiting) == _CHUNK:
            chunks.append(np.array(waiting))
            waiting.clear()
    rows = np.concatenate([*chunks, np.array(waiting).reshape(-1, 7)])
    return Found(rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64), rows[:, 2:6], rows[:, 6])


def _checked_numbers(
    number: int, record: Mapping[str, Any], known: set, category_of: Mapping
) -> tuple[list[float], float]:
    """Return box and score of a record. Raises: DataError for an invalid one."""
    where = f"evaluate_coco: detection {number}"
    missing = [key for key in RECORD_KEYS if key not in record]
    if missing:
        raise DataError(f"{where}: no {missing}, wanted {list(RECORD_KEYS)}")
    _check_known(where, "image_id", record["image_id"], known)
    _check_known(where, "category_id", record["category_id"], category_of)
    box = [float(value) for value in record["bbox"]]
    if len(box) != 4 or not all(map(math.isfinite, [*box, record["score"]])):
        raise DataError(
            f"{where}: wanted four finite numbers and a finite score, got {record['bbox']}, "
            f"{record['score']}"
        )
    return box, float(record["score"])


def _check_known(where: str, key: str, value: Any, known: Iterable) -> None:
    """Raises: DataError unless the ground truth has this image or category."""
    if value not in known:
        raise DataError(
            f"{where}: {key} {value!r} is not in the ground truth, which has {some(known)} and so "
            "on"
        )


def _positions(values: Sequence) -> dict:
    return {value: position for position, value in enumerate(values)}


def some(values: Iterable) -> list:
    """List a few of the values, for an error message."""
    return sorted(values, key=str)[:5]

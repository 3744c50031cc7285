"""COCO's box metrics, and files of detections in COCO's format. Loads no framework."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from mindyolo_ext import atomic
from mindyolo_ext.errors import DataError, MissingFileError
from mindyolo_ext.evaluation import coco_backends
from mindyolo_ext.evaluation.collect import CocoRecords
from mindyolo_ext.evaluation.columns import RECORD_KEYS, Truth, found_columns, truth_columns
from mindyolo_ext.evaluation.confidence import best_point
from mindyolo_ext.evaluation.matching import Matches, match

STAT_NAMES = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


@dataclass(frozen=True)
class CocoClass:
    """Scores of one category, 0..1; NaN where the ground truth has no box of it.

    Args:
        confidence: the threshold of the highest F1 at IoU 0.5; ``precision``, ``recall`` and ``f1``
            are those of the detections above it.
    """

    category_id: int
    name: str
    num_ground_truth: int
    num_detections: int
    ap: float
    ap50: float
    precision: float
    recall: float
    f1: float
    confidence: float


@dataclass(frozen=True)
class CocoResult:
    """Results of COCO's evaluation.

    Args:
        stats: the twelve numbers by the names ``STAT_NAMES``, 0..1; -1, as in COCO, where the
            ground truth has no box of that size.
        per_class: by rising category id.
        num_images, num_detections, num_ground_truth: what was counted, ground truth without crowd
            regions.
        recall: recall levels of the curves, (R,).
        precision50: precision at IoU 0.5 at those levels per category of ``per_class``, (R, K); -1
            without ground truth.
        scores50, hits50: per category the scores of its detections, falling, and whether each is a
            true positive at IoU 0.5; detections that COCO ignores (on crowd regions, beyond 100 per
            image) are left out.
        matches: which detection matches which object at IoU 0.5.
    """

    stats: dict[str, float]
    per_class: list[CocoClass]
    num_images: int
    num_detections: int
    num_ground_truth: int
    recall: np.ndarray = field(repr=False)
    precision50: np.ndarray = field(repr=False)
    scores50: list[np.ndarray] = field(repr=False)
    hits50: list[np.ndarray] = field(repr=False)
    matches: Matches = field(repr=False)

    @property
    def ap(self) -> float:
        """AP averaged over IoU 0.50:0.95."""
        return self.stats["AP"]

    @property
    def ap50(self) -> float:
        """AP at IoU 0.50."""
        return self.stats["AP50"]

    def table(self) -> str:
        """Format the twelve numbers, in percent, as text."""
        head = (
            f"{self.num_images} images, {self.num_ground_truth} boxes, "
            f"{self.num_detections} detections"
        )
        rows = [[name, _percent(value)] for name, value in self.stats.items()]
        return f"{head}\n" + tabulate(
            rows, ["metric", "%"], colalign=("left", "right"), disable_numparse=True
        )

    def class_table(self) -> str:
        """Format AP, AP50, and precision, recall and F1 at each class's best confidence as text."""
        rows = [
            [
                c.name,
                str(c.num_ground_truth),
                str(c.num_detections),
                *(_percent(value) for value in (c.ap, c.ap50, c.precision, c.recall, c.f1)),
                "-" if math.isnan(c.confidence) else f"{c.confidence:.3f}",
            ]
            for c in self.per_class
        ]
        return tabulate(
            rows,
            ["class", "boxes", "detections", "AP", "AP50", "P", "R", "F1", "at confidence"],
            disable_numparse=True,
            colalign=("left", *["right"] * 8) if rows else None,
        )


def _percent(value: float) -> str:
    """Format 0.1234 as 12.34, and a missing number as a dash."""
    return "-" if math.isnan(value) or value < 0 else f"{100 * value:.2f}"


def evaluate_coco(
    ground_truth: dict | str | Path,
    detections: CocoRecords | Iterable[dict],
    *,
    image_ids: Sequence[int | str] | None = None,
    backend: str = "auto",
) -> CocoResult:
    """Compute COCO's box metrics of detections.

    Args:
        ground_truth: a data set in COCO's format, or the path of its JSON file. Ids of images may
            be numbers or texts; a missing ``iscrowd`` means 0, a missing ``area`` that of the box.
        detections: ``CocoRecords``, whose arrays are used directly, or records with ``image_id``,
            ``category_id``, ``bbox`` (x, y, width, height in photo pixels) and ``score``.
        image_ids: evaluate these images only; None means all of the ground truth.
        backend: one of ``coco_backends.BACKENDS``. All give the same numbers.

    Raises:
        MissingFileError: no such ground-truth file.
        DataError: the ground truth lacks a section; a record lacks a key, holds a number that is
            not finite, or names an image or category that the ground truth does not have.
        UsageError: no such backend, or ``image_ids`` that the ground truth does not have.
        DeviceError: the backend is not installed.
    """
    backend = coco_backends.chosen_backend(backend)
    sections = _read_ground_truth(ground_truth)
    truth = truth_columns(sections, image_ids)
    found = found_columns(detections, truth, (image["id"] for image in sections["images"]))
    return _result(coco_backends.run(backend, truth, found), match(truth, found))


def _read_ground_truth(ground_truth: dict | str | Path) -> dict:
    """Return the data set as a dictionary with the three sections of COCO's format."""
    where = "evaluate_coco: ground truth"
    if not isinstance(ground_truth, dict):
        where = str(ground_truth)
        ground_truth = _read_json(ground_truth)
    if not isinstance(ground_truth, dict):
        raise DataError(f"{where}: wanted COCO's sections, got a {type(ground_truth).__name__}")
    missing = {"images", "annotations", "categories"} - set(ground_truth)
    if missing:
        raise DataError(f"{where}: no section {sorted(missing)}")
    return ground_truth


def _read_json(path: str | Path) -> Any:
    """Read a JSON file. Raises: MissingFileError; DataError if it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except ValueError as error:  # also of text that is not UTF-8
        raise DataError(f"{path}: wanted JSON, got a damaged or other file: {error}") from error


def _result(evaluation: Any, matches: Matches) -> CocoResult:
    """Collect the numbers of an accumulated evaluation, with the matches."""
    truth, found = matches.truth, matches.found
    kinds = len(truth.category_ids)
    boxes = np.bincount(truth.category[~truth.crowd & (truth.category >= 0)], minlength=kinds)
    counts = np.bincount(found.category, minlength=kinds)
    # (IoU, R, K), all sizes, 100 detections
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    hit = matches.hit
    rows = [matches.of_category(position) for position in range(kinds)]
    scores, hits = [found.score[its] for its in rows], [hit[its] for its in rows]
    per_class = [
        _class(truth, position, int(boxes[position]), int(counts[position]), curves, its)
        for position, (curves, its) in enumerate(
            zip(np.moveaxis(precision, 2, 0), zip(scores, hits))
        )
    ]
    return CocoResult(
        dict(zip(STAT_NAMES, (float(value) for value in evaluation.stats))),
        per_class,
        len(truth.image_ids),
        len(found.score),
        int((~truth.crowd).sum()),
        np.array(evaluation.params.recThrs),
        precision[0],
        scores,
        hits,
        matches,
    )


def _class(
    truth: Truth,
    position: int,
    boxes: int,
    detections: int,
    precision: np.ndarray,
    scores_hits: tuple[np.ndarray, np.ndarray],
) -> CocoClass:
    """Compute the scores of a category from its precision (IoU, R)."""
    has_truth = (precision > -1).any()
    best = best_point(*scores_hits, boxes if has_truth else 0)
    return CocoClass(
        int(truth.category_ids[position]),
        truth.names[position],
        boxes,
        detections,
        float(precision.mean()) if has_truth else math.nan,
        float(precision[0].mean()) if has_truth else math.nan,
        best.precision,
        best.recall,
        best.f1,
        best.confidence,
    )


def write_detections(path: str | Path, detections: Iterable[dict]) -> None:
    """Write records in the COCO results format; the file appears complete or not at all.

    Raises: ValueError for a number that JSON cannot hold (NaN, infinity), WriteError if the
        disk refuses.
    """
    atomic.write_json_list(Path(path), detections)


def read_detections(path: str | Path) -> list[dict]:
    """Read records from a file in the COCO results format.

    Raises: MissingFileError; DataError if the file is not a list of such records.
    """
    records = _read_json(path)
    if not isinstance(records, list):
        raise DataError(f"{path}: wanted a list of detections, got {type(records).__name__}")
    for number, record in enumerate(records):
        if not isinstance(record, dict) or any(key not in record for key in RECORD_KEYS):
            raise DataError(
                f"{path}: record {number}: wanted the keys {list(RECORD_KEYS)}, got {record!r:.80}"
            )
    return records

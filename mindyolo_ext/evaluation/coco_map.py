"""COCO's box metrics by pycocotools or faster-coco-eval, and the files of detections they read.
No framework.
"""

import contextlib
import importlib.util
import io
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from mindyolo_ext import atomic
from mindyolo_ext.errors import DataError, DeviceError, MissingFileError, UsageError

logger = logging.getLogger(__name__)

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
BACKENDS = ("pycocotools", "faster_coco_eval")
_RECORD_KEYS = ("image_id", "category_id", "bbox", "score")


@dataclass(frozen=True)
class CocoClass:
    """Scores of one category, 0..1; NaN where the ground truth has no box of it."""

    category_id: int
    name: str
    num_ground_truth: int
    num_detections: int
    ap: float
    ap50: float


@dataclass(frozen=True)
class CocoResult:
    """What the COCO evaluation found.

    Args:
        stats: the twelve numbers by the names ``STAT_NAMES``, 0..1; -1, as in COCO, where the
            ground truth has no box of that size.
        per_class: by rising category id.
        num_images, num_detections, num_ground_truth: what was counted; crowd regions are not in the
            last.
        recall: recall levels of the curves, (R,).
        precision50: precision at IoU 0.5 at those levels per category of ``per_class``, (R, K); -1
            without ground truth.
        scores50, hits50: per category the scores of its detections, falling, and whether each is a
            true positive at IoU 0.5; detections that COCO ignores (on crowd regions, beyond 100 per
            image) are left out.
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

    @property
    def ap(self) -> float:
        """AP averaged over IoU 0.50:0.95."""
        return self.stats["AP"]

    @property
    def ap50(self) -> float:
        """AP at IoU 0.50."""
        return self.stats["AP50"]

    def table(self) -> str:
        """The twelve numbers, in percent, as text."""
        head = (
            f"{self.num_images} images, {self.num_ground_truth} boxes, "
            f"{self.num_detections} detections"
        )
        rows = [[name, _percent(value)] for name, value in self.stats.items()]
        return f"{head}\n" + tabulate(
            rows, ["metric", "%"], colalign=("left", "right"), disable_numparse=True
        )

    def class_table(self) -> str:
        """AP and AP50 per category, in percent, as text."""
        rows = [
            [
                c.name,
                str(c.num_ground_truth),
                str(c.num_detections),
                _percent(c.ap),
                _percent(c.ap50),
            ]
            for c in self.per_class
        ]
        return tabulate(
            rows,
            ["class", "boxes", "detections", "AP", "AP50"],
            disable_numparse=True,
            colalign=("left", "right", "right", "right", "right") if rows else None,
        )


def _percent(value: float) -> str:
    """0.1234 -> 12.34, and a dash for a number that does not exist."""
    return "-" if math.isnan(value) or value < 0 else f"{100 * value:.2f}"


def evaluate_coco(
    ground_truth: dict | str | Path,
    detections: Iterable[dict],
    *,
    image_ids: Sequence[int | str] | None = None,
    backend: str = "pycocotools",
) -> CocoResult:
    """The COCO box metrics of detections.

    Args:
        ground_truth: a data set in COCO's format, or the path of its JSON file. Ids of images may
            be numbers or texts; a missing ``iscrowd`` means 0, a missing ``area`` that of the box.
        detections: records with ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in
            photo pixels) and ``score``.
        image_ids: count these images only; None counts all of the ground truth.
        backend: one of ``BACKENDS``. Both give the same numbers; the matches behind ``scores50``
            and ``hits50`` are always pycocotools'.

    Raises:
        MissingFileError: no such ground-truth file.
        DataError: the ground truth lacks a section; a record lacks a key, holds a number that is
            not finite, or names an image or category that the ground truth does not have.
        UsageError: no such backend, or ``image_ids`` that the ground truth does not have.
        DeviceError: the backend is not installed.
    """
    check_backend(backend)
    truth = _read_ground_truth(ground_truth)
    wanted = _wanted_images(truth, image_ids)
    # the fast one wants numbers
    numbers = {image_id: number for number, image_id in enumerate(sorted(wanted), 1)}
    found = _checked_records(detections, truth, numbers)
    boxes = _numbered(_truth_boxes(truth), numbers)
    with contextlib.redirect_stdout(io.StringIO()) as said:  # pycocotools prints
        run = _run_pycocotools if backend == "pycocotools" else _run_faster
        evaluation, matched = run(numbers, truth["categories"], boxes, found)
    logger.debug("%s:\n%s", backend, said.getvalue().rstrip())
    return _result(evaluation, matched, truth, found, wanted)


def check_backend(backend: str) -> None:
    """Make sure that a program for COCO's metrics is there.

    Raises: UsageError for a name not in ``BACKENDS``, DeviceError if it is not installed.
    """
    if backend not in BACKENDS:
        raise UsageError(
            f"evaluate_coco: backend must be one of {', '.join(BACKENDS)}, got {backend!r}"
        )
    if importlib.util.find_spec(backend) is None:
        raise DeviceError(
            f"eval.backend: {backend} is not installed; `pip install faster-coco-eval` brings it, "
            "and eval.backend=pycocotools gives the same numbers without it"
        )


def _run_pycocotools(
    numbers: dict, categories: list[dict], boxes: list[dict], found: list[dict]
) -> tuple[COCOeval, COCOeval]:
    """The finished evaluation, which holds the matches too."""
    evaluation = COCOeval(
        *(_index(COCO(), numbers, categories, rows) for rows in (boxes, found)), "bbox"
    )
    _finish(evaluation)
    return evaluation, evaluation


def _run_faster(
    numbers: dict, categories: list[dict], boxes: list[dict], found: list[dict]
) -> tuple[Any, COCOeval]:
    """The finished evaluation, and pycocotools' of the only case whose matches are drawn, which
    the other hides.
    """
    import faster_coco_eval

    fast = faster_coco_eval.COCOeval_faster(
        *(_index(faster_coco_eval.COCO(), numbers, categories, rows) for rows in (boxes, found)),
        "bbox",
        print_function=print,
    )
    _finish(fast)
    matched = COCOeval(
        *(_index(COCO(), numbers, categories, rows) for rows in (boxes, found)), "bbox"
    )
    matched.params.iouThrs, matched.params.areaRng = (
        matched.params.iouThrs[:1],
        matched.params.areaRng[:1],
    )
    matched.evaluate()
    return fast, matched


def _finish(evaluation: Any) -> None:
    """Match, accumulate and summarize."""
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()


def _read_ground_truth(ground_truth: dict | str | Path) -> dict:
    """The data set as a dictionary with the three sections of COCO's format."""
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
    """The content of a JSON file. Raises: MissingFileError; DataError if it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except ValueError as error:  # also of text that is not UTF-8
        raise DataError(f"{path}: wanted JSON, got a damaged or other file: {error}") from error


def _wanted_images(truth: dict, image_ids: Sequence[int | str] | None) -> set:
    """The ids to count, all of them in the ground truth."""
    known = {image["id"] for image in truth["images"]}
    wanted = known if image_ids is None else set(image_ids)
    if not wanted <= known:
        raise UsageError(
            f"evaluate_coco: image_ids: {_some(wanted - known)} not in the ground truth"
        )
    return wanted


def _some(values: set) -> list:
    """A few of the values, for an error."""
    return sorted(values, key=str)[:5]


def _truth_boxes(truth: dict) -> list[dict]:
    """Annotations with every field that pycocotools reads, numbered from 1 (it takes id 0 for
    "no match").
    """
    return [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": a["bbox"],
            "id": number,
            "area": a.get("area", a["bbox"][2] * a["bbox"][3]),
            "iscrowd": a.get("iscrowd", 0),
        }
        for number, a in enumerate(truth["annotations"], 1)
    ]


def _checked_records(detections: Iterable[dict], truth: dict, numbers: dict) -> list[dict]:
    """Copies of the records on the images to count, with these images' numbers and the fields that
    pycocotools adds. Raises: DataError for a wrong one, on whatever image.
    """
    images = {image["id"] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    records = []
    for number, record in enumerate(detections):
        where = f"evaluate_coco: detection {number}"
        missing = [key for key in _RECORD_KEYS if key not in record]
        if missing:
            raise DataError(f"{where}: no {missing}, wanted {list(_RECORD_KEYS)}")
        if record["image_id"] not in images:
            raise DataError(
                f"{where}: image_id {record['image_id']!r} is not in the ground truth, which has "
                f"{_some(images)} and so on"
            )
        if record["category_id"] not in categories:
            raise DataError(
                f"{where}: category_id {record['category_id']!r} is not in the ground truth, which "
                f"has {_some(categories)} and so on"
            )
        box = [float(value) for value in record["bbox"]]
        if len(box) != 4 or not all(map(math.isfinite, [*box, record["score"]])):
            raise DataError(
                f"{where}: wanted four finite numbers and a finite score, got {record['bbox']}, "
                f"{record['score']}"
            )
        if record["image_id"] not in numbers:
            continue
        records.append(
            {
                "image_id": numbers[record["image_id"]],
                "category_id": record["category_id"],
                "bbox": box,
                "score": float(record["score"]),
                "area": box[2] * box[3],
                "id": number + 1,
                "iscrowd": 0,
            }
        )
    return records


def _numbered(annotations: list[dict], numbers: dict) -> list[dict]:
    """Copies of the annotations on the images to count, with these images' numbers."""
    return [
        {**a, "image_id": numbers[a["image_id"]]} for a in annotations if a["image_id"] in numbers
    ]


def _index(index: Any, numbers: dict, categories: list[dict], annotations: list[dict]) -> Any:
    """The backend's own empty ``index``, filled."""
    index.dataset = {
        "images": [{"id": number} for number in numbers.values()],
        "categories": categories,
        "annotations": annotations,
    }
    index.createIndex()
    return index


def _result(
    evaluation: Any, matched: COCOeval, truth: dict, found: list[dict], wanted: set
) -> CocoResult:
    """The numbers of an accumulated evaluation by name, with the matches of ``matched``."""
    names = {category["id"]: category["name"] for category in truth["categories"]}
    boxes = Counter(
        a["category_id"]
        for a in truth["annotations"]
        if a["image_id"] in wanted and not a.get("iscrowd", 0)
    )
    counted = Counter(record["category_id"] for record in found)
    # (IoU, R, K), all sizes, 100 detections
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_class = []
    for position, category_id in enumerate(evaluation.params.catIds):
        curves = precision[:, :, position]
        has_truth = (curves > -1).any()
        per_class.append(
            CocoClass(
                int(category_id),
                names[category_id],
                boxes[category_id],
                counted[category_id],
                float(curves.mean()) if has_truth else math.nan,
                float(curves[0].mean()) if has_truth else math.nan,
            )
        )
    stats = dict(zip(STAT_NAMES, (float(value) for value in evaluation.stats)))
    scores, hits = _matches(matched)
    return CocoResult(
        stats,
        per_class,
        len(wanted),
        counted.total(),
        boxes.total(),
        np.array(evaluation.params.recThrs),
        precision[0],
        scores,
        hits,
    )


def _matches(evaluation: COCOeval) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per category the scores (N,) of detections, falling, and their hits (N,) at IoU 0.5,
    objects of all sizes.
    """
    images, areas = len(evaluation.params.imgIds), len(evaluation.params.areaRng)
    all_scores, all_hits = [], []
    for position in range(len(evaluation.params.catIds)):
        begin = position * areas * images  # evalImgs runs over category, size, image
        found = [one for one in evaluation.evalImgs[begin : begin + images] if one is not None]
        scores = np.concatenate([np.zeros(0), *(one["dtScores"] for one in found)])
        hits = np.concatenate([np.zeros(0, bool), *(one["dtMatches"][0] > 0 for one in found)])
        counted = ~np.concatenate(
            [np.zeros(0, bool), *(one["dtIgnore"][0].astype(bool) for one in found)]
        )
        order = np.argsort(-scores[counted], kind="stable")
        all_scores.append(scores[counted][order])
        all_hits.append(hits[counted][order])
    return all_scores, all_hits


def write_detections(path: str | Path, detections: Iterable[dict]) -> None:
    """Writes records in the COCO results format; the file appears whole or not at all.

    Raises: ValueError for a number that JSON cannot hold (NaN, infinity), WriteError if the
        disk refuses.
    """
    atomic.write_json_list(Path(path), detections)


def read_detections(path: str | Path) -> list[dict]:
    """The records of a file in the COCO results format.

    Raises: MissingFileError; DataError if the file is not a list of such records.
    """
    records = _read_json(path)
    if not isinstance(records, list):
        raise DataError(f"{path}: wanted a list of detections, got {type(records).__name__}")
    for number, record in enumerate(records):
        if not isinstance(record, dict) or any(key not in record for key in _RECORD_KEYS):
            raise DataError(
                f"{path}: record {number}: wanted the keys {list(_RECORD_KEYS)}, got {record!r:.80}"
            )
    return records

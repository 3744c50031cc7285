"""Compare two sets of detections of the same images: metrics, classes, and the images that differ
most.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tabulate import tabulate

from mindyolo_ext.atomic import write_text
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.engine.evaluation_report import label_names
from mindyolo_ext.errors import DataError, UsageError
from mindyolo_ext.evaluation.coco_map import CocoResult, read_detections
from mindyolo_ext.evaluation.error_kinds import best_confidence
from mindyolo_ext.visual.detections import draw_detections

FILES = ("compare.txt", "compare.csv", "pictures")
_TITLE = 28  # height in pixels of the title above each part of a picture


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same images.

    Args:
        names: of the two.
        results: their metrics.
        confidences: lowest score of the detections that are drawn and counted per image, for each
            evaluation the one with its best mean F1.
        difference: (images,) objects that only the second finds, minus those that only the first
            finds, minus its additional false positives, in the order of the ids.
    """

    names: tuple[str, str]
    results: tuple[CocoResult, CocoResult]
    confidences: tuple[float, float]
    difference: np.ndarray

    def table(self) -> str:
        """COCO's numbers and the classes in percent; the largest changes of AP come first."""
        first, second = self.results
        rows = [[name, *_three(first.stats[name], second.stats[name])] for name in first.stats]
        classes = [
            [a.name, a.num_ground_truth, *_three(a.ap, b.ap), *_three(a.ap50, b.ap50)]
            for a, b in zip(first.per_class, second.per_class)
            if a.num_ground_truth
        ]
        classes.sort(key=lambda row: -abs(float(row[4])) if row[4] != "-" else 0.0)
        columns = [f"{metric} {name}" for metric in ("AP", "AP50") for name in ("A", "B", "B - A")]
        align = ("left", "right", "right", "right")
        return (
            f"A: {self.names[0]}\nB: {self.names[1]}\n\n"
            + tabulate(rows, ["", "A", "B", "B - A"], disable_numparse=True, colalign=align)
            + "\n\n"
            + tabulate(
                classes,
                ["class", "boxes", *columns],
                disable_numparse=True,
                colalign=("left", *["right"] * 7) if classes else None,
            )
            + f"\n\nImages where B is better: {int((self.difference > 0).sum())}, worse: "
            f"{int((self.difference < 0).sum())}, of {len(self.difference)} (objects found minus "
            f"false positives, A above {self.confidences[0]:.3f}, B above "
            f"{self.confidences[1]:.3f})"
        )

    def rows(self) -> list[list]:
        """A table for export: class, boxes, AP and AP50 of both in 0..1."""
        return [["class", "boxes", "AP_A", "AP_B", "AP50_A", "AP50_B"]] + [
            [a.name, a.num_ground_truth, a.ap, b.ap, a.ap50, b.ap50]
            for a, b in zip(self.results[0].per_class, self.results[1].per_class)
        ]


def _three(first: float, second: float) -> list[str]:
    """Two numbers in percent and their difference, dashes where one does not exist."""
    known = [np.isfinite(value) and value >= 0 for value in (first, second)]
    texts = [f"{100 * v:.2f}" if there else "-" for v, there in zip((first, second), known)]
    return [*texts, f"{100 * (second - first):+.2f}" if all(known) else "-"]


def compare(first: CocoResult, second: CocoResult, names: tuple[str, str]) -> Comparison:
    """Compare two evaluations.

    Raises: UsageError unless both have the same images and categories.
    """
    truths = first.matches.truth, second.matches.truth
    for what in ("image_ids", "category_ids"):
        lists = [vars(truth)[what] for truth in truths]
        if lists[0] != lists[1]:
            raise UsageError(
                f"compare: {names[0]} and {names[1]} are not of the same data set: {what} differ "
                f"({len(lists[0])} and {len(lists[1])})"
            )
    confidences = best_confidence(first.matches), best_confidence(second.matches)
    scores = [_by_image(result, c) for result, c in zip((first, second), confidences)]
    return Comparison(names, (first, second), confidences, scores[1] - scores[0])


def _by_image(result: CocoResult, confidence: float) -> np.ndarray:
    """(images,) objects found minus false positives."""
    matches = result.matches
    shown = matches.counted & (matches.found.score > confidence)
    worth = np.where(matches.hit, 1.0, -1.0)[shown]
    return np.bincount(matches.found.image[shown], worth, minlength=len(matches.truth.image_ids))


def read_results(path: Path, dataset: Dataset) -> list[dict]:
    """Read the detections that ``test`` wrote into a folder or file.

    Raises: MissingFileError; DataError if the file is damaged or for other images.
    """
    file = path / "detections.json" if path.is_dir() else path
    records = read_detections(file)
    strange = {record["image_id"] for record in records} - set(dataset.image_ids)
    if strange:
        raise DataError(
            f"{file}: image {min(strange, key=str)!r} is not in {dataset.name}; is it the result "
            "of another data set or split? (--split)"
        )
    return records


def save_comparison(
    folder: Path, comparison: Comparison, dataset: Dataset, *, pictures: int
) -> list[Path]:
    """Write the tables, and ``pictures`` images on which the two differ most: ground truth, A, B.

    Returns: the pictures.
    """
    write_text(folder / FILES[0], comparison.table() + "\n")
    text = io.StringIO(newline="")
    csv.writer(text).writerows(comparison.rows())
    write_text(folder / FILES[1], text.getvalue())
    ids = comparison.results[0].matches.truth.image_ids
    index_of = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    order = np.argsort(-np.abs(comparison.difference), kind="stable")[:pictures]
    names = label_names(dataset.paths)
    written = []
    for rank, position in enumerate(order[comparison.difference[order] != 0].tolist(), 1):
        index = index_of[ids[position]]
        change = int(comparison.difference[position])
        path = folder / FILES[2] / f"{rank:02d}_{change:+d}_{names[index].stem}.jpg"
        write_image(path, _picture(comparison, dataset, index, position))
        written.append(path)
    return written


def _picture(comparison: Comparison, dataset: Dataset, index: int, position: int) -> np.ndarray:
    """Ground truth, first and second detections of an image side by side."""
    photo = dataset.load(index).image
    truth = comparison.results[0].matches.truth
    rows = np.flatnonzero((truth.image == position) & ~truth.crowd)
    targets = _drawn(truth.xywh[rows], np.ones(len(rows)), truth.category[rows])
    parts = [_titled(draw_detections(photo, targets, truth.names, show_scores=False), "truth")]
    for letter, result, confidence in zip("AB", comparison.results, comparison.confidences):
        found = result.matches.found
        rows = np.flatnonzero((found.image == position) & (found.score > confidence))
        boxes = _drawn(found.xywh[rows], found.score[rows], found.category[rows])
        parts.append(_titled(draw_detections(photo, boxes, truth.names), letter))
    return np.concatenate(parts, axis=1)


def _drawn(xywh: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows (N, 6) for ``draw_detections``."""
    corners = [xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]
    return np.concatenate([*corners, scores[:, None], labels[:, None]], axis=1)


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    """Add ``title`` above the image."""
    strip = np.full((_TITLE, image.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, title, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([strip, image], axis=0)

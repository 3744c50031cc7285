"""Write the files of an evaluation: tables, pictures, labels."""

import csv
import io
import logging
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mindyolo_ext.atomic import write_bytes, write_text
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.evaluate import EvalResult
from mindyolo_ext.errors import UsageError
from mindyolo_ext.evaluation.coco_map import CocoResult
from mindyolo_ext.evaluation.collect import yolo_lines
from mindyolo_ext.evaluation.confusion import confusion_matrix, has_supervision
from mindyolo_ext.evaluation.error_kinds import break_down
from mindyolo_ext.visual.curves import plot_f1_curves, plot_over_confidence, plot_pr_curves
from mindyolo_ext.visual.errors import plot_confusion, plot_errors

logger = logging.getLogger(__name__)
_MOST_CONFUSED = 8  # pairs of classes listed in the text


def write_report(folder: Path, result: EvalResult) -> tuple[str, list[str]]:
    """Write the tables and pictures of an evaluation, and a confusion matrix if supervision is
    installed (``warn_without_supervision`` warns before the run if it is not).

    Returns: the text of ``metrics.txt``, and the names of the files.
    Raises: UsageError if ``result`` comes from a rank other than 0; WriteError if writing fails.
    """
    if result.coco is None:
        raise UsageError("write_report: only rank 0 has metrics")
    if all(math.isnan(one.ap) for one in result.coco.per_class):
        logger.info("no curves: the ground truth has no box that counts")
        write_text(folder / "metrics.txt", result.table() + "\n")
        return result.table(), ["metrics.txt"]
    errors = break_down(result.coco.matches)
    parts, files = [result.table(), errors.table()], ["metrics.txt"]
    for name, draw in (
        ("pr_curves.png", plot_pr_curves),
        ("f1_curves.png", plot_f1_curves),
        ("precision_curves.png", lambda its, path: plot_over_confidence(its, "precision", path)),
        ("recall_curves.png", lambda its, path: plot_over_confidence(its, "recall", path)),
    ):
        draw(result.coco, folder / name)
        files.append(name)
    plot_errors(errors, folder / "errors.png")
    files.append("errors.png")
    if has_supervision():
        parts.append(write_confusion(folder, result.coco, errors.confidence))
        files += ["confusion.png", "confusion.csv"]
    text = "\n\n".join(part for part in parts if part)
    write_text(folder / "metrics.txt", text + "\n")
    return text, files


def write_confusion(folder: Path, coco: CocoResult, confidence: float) -> str:
    """Write the confusion matrix as a picture and a table; returns the worst confusions as text."""
    names = coco.matches.truth.names
    matrix = confusion_matrix(coco.matches, confidence)
    plot_confusion(matrix, names, folder / "confusion.png", confidence=confidence)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["true \\ detected", *names, "background"])
    writer.writerows([[name, *row] for name, row in zip([*names, "background"], matrix.tolist())])
    write_text(folder / "confusion.csv", text.getvalue())
    between = matrix[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    order = np.argsort(-between, axis=None, kind="stable")[:_MOST_CONFUSED]
    pairs = [divmod(int(place), len(names)) for place in order]
    lines = [
        f"  {names[true]} taken for {names[seen]}: {between[true, seen]} of {matrix[true].sum()}"
        for true, seen in pairs
        if between[true, seen]
    ]
    return "\n".join([f"Most often confused (from {confidence:.3f}):", *lines]) if lines else ""


def write_labels(folder: Path, detections: Sequence[np.ndarray], dataset: Dataset) -> None:
    """Write a text file per image with a line ``class cx cy width height score`` per detection,
    sides in 0..1 of the image. The file is empty if there are no detections.

    A file has the name of its image. If the images are in several folders, the folders below their
    common one are kept; two images that differ only in their suffix keep it (``a.jpg.txt``).

    Args:
        detections: per image (N, 6) x1, y1, x2, y2 in photo pixels, score, class.

    Raises: WriteError if writing fails.
    """
    for index, (name, found) in enumerate(zip(label_names(dataset.paths), detections)):
        lines = yolo_lines(found, *dataset.size(index))
        write_bytes(folder / name, lines.encode(), flush=False)


def label_names(paths: Sequence[str]) -> list[Path]:
    """A unique name of a label file for each image."""
    if not paths:
        return []
    folders = [os.path.dirname(os.path.abspath(path)) for path in paths]
    top = os.path.commonpath(folders)
    names = [
        Path(os.path.relpath(folder, top), os.path.basename(path))
        for folder, path in zip(folders, paths)
    ]
    whole = [name.with_name(f"{name.name}.txt") for name in names]
    chosen = [name.with_suffix(".txt") for name in names]
    while True:
        counts = Counter(chosen)
        apart = [long if counts[short] > 1 else short for long, short in zip(whole, chosen)]
        if apart == chosen:
            return chosen
        chosen = apart  # a.jpg.txt, of a.jpg, may be the short name of a.jpg.png

"""Text files of boxes, one per photo, which the formats ``yolo`` and ``darknet`` share."""

import os
from pathlib import Path

import numpy as np

from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.image_file import IMAGE_SUFFIXES
from mindyolo_ext.data.text import read_lines
from mindyolo_ext.errors import DataError, MissingFileError

BOX_TOLERANCE = 1e-3  # of the photo; label files round


def list_images(source: Path, data_root: str | Path) -> list[str]:
    """Image files of a folder (sorted, with the folders below) or of a list file (in its order).

    Raises: DataError for a line that does not name an image.
    """
    if source.is_dir():
        found = [
            os.path.join(folder, name)
            for folder, _, files in os.walk(source)
            for name in files
            if name.lower().endswith(IMAGE_SUFFIXES)
        ]
        return sorted(found)
    found = []
    for number, line in read_lines(source):
        if not line.lower().endswith(IMAGE_SUFFIXES):
            raise DataError(
                f"{source}:{number}: wanted an image ({', '.join(IMAGE_SUFFIXES)}), got {line!r}"
            )
        places = [
            os.path.normpath(os.path.join(folder, line)) for folder in (data_root, source.parent)
        ]
        found.append(next((place for place in places if os.path.isfile(place)), places[0]))
    return found


def label_path(path: str, image_folder: Path | None, label_folder: Path | None) -> str:
    """The label file of an image; see ``read_yolo``."""
    stem = os.path.splitext(path)[0]
    if label_folder is not None:
        inside = (
            os.path.relpath(stem, image_folder)
            if image_folder is not None
            else os.path.basename(stem)
        )
        return os.path.join(label_folder, inside + ".txt")
    parts = stem.split(os.sep)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return os.sep.join(parts) + ".txt"


def add_labelled(
    collector: Collector,
    path: str,
    image_id: int,
    label: str,
    *,
    missing_allowed: bool = False,
    polygons: bool = False,
) -> None:
    """Add an image and the boxes of its label file to ``collector``, and report faults there.

    Args:
        missing_allowed: whether an image without a label file is one without boxes.
        polygons: whether to keep outlines.
    """
    boxes, labels, where, outlines = [], [], [], []
    try:
        lines = read_lines(label)
    except MissingFileError:
        lines = []
        if os.path.isfile(path):  # a missing image is noted by the collector
            kind = "no label file" if missing_allowed else "missing label"
            collector.report(kind, label, f"no such label file, wanted one for {path}")
    except DataError as error:
        lines = []
        collector.report("malformed label", label, str(error))
    for number, line in lines:
        place = f"{label}:{number}"
        try:
            # Unlike the original: any white space separates
            values = [float(word) for word in line.split()]
        except ValueError:
            values = []
        outlined = len(values) >= 7 and len(values) % 2 == 1
        if not (len(values) == 5 or outlined) or not values[0].is_integer():
            collector.report(
                "malformed label",
                place,
                "wanted five numbers: class cx cy w h (fractions of the image)"
                f", or class and points x y x y x y ..., got {line[:80]!r}",
            )
            continue
        outline = np.array(values[1:]).reshape(-1, 2) if outlined else None
        if outline is not None:
            boxes.append((*outline.min(0), *outline.max(0)))
        else:
            cx, cy, width, height = values[1:]
            boxes.append((cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2))
        outlines.append(outline if polygons else None)
        labels.append(int(values[0]))
        where.append(place)
    collector.add(
        path,
        image_id,
        None,
        boxes=boxes,
        labels=labels,
        ignore=[False] * len(boxes),
        where=where,
        polygons=outlines,
    )

"""Data sets with one text file of boxes per picture: ``class cx cy w h``, as fractions of the
picture, or of outlines: ``class x y x y x y ...``.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mindyolo_ext.data.dataset import (
    Collector,
    Dataset,
    find_path,
    ids_from_names,
    read_lines,
    read_names,
)
from mindyolo_ext.data.image_file import IMAGE_SUFFIXES
from mindyolo_ext.progress import bar

_BOX_TOLERANCE = 1e-3  # of the picture; label files round


def read_yolo(
    *,
    data: str | None = None,
    split: str | None = None,
    images: str | None = None,
    labels: str | None = None,
    names: str | Sequence[str] | None = None,
    missing_labels: str = "empty",
    polygons: bool = False,
    data_root: str | Path = ".",
    cache: bool = False,
    strict: bool = True,
) -> Dataset:
    """Pictures and label files, described by a yaml file (``data`` and ``split``) or by ``images``
    and ``names``.

    The label file of ``a/images/b/c.jpg`` is ``a/labels/b/c.txt`` (the last folder named
    ``images``), or ``<labels>/b/c.txt`` if ``labels`` is given. An empty label file is a picture
    without boxes.

    Args:
        data: yaml file with ``path``, ``train``, ``val``, ``names``, as ultralytics writes it.
            ``path`` refers to the yaml file's folder or to ``data_root``.
        split: key in the yaml file, such as ``train``.
        images: folder of pictures (searched with its folders below), or a text file with one
            picture per line.
        labels: folder of label files, where they do not lie in the usual place.
        names: class names, or a file with one per line.
        missing_labels: what a picture without a label file is: ``empty`` (no boxes, with a counted
            warning), an ``error``, or to ``skip``.
        polygons: keep the outlines of lines that have them, for augmentations that follow or cut
            them out; their frames are the boxes in any case.
        data_root: folder to which relative paths refer; lines of a list file may also refer to the
            file's folder.
        cache, strict: see ``Collector.finish``.

    Raises: FileNotFoundError; ValueError that names file and line.
    """
    if missing_labels not in ("error", "empty", "skip"):
        raise ValueError(
            "data (format yolo): missing_labels must be error, empty or skip, got "
            f"{missing_labels!r}"
        )
    if data is not None:
        if images is not None or names is not None or split is None:
            raise ValueError(
                "data (format yolo): wanted either data with split, or images with names"
            )
        name, sources, class_names = _read_yaml(data, split, data_root)
    else:
        if images is None or names is None:
            raise ValueError(
                "data (format yolo): wanted either data with split, or images with names"
            )
        name, sources = images, [find_path(images, data_root)]
        class_names = read_names(names, data_root)
    collector = Collector(name, class_names, relative=True, tolerance=_BOX_TOLERANCE)
    label_folder = None if labels is None else find_path(labels, data_root)

    pairs = []
    for source in sources:
        for path in list_pictures(source, data_root):
            label = label_path(path, source if source.is_dir() else None, label_folder)
            if os.path.isfile(label) or missing_labels != "skip":
                pairs.append((path, label))
    ids = ids_from_names([path for path, _ in pairs])
    shown = bar(pairs, title="reading labels", show=sys.stderr.isatty())
    for (path, label), image_id in zip(shown, ids, strict=True):
        add_labelled(
            collector,
            path,
            image_id,
            label,
            missing_allowed=missing_labels == "empty",
            polygons=polygons,
        )
    return collector.finish(cache, strict)


def list_pictures(source: Path, data_root: str | Path) -> list[str]:
    """Picture files of a folder (sorted, with the folders below) or of a list file (in its order).

    Raises: ValueError for a line that is no picture's name.
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
            raise ValueError(
                f"{source}:{number}: wanted a picture ({', '.join(IMAGE_SUFFIXES)}), got {line!r}"
            )
        places = [
            os.path.normpath(os.path.join(folder, line)) for folder in (data_root, source.parent)
        ]
        found.append(next((place for place in places if os.path.isfile(place)), places[0]))
    return found


def label_path(path: str, image_folder: Path | None, label_folder: Path | None) -> str:
    """The label file of a picture; see ``read_yolo``."""
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
    """Adds a picture and the boxes of its label file to ``collector``, with outlines if
    ``polygons``; faults are noted there.
    """
    boxes, labels, where, outlines = [], [], [], []
    try:
        lines = read_lines(label)
    except FileNotFoundError:
        lines = []
        if os.path.isfile(path):  # a missing picture is noted by the collector
            kind = "no label file" if missing_allowed else "missing label"
            collector.report(kind, label, f"no such label file, wanted one for {path}")
    except ValueError as error:
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
                "wanted five numbers: class cx cy w h (fractions of the picture)"
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


def _read_yaml(data: str, split: str, data_root: str | Path) -> tuple[str, list[Path], list[str]]:
    """Name, folders or list files, and class names of one split of a yaml file."""
    file = find_path(data, data_root)
    content: Any = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    if not isinstance(content, dict) or not content.get(split) or not content.get("names"):
        raise ValueError(
            f"{file}: wanted the keys {split} and names, got "
            f"{sorted(content) if isinstance(content, dict) else type(content).__name__}"
        )
    names = content["names"]
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise ValueError(f"{file}: names must be numbered 0, 1, 2 ..., got {list(names)}")
        names = [names[label] for label in range(len(names))]
    folder = (
        find_path(content["path"], file.parent, data_root) if content.get("path") else file.parent
    )
    sources = content[split] if isinstance(content[split], list) else [content[split]]
    return (
        f"{file} ({split})",
        [find_path(source, folder, data_root) for source in sources],
        read_names(names),
    )

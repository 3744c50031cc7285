"""Data sets with one text file of boxes per image: ``class cx cy w h``, as fractions of the
image, or of outlines: ``class x y x y x y ...``.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.formats.label_files import (
    BOX_TOLERANCE,
    add_labelled,
    label_path,
    list_images,
)
from mindyolo_ext.data.text import find_path, ids_from_names, read_names, read_text
from mindyolo_ext.errors import ConfigError, DataError
from mindyolo_ext.progress import bar


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
    """Read images and label files that a YAML file describes (``data`` and ``split``), or
    ``images`` and ``names``.

    The label file of ``a/images/b/c.jpg`` is ``a/labels/b/c.txt`` (the last folder named
    ``images``), or ``<labels>/b/c.txt`` if ``labels`` is given. An empty label file is an image
    without boxes.

    Args:
        data: yaml file with ``path``, ``train``, ``val``, ``names``, as ultralytics writes it.
            ``path`` refers to the yaml file's folder or to ``data_root``.
        split: key in the yaml file, such as ``train``.
        images: folder of images (searched with its folders below), or a text file with one
            image per line.
        labels: folder of label files, where they do not lie in the usual place.
        names: class names, or a file with one per line.
        missing_labels: what an image without a label file is: ``empty`` (no boxes, with a counted
            warning), an ``error``, or to ``skip``.
        polygons: keep the outlines of lines that have them, for augmentations that follow or cut
            them out; their frames are the boxes in any case.
        data_root: folder to which relative paths refer; lines of a list file may also refer to the
            file's folder.
        cache, strict: see ``Collector.finish``.

    Raises: MissingFileError; ConfigError for keys that do not go together; DataError that names
        file and line.
    """
    if missing_labels not in ("error", "empty", "skip"):
        raise ConfigError(
            "data (format yolo): missing_labels must be error, empty or skip, got "
            f"{missing_labels!r}"
        )
    if data is not None:
        if images is not None or names is not None or split is None:
            raise ConfigError(
                "data (format yolo): wanted either data with split, or images with names"
            )
        name, sources, class_names = _read_yaml(data, split, data_root)
    else:
        if images is None or names is None:
            raise ConfigError(
                "data (format yolo): wanted either data with split, or images with names"
            )
        name, sources = images, [find_path(images, data_root)]
        class_names = read_names(names, data_root)
    collector = Collector(name, class_names, relative=True, tolerance=BOX_TOLERANCE)
    label_folder = None if labels is None else find_path(labels, data_root)

    pairs = []
    for source in sources:
        for path in list_images(source, data_root):
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
    return collector.finish(cache=cache, strict=strict)


def _read_yaml(data: str, split: str, data_root: str | Path) -> tuple[str, list[Path], list[str]]:
    """Name, folders or list files, and class names of one split of a yaml file."""
    file = find_path(data, data_root)
    try:
        content: Any = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise DataError(f"{file}: wanted yaml: {error}") from error
    if not isinstance(content, dict) or not content.get(split) or not content.get("names"):
        raise DataError(
            f"{file}: wanted the keys {split} and names, got "
            f"{sorted(content) if isinstance(content, dict) else type(content).__name__}"
        )
    names = content["names"]
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DataError(f"{file}: names must be numbered 0, 1, 2 ..., got {list(names)}")
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

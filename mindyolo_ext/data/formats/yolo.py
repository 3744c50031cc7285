"""Read data sets with one text file per image, with boxes ``class cx cy w h`` as fractions of the
image, or outlines ``class x y x y x y ...``.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.formats.label_files import (
    BOX_TOLERANCE,
    ImageList,
    LabelReader,
    find_images,
    label_path,
)
from mindyolo_ext.data.text import find_path, ids_from_names, read_names, read_text, whole
from mindyolo_ext.errors import ConfigError, DataError, MissingFileError, closest, shown
from mindyolo_ext.progress import bar
from mindyolo_ext.yaml_file import MAX_BYTES, load_yaml

logger = logging.getLogger(__name__)
_NULL = ("", "~", "null", "Null", "NULL")  # how YAML writes null
_MOST_KEY_POINTS = 1000  # COCO-WholeBody has 133


def read_yolo(
    *,
    data: str | None = None,
    split: str | None = None,
    images: str | None = None,
    labels: str | None = None,
    names: str | Sequence[str] | None = None,
    missing_labels: str = "empty",
    kpt_shape: Sequence[int] | None = None,
    polygons: bool = False,
    data_root: str | Path = ".",
    cache: bool | str = False,
    strict: bool = True,
) -> Dataset:
    """Read images and label files, described by a YAML file (``data`` and ``split``) or by
    ``images`` and ``names``.

    The label file of ``a/images/b/c.jpg`` is ``a/labels/b/c.txt`` (the last folder named
    ``images``), or ``<labels>/b/c.txt`` if ``labels`` is given. An empty label file is an image
    without boxes.

    Args:
        data: YAML file with ``path``, ``train``, ``val``, ``names`` and ``kpt_shape``, as for
            ultralytics, or with ``train_set`` and ``val_set``, as for MindYOLO. ``_Description``
            explains how its paths are resolved.
        split: key in the yaml file, such as ``train``.
        images: folder of images (with subfolders), or a text file with one image per line.
        labels: folder of label files, if they are not in the usual place. For a list, its layout
            follows the images below their common folder, or below ``images``, or is flat.
        names: class names, or a file with one per line.
        missing_labels: how to treat an image without a label file: ``empty`` (no boxes, counted in
            a warning), ``error``, or ``skip``.
        kpt_shape: for pose labels, the number of key points and of values per point, 2 or 3; they
            follow the box and are ignored.
        polygons: keep outlines, for augmentations that use them; their bounding boxes are the boxes
            in any case.
        data_root: folder that relative paths refer to; lines of a list file may also refer to the
            file's folder.
        cache, strict: see ``Collector.finish``.

    Raises: MissingFileError; ConfigError for keys that exclude each other; DataError that names
        file and line.
    """
    if missing_labels not in ("error", "empty", "skip"):
        raise ConfigError(
            "data (format yolo): missing_labels must be error, empty or skip, got "
            f"{missing_labels!r}"
        )
    if (images is None or names is None) if data is None else (images or names or split is None):
        raise ConfigError("data (format yolo): wanted either data with split, or images with names")
    if data is not None:
        found = _described(data, str(split), data_root)
    else:
        found = _Description(str(images), read_names(names or [], data_root))
        found.sources.append(find_path(str(images), data_root, key="images"))
    shape = kpt_shape if kpt_shape is not None else found.kpt_shape
    collector = Collector(found.name, found.names, relative=True, tolerance=BOX_TOLERANCE)
    label_folder = None if labels is None else find_path(labels, data_root, key="labels")
    pairs = _pairs(collector, found.sources, data_root, label_folder)
    if missing_labels == "skip":
        pairs = _with_labels(collector, pairs)
    reader = LabelReader(
        collector,
        missing_allowed=missing_labels == "empty",
        polygons=polygons,
        key_point_numbers=_key_point_numbers(shape, found.name),
    )
    ids = ids_from_names([path for path, _ in pairs])
    progress = bar(pairs, title="reading labels", show=sys.stderr.isatty())
    for (path, label), image_id in zip(progress, ids, strict=True):
        reader.add(path, image_id, label)
    reader.report_doubts()
    return collector.finish(cache=cache, strict=strict)


def _pairs(
    collector: Collector, sources: Sequence[Path], data_root: str | Path, label_folder: Path | None
) -> list[tuple[str, str]]:
    """Return (image, label file) of every image; report what was skipped."""
    pairs = []
    for source in sources:
        images = find_images(source, data_root)
        collector.problems += images.problems
        if source.is_dir() or label_folder is None:
            folder = source if source.is_dir() else None
            pairs += [(path, label_path(path, folder, label_folder)) for path in images.paths]
        else:
            pairs += _pairs_of_list(images, label_folder)
    return pairs


def _pairs_of_list(images: ImageList, label_folder: Path) -> list[tuple[str, str]]:
    """Return (image, label file) of the images of a list with labels in a separate folder."""
    folders = {os.path.dirname(path) for path in images.paths}
    shared = os.path.commonpath(folders) if len({*map(os.path.isabs, folders)}) == 1 else ""
    pairs = []
    for path in images.paths:
        _, separator, inside = path.rpartition(f"{os.sep}images{os.sep}")
        bases = [shared, path.removesuffix(inside)] if separator else [shared]
        places = [label_path(path, Path(base), label_folder) for base in bases]
        places.append(label_path(path, None, label_folder))
        pairs.append((path, next((place for place in places if os.path.isfile(place)), places[0])))
    return pairs


def _with_labels(collector: Collector, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs whose label file exists; report how many images are skipped."""
    kept = [(path, label) for path, label in pairs if os.path.isfile(label)]
    if len(kept) < len(pairs):
        path, label = next((path, label) for path, label in pairs if not os.path.isfile(label))
        message = f"{len(pairs) - len(kept)} image(s) without a label file, such as {label}"
        collector.report("left out", path, message)
    return kept


@dataclass
class _Description:
    """One split of a YAML file.

    Its ``path`` refers to the YAML file's folder or to ``data_root``. If that does not exist, such
    as the ``path`` of another machine or Roboflow's ``../train/images``, the YAML file's folder and
    ``data_root`` themselves are tried, with and without the leading ``../``.

    Args:
        name: name of the data set in messages.
        names: class names.
        sources: folders of images or list files.
        kpt_shape: as in the file.
    """

    name: str
    names: list[str]
    sources: list[Path] = field(default_factory=list)
    kpt_shape: Any = None


def _described(data: str, split: str, data_root: str | Path) -> _Description:
    """Read the description of one split from a YAML file."""
    file = find_path(data, data_root, key="data")
    content: Any = load_yaml(read_text(file, most=4 * MAX_BYTES), str(file), as_text=True)
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DataError(f"{file}: wanted the keys {split} and names, got {kind}")
    if isinstance(content.get("data"), dict) and f"{split}_set" in content["data"]:
        content = content["data"]  # MindYOLO's recipes
    content = {key: value for key, value in content.items() if value not in _NULL}
    key = split if split in content else f"{split}_set"
    if key not in content or "names" not in content:
        near = closest(split, [word for word in content if word != "names"])
        raise DataError(
            f"{file}: wanted the keys {split} and names, got {shown(sorted(map(str, content)))}"
            + (f", did you mean split: {shown(near)}?" if near and key not in content else "")
        )
    folders = _base_folders(file, content.get("path"), data_root)
    names = _names(content["names"], file, folders)
    if "nc" in content and whole(content["nc"]) != len(names):
        raise DataError(
            f"{file}: nc is {shown(content['nc'])}, but names has {len(names)} "
            f"({shown(', '.join(names))}); make them agree"
        )
    sources = content[key] if isinstance(content[key], list) else [content[key]]
    found = [_source(source, folders, f"{file}: {key}") for source in sources]
    return _Description(f"{file} ({split})", names, found, content.get("kpt_shape"))


def _base_folders(file: Path, path: Any, data_root: str | Path) -> list[Path]:
    """Return the folders that the paths of a YAML file may refer to, the most likely first."""
    homes = [file.parent, Path(data_root)]
    if path is None:
        return homes
    if not isinstance(path, str):
        raise DataError(f"{file}: path must be a folder, got {shown(path)}")
    return [Path(os.path.normpath(home / path)) for home in homes] + homes


def _source(text: Any, folders: Sequence[Path], where: str) -> Path:
    """Find the folder or list file of a split."""
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where} must be a folder of images or a list file, got {shown(text)}")
    plain = text.replace("\\", "/")
    inside = plain
    while inside.startswith("../"):
        inside = inside.removeprefix("../")
    texts = list(dict.fromkeys([text, plain, inside]))
    for one in texts:
        try:
            found = find_path(one, *folders)
        except MissingFileError:
            continue
        if one != text:
            logger.info("%s: %s is resolved to %s", where, shown(text), found)
        return found
    tried = ", ".join(str(folder / inside) for folder in dict.fromkeys(folders))
    raise MissingFileError(
        f"{where}: no such file or folder: {shown(text, 300)}; looked for {shown(tried, 600)}. "
        "Set data.root, or correct path in the yaml file"
    )


def _names(names: Any, file: Path, folders: Sequence[Path]) -> list[str]:
    """Read the class names of a YAML file: a list, a mapping from 0, 1, 2 ..., or a file."""
    where = f"{file}: names"
    if isinstance(names, Mapping):
        labels = {whole(key): name for key, name in names.items()}
        if set(labels) != set(range(len(names))):
            raise DataError(f"{where} must be numbered 0, 1, 2 ..., got {shown(list(names))}")
        names = [labels[label] for label in range(len(names))]
    found = read_names(names, *folders, where=where)
    if isinstance(names, str):
        logger.info("%s: the %d lines of %s", where, len(found), shown(names))
    return found


def _key_point_numbers(shape: Any, where: str) -> int:
    """Return how many numbers follow a box in pose labels of ``kpt_shape``; 0 without it."""
    if shape is None or shape == []:
        return 0
    numbers = [whole(value) for value in shape] if isinstance(shape, Sequence) else []
    if len(numbers) == 2 and isinstance(shape, list):
        points, values = numbers
        if points and values in (2, 3) and 0 < points <= _MOST_KEY_POINTS:
            return points * values
    raise DataError(
        f"{where}: kpt_shape must be the number of key points (1..{_MOST_KEY_POINTS}) and of the "
        f"values of each (2 or 3), such as [17, 3], got {shown(shape)}"
    )

"""Data sets and settings in the ``.data`` form of Yolo-FastestV2: ``key=value`` lines and
image lists.
"""

import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.formats.label_files import BOX_TOLERANCE, add_labelled, list_images
from mindyolo_ext.data.text import find_path, ids_from_names, read_lines, read_names
from mindyolo_ext.errors import ConfigError, DataError, did_you_mean
from mindyolo_ext.progress import bar


@dataclass(frozen=True)
class DataFile:
    """The settings of a ``.data`` file; None where the file says nothing.

    Args:
        model_name: prefix of the files that training writes.
        epochs, batch_size, subdivisions, learning_rate: of the training; ``steps`` are the epochs
            of its milestones.
        pre_weights: checkpoint to start from; the text ``None`` means none.
        classes: number of classes.
        width, height: of the network input in pixels.
        anchor_num: anchors per level.
        anchors: width, height pairs in pixels, finest level first.
        train, val, names: list files and class names, as written.
    """

    model_name: str | None = None
    epochs: int | None = None
    steps: tuple[float, ...] | None = None
    batch_size: int | None = None
    subdivisions: int | None = None
    learning_rate: float | None = None
    pre_weights: str | None = None
    classes: int | None = None
    width: int | None = None
    height: int | None = None
    anchor_num: int | None = None
    anchors: tuple[float, ...] | None = None
    train: str | None = None
    val: str | None = None
    names: str | None = None


_LISTS = ("steps", "anchors")
_INTEGERS = ("epochs", "batch_size", "subdivisions", "classes", "width", "height", "anchor_num")
_NUMBERS = ("learning_rate",)


def parse_data_file(path: str | Path) -> DataFile:
    """Parse a ``.data`` file. Lines that start with ``[`` or ``#`` and blank lines are
    skipped.

    Raises: MissingFileError; DataError that names file and line for an unknown or repeated key,
        or a value of the wrong kind.
    Source: Yolo-FastestV2 ``utils/utils.py``. Unlike the original, an unknown key is an error,
        spaces may surround ``=``, a value may contain ``=``, and comments are allowed.
    """
    known = [field.name for field in fields(DataFile)]
    values: dict[str, Any] = {}
    for number, line in read_lines(path):
        if line[0] in "[#":
            continue
        key, equals, text = (part.strip() for part in line.partition("="))
        if not equals:
            raise DataError(f"{path}:{number}: wanted key=value, got {line!r}")
        if key not in known:
            raise DataError(f"{path}:{number}: unknown key {key}{did_you_mean(key, known)}")
        if key in values:
            raise DataError(f"{path}:{number}: duplicate key {key}")
        values[key] = _value(key, text, f"{path}:{number}")
    settings = DataFile(**values)
    if settings.anchors is not None:
        per_level = 2 * (settings.anchor_num or 1)
        if not settings.anchors or len(settings.anchors) % per_level:
            raise DataError(
                f"{path}: anchors must be width, height pairs, {settings.anchor_num or 1} per "
                f"level, got {len(settings.anchors)} numbers"
            )
    return settings


def _value(key: str, text: str, where: str) -> str | int | float | tuple[float, ...] | None:
    """The value of ``key`` in its type."""
    try:
        if key in _LISTS:
            return tuple(float(word) for word in text.split(",") if word.strip())
        if key in _INTEGERS:
            return int(text)
        if key in _NUMBERS:
            return float(text)
    except ValueError:
        kind = (
            "numbers with commas between"
            if key in _LISTS
            else "a whole number"
            if key in _INTEGERS
            else "a number"
        )
        raise DataError(f"{where}: {key} must be {kind}, got {text!r}") from None
    return None if text in ("", "None") else text


def read_darknet(
    *, data: str, split: str, data_root: str | Path = ".", cache: bool = False, strict: bool = True
) -> Dataset:
    """Read the images of one list of a ``.data`` file, with the label file beside each image.

    Args:
        data: the ``.data`` file.
        split: ``train`` or ``val``.
        data_root: folder to which ``data``, the lists and their lines refer; lists and names may
            also lie relative to the ``.data`` file, lines relative to their list.
        cache, strict: see ``Collector.finish``.

    Raises: MissingFileError, also for a missing label file; ConfigError for another split;
        DataError that names file and line.
    Source: Yolo-FastestV2 ``utils/datasets.py``. Unlike the original, the label's name replaces the
        image's last suffix, not everything after the first dot of the path.
    """
    if split not in ("train", "val"):
        raise ConfigError(f"data (format darknet): split must be train or val, got {split!r}")
    file = find_path(data, data_root)
    settings = parse_data_file(file)
    list_name = settings.train if split == "train" else settings.val
    if list_name is None or settings.names is None:
        raise DataError(
            f"{file}: wanted the keys {split} and names, got no "
            f"{split if list_name is None else 'names'}"
        )
    class_names = read_names(settings.names, data_root, file.parent)
    if settings.classes is not None and settings.classes != len(class_names):
        raise DataError(
            f"{file}: classes is {settings.classes}, but {settings.names} has {len(class_names)} "
            "names"
        )
    collector = Collector(f"{file} ({split})", class_names, relative=True, tolerance=BOX_TOLERANCE)
    paths = list_images(find_path(list_name, data_root, file.parent), data_root)
    shown = bar(paths, title="reading labels", show=sys.stderr.isatty())
    for path, image_id in zip(shown, ids_from_names(paths), strict=True):
        add_labelled(collector, path, image_id, os.path.splitext(path)[0] + ".txt")
    return collector.finish(cache=cache, strict=strict)

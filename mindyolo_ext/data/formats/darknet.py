"""Read data sets and settings in Yolo-FastestV2's ``.data`` format: ``key=value`` lines and image
lists.
"""

import logging
import os
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mindyolo_ext.class_names import MAX_CLASSES
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.formats.label_files import (
    BOX_TOLERANCE,
    LabelReader,
    find_images,
    label_path,
)
from mindyolo_ext.data.text import (
    MAX_INTEGER,
    MAX_NAMES_BYTES,
    find_path,
    ids_from_names,
    read_lines,
    read_names,
)
from mindyolo_ext.errors import ConfigError, DataError, MissingFileError, did_you_mean, shown
from mindyolo_ext.progress import bar

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataFile:
    """The settings of a ``.data`` file; None for settings that it does not contain.

    Args:
        model_name: prefix of the files that training writes.
        epochs, batch_size, subdivisions, learning_rate: training settings; ``steps`` are the epochs
            of milestones.
        pre_weights: checkpoint to start from; the text ``None`` means none.
        classes: number of classes.
        width, height: size of the network input in pixels.
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
_KINDS = {
    **dict.fromkeys(_LISTS, "comma-separated numbers"),
    **dict.fromkeys(_INTEGERS, "an integer"),
    **dict.fromkeys(_NUMBERS, "a number"),
}
_MOST = {"classes": MAX_CLASSES}
_OF_DARKNET = {"valid": "val"}
# Keys that darknet and CVAT write for darknet's own programs
_NOT_USED = ("backup", "eval", "labels", "map", "results", "test", "top")


def parse_data_file(path: str | Path) -> DataFile:
    """Parse a ``.data`` file. Lines that start with ``[`` or ``#``, blank lines, and text after ``
    #`` are skipped.

    Raises: MissingFileError; DataError that names file and line for an unknown or repeated key,
        or a value of the wrong type.
    Source: Yolo-FastestV2 ``utils/utils.py``. Unlike the original, an unknown key is an error,
        spaces may surround ``=``, a value may contain ``=``, comments are allowed, and darknet's
        keys too: ``valid`` means ``val``, and keys of its own programs are ignored with a log line.
    """
    if Path(path).suffix.lower() in (".yaml", ".yml"):
        raise DataError(
            f"{path}: wanted a .data file with lines key=value, got a yaml file; describe it in a "
            "recipe: data.train: {format: yolo, data: FILE.yaml, split: train}"
        )
    known = [field.name for field in fields(DataFile)]
    values: dict[str, Any] = {}
    for number, line in read_lines(path, most=MAX_NAMES_BYTES):
        if line[0] in "[#":
            continue
        where = f"{path}:{number}"
        key, equals, text = (part.strip() for part in _without_comment(line).partition("="))
        if not equals:
            raise DataError(f"{where}: wanted key=value, got {shown(repr(line))}")
        key = _OF_DARKNET.get(key, key)
        if key in _NOT_USED:
            logger.info("%s: %s is ignored", where, key)
            continue
        if key not in known:
            raise DataError(f"{where}: unknown key {shown(key)}{did_you_mean(key, known)}")
        if key in values:
            raise DataError(f"{where}: duplicate key {key}")
        values[key] = _value(key, text, where)
    settings = DataFile(**values)
    if settings.anchors is not None:
        per_level = 2 * (settings.anchor_num or 1)
        if not settings.anchors or len(settings.anchors) % per_level:
            raise DataError(
                f"{path}: anchors must be width, height pairs, {settings.anchor_num or 1} per "
                f"level, got {len(settings.anchors)} numbers"
            )
    return settings


def _without_comment(line: str) -> str:
    """Remove a comment, a ``#`` or ``;`` after a space; inside a word it belongs to a path."""
    return re.split(r"\s[#;]", line, maxsplit=1)[0]


def _value(key: str, text: str, where: str) -> str | int | float | tuple[float, ...] | None:
    """Convert the value of ``key`` to its type."""
    if key not in _KINDS:
        return None if text in ("", "None") else text
    words = [word for word in text.split(",") if word.strip()] if key in _LISTS else [text]
    most = _MOST.get(key, MAX_INTEGER)
    try:
        numbers = tuple(float(word) for word in words)
        if key in _INTEGERS and not re.fullmatch("[0-9]+", text):
            raise ValueError
    except ValueError:
        raise DataError(f"{where}: {key} must be {_KINDS[key]}, got {shown(repr(text))}") from None
    if not all(0 < number <= most for number in numbers):
        raise DataError(
            f"{where}: {key} must be {_KINDS[key]} above 0 and up to {most}, got "
            f"{shown(repr(text))}"
        )
    if key in _LISTS:
        return numbers
    return int(text) if key in _INTEGERS else numbers[0]


def read_darknet(
    *,
    data: str,
    split: str,
    data_root: str | Path = ".",
    cache: bool | str = False,
    strict: bool = True,
) -> Dataset:
    """Read the images of one list of a ``.data`` file. The label file is next to the image, or else
    in the folder ``labels`` instead of ``images``.

    Args:
        data: the ``.data`` file.
        split: ``train`` or ``val``.
        data_root: folder to which ``data``, the lists and their lines refer; lists and names may
            also be relative to the ``.data`` file, lines relative to their list, each with or
            without its first folder, as CVAT packs them.
        cache, strict: see ``Collector.finish``.

    Raises: MissingFileError, also for a missing label file; ConfigError for another split;
        DataError that names file and line.
    Source: Yolo-FastestV2 ``utils/datasets.py``. Unlike the original, the label's name replaces the
        image's last suffix, not everything after the first dot of the path.
    """
    if split not in ("train", "val"):
        raise ConfigError(f"data (format darknet): split must be train or val, got {split!r}")
    file = find_path(data, data_root, key="data")
    settings = parse_data_file(file)
    list_name = settings.train if split == "train" else settings.val
    if list_name is None or settings.names is None:
        raise DataError(
            f"{file}: wanted the keys {split} and names, got no "
            f"{split if list_name is None else 'names'}"
        )
    names_file = _find(settings.names, file, "names", data_root)
    if not names_file.is_file():
        raise DataError(f"{file}: names: {names_file}: wanted a file with a name per line")
    class_names = read_names(names_file)
    if settings.classes is not None and settings.classes != len(class_names):
        raise DataError(
            f"{file}: classes is {settings.classes}, but {settings.names} has {len(class_names)} "
            "names"
        )
    collector = Collector(f"{file} ({split})", class_names, relative=True, tolerance=BOX_TOLERANCE)
    images = find_images(_find(list_name, file, split, data_root), data_root)
    collector.problems += images.problems
    reader = LabelReader(collector)
    progress = bar(images.paths, title="reading labels", show=sys.stderr.isatty())
    for path, image_id in zip(progress, ids_from_names(images.paths), strict=True):
        beside, apart = os.path.splitext(path)[0] + ".txt", label_path(path, None, None)
        found = apart if os.path.isfile(apart) and not os.path.isfile(beside) else beside
        reader.add(path, image_id, found)
    reader.report_doubts()
    return collector.finish(cache=cache, strict=strict)


def _find(text: str, file: Path, key: str, data_root: str | Path) -> Path:
    """Find a file that a ``.data`` file names: as written, or without its first folder beside the
    ``.data`` file, as CVAT packs it.

    Raises: MissingFileError that names the ``.data`` file and the key.
    """
    inside = os.path.join(*Path(text).parts[1:]) if len(Path(text).parts) > 1 else text
    texts = list(dict.fromkeys([text, text.replace("\\", "/"), inside]))
    try:
        return find_path(texts, data_root, file.parent)
    except MissingFileError as error:
        raise MissingFileError(f"{file}: {key}: {error}") from None

"""``--data``: replace the recipe's data set by one described for another program."""

import json
from collections.abc import Iterable
from pathlib import Path

from mindyolo_ext.data.text import read_text
from mindyolo_ext.engine.darknet import recipe_overrides
from mindyolo_ext.errors import DataError, MissingFileError, UsageError, shown
from mindyolo_ext.yaml_file import MAX_BYTES, load_yaml

_YAML = (".yaml", ".yml")
_IN_FOLDER = ("data.yaml", "data.yml", "dataset.yaml")
# Names of the two splits in ultralytics and Roboflow, in MindYOLO, and in some exports
_TRAIN = ("train", "train_set")
_VAL = ("val", "val_set", "valid", "validation")


def data_overrides(text: str, *, polygons: bool = False) -> list[str]:
    """Translate ``--data`` into ``section.key=value`` strings.

    Args:
        text: a ``data.yaml``, the folder that holds it, or a ``.data`` file of darknet.
        polygons: keep outlines, unless the format is darknet's.

    Raises: MissingFileError; DataError for a file of another kind.
    """
    file = _file(Path(text))
    if file.suffix.lower() in _YAML:
        return _of_yaml(file, polygons)
    return recipe_overrides(file)


def check_validation(text: str) -> None:
    """Raises: UsageError if ``--data`` names no images to evaluate on."""
    file = _file(Path(text))
    if file.suffix.lower() in _YAML and not _first(_content(file), _VAL):
        raise UsageError(
            f"--data {file}: names no images to evaluate on; add val: FOLDER to it, or train "
            "with --run_eval False"
        )


def class_names(text: str) -> list[str]:
    """Return the class names that ``--data`` lists; empty if only its labels name them."""
    file = _file(Path(text))
    names = _content(file).get("names") if file.suffix.lower() in _YAML else None
    if isinstance(names, dict):
        return [str(name) for name in names.values()]
    return [str(name) for name in names] if isinstance(names, list) else []


def _file(path: Path) -> Path:
    """Return ``path``, or the description file inside a folder."""
    if not path.is_dir():
        if not path.is_file():
            raise MissingFileError(f"--data {shown(str(path), 300)}: no such file")
        return path
    inside = [path / name for name in _IN_FOLDER if (path / name).is_file()]
    if not inside:
        raise MissingFileError(
            f"--data {shown(str(path), 300)}: wanted a data.yaml in this folder; pass the file "
            "itself if it has another name"
        )
    return inside[0]


def _content(file: Path) -> dict:
    """Read the mapping of a ``data.yaml``, or the ``data`` section of a MindYOLO recipe."""
    content = load_yaml(read_text(file, most=4 * MAX_BYTES), str(file), as_text=True)
    inner = content.get("data") if isinstance(content, dict) else None
    if isinstance(inner, dict) and any(key in inner for key in (*_TRAIN[1:], *_VAL[1:])):
        content = inner
    if not isinstance(content, dict) or not _first(content, (*_TRAIN, *_VAL)):
        kind = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(
            f"--data {file}: wanted the keys train, val and names, got {shown(kind)}; pass a "
            "recipe with --config"
        )
    return content


def _of_yaml(file: Path, polygons: bool) -> list[str]:
    """Return the data section of a recipe that reads this file."""
    content = _content(file)
    values: dict[str, object] = {"data.root": ".", "data.class_names": [], "data.num_classes": 0}
    for key, names in (("data.train", _TRAIN), ("data.val", _VAL)):
        split = (_first(content, names) or names[0]).removesuffix("_set")
        description = {"format": "yolo", "data": str(file.resolve()), "split": split}
        values[key] = {**description, "polygons": True} if polygons else description
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _first(content: dict, keys: Iterable[str]) -> str:
    """Return the first key with a value, empty if there is none."""
    empty = ("", "~", "null")
    given = (key for key in keys if isinstance(content.get(key), (str, list)))
    return next((key for key in given if content[key] not in empty), "")

"""Build a data set from its description in a recipe."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.formats.coco import read_coco
from mindyolo_ext.data.formats.darknet import read_darknet
from mindyolo_ext.data.formats.voc import read_voc
from mindyolo_ext.data.formats.yolo import read_yolo
from mindyolo_ext.errors import ConfigError, did_you_mean, shown

READERS: dict[str, Callable[..., Dataset]] = {
    "coco": read_coco,
    "yolo": read_yolo,
    "darknet": read_darknet,
    "voc": read_voc,
}
_NOT_IN_RECIPES = ("data_root", "strict")


def build_dataset(
    config: Mapping[str, Any], data_root: str | Path = ".", *, strict: bool = True
) -> Dataset:
    """Build the data set that a recipe describes: read and check every label.

    Args:
        config: ``format``, a key of ``READERS``, and the keywords of that reader.
        data_root: folder that relative paths refer to.
        strict: see ``Collector.finish``.

    Raises: ConfigError for an unknown format or key, DataError for faulty labels, MissingFileError
        for missing files.
    """
    settings = dict(config)
    name = settings.pop("format", None)
    if name not in READERS:
        raise ConfigError(f"data: format must be one of {', '.join(READERS)}, got {name!r}")
    reader, where = READERS[name], f"data (format {name})"
    keys = {
        key: parameter
        for key, parameter in inspect.signature(reader).parameters.items()
        if key not in _NOT_IN_RECIPES
    }
    for key in settings:
        if key not in keys:
            raise ConfigError(f"{where}: unknown key {key}{did_you_mean(key, keys)}")
    required = [key for key, parameter in keys.items() if parameter.default is parameter.empty]
    missing = [key for key in required if settings.get(key) is None]
    if missing:
        raise ConfigError(
            f"{where}: wanted the keys {', '.join(required)}, got no {', '.join(missing)}"
        )
    hints = typing.get_type_hints(reader)
    for key, value in settings.items():
        if not _fits(value, hints[key]) and not (value is None and key not in required):
            raise ConfigError(
                f"{where}: {key} must be {_wanted(hints[key])}, got {shown(repr(value))}"
            )
    given = {key: value for key, value in settings.items() if value is not None}
    return reader(data_root=data_root, strict=strict, **given)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of a recipe has the type of a reader's keyword."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Sequence:
        return isinstance(value, list) and (
            inner[0] is str or all(_fits(v, inner[0]) for v in value)
        )
    if origin is Mapping:
        return isinstance(value, dict)
    if hint is float:
        hint = (int, float)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _wanted(hint: Any) -> str:
    """Describe a type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_wanted(one) for one in inner if one is not type(None))
    if origin is Sequence:
        return "a list"
    words = {str: "a string", bool: "true or false", int: "an integer", float: "a number"}
    return words.get(hint, "a mapping")

"""From the description of a data set in a recipe to the data set."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.formats.coco import read_coco
from mindyolo_ext.data.formats.darknet import read_darknet
from mindyolo_ext.data.formats.voc import read_voc
from mindyolo_ext.data.formats.yolo import read_yolo
from mindyolo_ext.errors import ConfigError, did_you_mean

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
        data_root: folder to which relative paths refer.
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
    for key, parameter in keys.items():
        value = settings.get(key, parameter.default)
        if isinstance(parameter.default, bool) and not isinstance(value, bool):
            raise ConfigError(f"data: {key} must be true or false, got {value!r}")
    return reader(data_root=data_root, strict=strict, **settings)

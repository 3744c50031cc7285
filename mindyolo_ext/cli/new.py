"""``mindyolo-ext new``: a short recipe for the user's own data set."""

import argparse
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.errors import ExistingFileError, UsageError, shown

if TYPE_CHECKING:
    from mindyolo_ext.config import Config

logger = logging.getLogger("mindyolo_ext")
_TEMPLATE = """\
# {title}{data_title}
#
# Look at the data:  mindyolo-ext check-data --config {file}
# Train:             mindyolo-ext train --config {file}
# Evaluate:          mindyolo-ext test --config {file} --weight runs/{stem}/weights/best.ckpt
# Every setting:     mindyolo-ext recipe; all of this recipe: mindyolo-ext recipe --config {file}
__BASE__: {base}.yaml  # shipped with mindyolo_ext; settings not listed here keep its values

{data}
input:
  size: {size}  # height and width of the network's input, multiples of 32

train:
  epochs: {epochs}
  per_batch_size: {batch}  # images per step and rank; lower it if memory runs out
  # A checkpoint to start from, so that fewer epochs and images are enough:
  # {weights}
  weight: ""
"""
_DATA = """\
data:
  root: {root}
  train: {train}
  val: {val}
"""
_NO_DATA = """\
data:
  root: .  # folder of the data set that the base describes; or describe your own:
  # train: {format: yolo, data: data.yaml, split: train}  # or coco, voc, darknet: docs/data.md
  # val: {format: yolo, data: data.yaml, split: val}
"""


def add_new(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``new``."""
    parser.add_argument("file", type=Path, help="recipe to write, mine.yaml; must not exist")
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="one of `mindyolo-ext models`: yolox-nano"
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="data set: a data.yaml of ultralytics or Roboflow, the folder that holds it, or a "
        "darknet-style .data file (default: add it to the recipe later)",
    )


def new(options: argparse.Namespace) -> None:
    """Write the recipe. Raises: ExistingFileError; UsageError for another suffix."""
    from mindyolo_ext.atomic import write_text

    if options.file.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"new {options.file}: wanted a name that ends in .yaml")
    if options.file.exists():
        raise ExistingFileError(
            f"new {options.file}: already exists and is never overwritten; choose another name"
        )
    text = recipe_for(options.file, options.model, options.data)
    write_text(options.file, text)
    logger.info(
        "%s\nwritten: %s. Next: mindyolo-ext check-data --config %s",
        text.rstrip("\n"),
        options.file,
        options.file,
    )


def recipe_for(file: Path, model: str, data: str | None) -> str:
    """Return the text of a recipe.
    Args:
        file: path of the recipe.
        model: value of ``--model``.
        data: value of ``--data``.
    """
    from mindyolo_ext.config import load_config
    from mindyolo_ext.config.shipped import recipe_of_model
    from mindyolo_ext.models.registry import list_models, variant

    base = recipe_of_model(model, list_models())
    config = load_config(base)
    facts = variant(config.model.name)
    data_title = "" if data is None else f" on {shown(data)}{_classes(data)}"
    return _TEMPLATE.format(
        title=facts.title,
        data_title=data_title,
        file=shlex.quote(shown(str(file), 300)),
        stem=file.stem,
        base=base,
        data=_NO_DATA if data is None else _data_section(data, config),
        size=config.input.size or list(facts.input_size),
        epochs=config.train.epochs,
        batch=config.train.per_batch_size,
        weights=_start(facts.weights),
    )


def _start(address: str) -> str:
    """Return a hint on where to get weights to start from."""
    return f"`mindyolo-ext convert` one of {address}" if address else "one of an earlier run"


def _classes(data: str) -> str:
    """Format ``, 3 classes: RBC, WBC, Platelets``, truncated if long."""
    from mindyolo_ext.engine.data_file import class_names

    names = class_names(data)
    return f", {len(names)} classes: {shown(', '.join(names), 60)}" if names else ""


def _data_section(data: str, config: "Config") -> str:
    """Return the data section of a recipe in any folder."""
    from mindyolo_ext.config.describe import flow
    from mindyolo_ext.config.read import parse_override
    from mindyolo_ext.engine.data_file import data_overrides

    polygons = bool(config.data.train.get("polygons"))
    values: dict = {}
    for text in data_overrides(data, polygons=polygons):
        values |= parse_override(text).get("data", {})
    splits = {}
    for split in ("train", "val"):
        description = dict(values[split])
        root = Path(description["data"]).parent
        description["data"] = Path(description["data"]).name
        splits[split] = flow(description)
    return _DATA.format(root=flow(str(root)), **splits)

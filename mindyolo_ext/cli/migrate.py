"""``mindyolo-ext migrate``: translate a YOLOX recipe of MindYOLO."""

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindyolo_ext.errors import ConfigError, ExistingFileError, MissingFileError, shown

if TYPE_CHECKING:
    from mindyolo_ext.cli.mindyolo_recipe import Translation

logger = logging.getLogger("mindyolo_ext")
MAX_FILES = 20  # of a recipe and its parents


def add_migrate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``migrate``."""
    parser.add_argument("recipe", type=Path, help="MindYOLO's YAML file, configs/yolox/*.yaml")
    parser.add_argument(
        "target",
        type=Path,
        nargs="?",
        help="recipe to write; must not exist (default: NAME-migrated.yaml in this folder)",
    )


def migrate(options: argparse.Namespace) -> None:
    """Translate ``recipe``, write the result, and print the translation of every key."""
    from mindyolo_ext.atomic import write_text
    from mindyolo_ext.cli.mindyolo_recipe import translate
    from mindyolo_ext.config import config_from_mapping
    from mindyolo_ext.yaml_file import load_yaml

    target = options.target or Path(f"{options.recipe.stem}-migrated.yaml")
    if target.exists():
        raise ExistingFileError(
            f"migrate {target}: already exists and is never overwritten; choose another name"
        )
    made = translate(read_chain(options.recipe), str(options.recipe))
    text = recipe_text(made, options.recipe, target)
    content = load_yaml(text, str(target))
    del content["__BASE__"]
    config_from_mapping(content, str(target))  # rejects wrong values before anything is written
    write_text(target, text)
    logger.info("\n%s\n", _table(made))
    if made.left_out:
        logger.info("not translated: %s", ", ".join(made.left_out))
    logger.info("written: %s. Next: mindyolo-ext check-data --config %s", target, target)


def read_chain(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a MindYOLO YAML file and merge it over its ``__BASE__`` files; the last of them wins.

    Raises: MissingFileError; ConfigError for a file that is not a mapping or includes itself.
    """
    from mindyolo_ext.data.text import read_text
    from mindyolo_ext.yaml_file import MAX_BYTES, load_yaml

    if not path.is_file():
        named = f" (named by {seen[-1]})" if seen else ""
        raise MissingFileError(f"migrate {shown(str(path), 300)}: no such file{named}")
    if path.resolve() in seen or len(seen) >= MAX_FILES:
        raise ConfigError(f"migrate {path}: __BASE__ includes itself through {seen[-1]}")
    text = read_text(path, most=4 * MAX_BYTES)
    content = load_yaml(text, str(path), error=ConfigError)
    if not isinstance(content, dict):
        raise ConfigError(f"migrate {path}: wanted a MindYOLO recipe, got {type(content).__name__}")
    bases = content.pop("__BASE__", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        parent = path.parent / os.path.expanduser(str(base))
        merged = _merged(merged, read_chain(parent, (*seen, path.resolve())))
    return _merged(merged, content)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge ``above`` over ``below`` as MindYOLO does: merge mappings, replace anything else."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def recipe_text(made: "Translation", source: Path, target: Path) -> str:
    """Format the translated recipe, which overrides the shipped recipe of its model."""
    import yaml

    from mindyolo_ext.config.shipped import recipe_of_model
    from mindyolo_ext.models.registry import list_models

    tree: dict[str, Any] = {}
    for key, value in made.settings.items():
        *sections, last = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    order = ("model", "input", "data", "train", "eval")
    body = yaml.safe_dump(
        {name: tree[name] for name in order if name in tree},
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=110,
    )
    left_out = ", ".join(made.left_out) or "nothing"
    base = recipe_of_model(made.model, list_models())
    return (
        f"# Translated from MindYOLO's {shown(str(source), 300)} by `mindyolo-ext migrate`.\n"
        f"# Not translated: {shown(left_out, 2000)}\n"
        "#\n"
        f"# Train:     mindyolo-ext train --config {shown(str(target), 300)}\n"
        f"__BASE__: {base}.yaml\n\n{body}"
    )


def _table(made: "Translation") -> str:
    """Format one row per MindYOLO key."""
    from tabulate import tabulate

    columns = ("MindYOLO", "here", "remark")
    return tabulate(made.rows, columns, tablefmt="simple", maxcolwidths=[50, 60, 50])

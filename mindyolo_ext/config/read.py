"""Read YAML files into a checked recipe.

``__BASE__`` names parent files, relative to the file that names them, or shipped recipes. Later
files win, mappings merge, lists replace. Every error names the file and line of the value, its key,
and what was wanted.
"""

import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from mindyolo_ext.config.option import Section, SettingError, hints_of
from mindyolo_ext.config.schema import RETIRED, Config
from mindyolo_ext.config.shipped import find_beside, find_parent, find_recipe
from mindyolo_ext.errors import ConfigError, closest, shown
from mindyolo_ext.yaml_file import MAX_BYTES, load_yaml, parse_yaml

LAST_PART = re.compile(r"(\.[^.\[\]]+|\[\d+\])$")
MAX_FILES = 20  # limit for a recipe and its parents; shipped recipes have up to four
# Words that YAML 1.2 reads as text; settings that are booleans accept them as true and false
SWITCHES = {"yes": True, "on": True, "no": False, "off": False}
# Names of types in messages
WORDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}


@dataclass
class _Values:
    """Nested mappings as read from YAML, and the place (file:line) of each ``section.key``."""

    tree: dict[str, Any]
    places: dict[str, str] = field(default_factory=dict)

    def under(self, above: "_Values") -> "_Values":
        """Override these values by ``above``: mappings merge, anything else is replaced."""
        return _Values(_merge(self.tree, above.tree), {**self.places, **above.places})


def load_config(
    path: str | Path, overrides: Sequence[str] = (), *, overlays: Sequence[str | Path] = ()
) -> Config:
    """Read a recipe with its parents.

    Args:
        path: YAML file, or the name of a shipped recipe.
        overlays: further files that override the recipe, in this order.
        overrides: ``section.key=value`` strings, the value in YAML.

    Raises: MissingFileError; ConfigError that names file, key and what was wanted.
    """
    file = _read_merged(find_recipe(path), (), [])
    changes = _Values({})
    for overlay in overlays:
        changes = changes.under(_read_merged(find_recipe(overlay), (), []))
    changes = changes.under(_read_overrides(overrides))
    config = _checked(file.under(changes), str(path))
    second = config.train.distill.recipe
    if not (config.train.distill.teacher and second):
        return config
    step = _read_own(find_recipe(second))
    step.tree.pop("__BASE__", None)
    once = _Values({"train": {"distill": {"recipe": ""}}})
    return _checked(file.under(step).under(changes).under(once), str(path))


def config_from_mapping(values: Mapping[str, Any], where: str = "config") -> Config:
    """Build checked dataclasses from nested mappings; ``where`` names the source in errors."""
    return _Reader({}, where).section(Config, values, "")


def override(config: Config, texts: Sequence[str]) -> Config:
    """Return ``config`` with ``section.key=value`` strings applied."""
    return _checked(_Values(asdict(config)).under(_read_overrides(texts)), "--set")


def parse_override(text: str) -> dict[str, Any]:
    """Parse ``a.b=1`` into ``{"a": {"b": 1}}``. Raises: ConfigError for another form."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {text}: wanted section.key=value")
    result: Any = load_yaml(value, f"--set {shown(text)}", error=ConfigError)
    for part in reversed(key.strip().split(".")):
        result = {part: result}
    return result


# ---- files -----------------------------------------------------------------------------------


def _read_overrides(texts: Sequence[str]) -> _Values:
    """Parse ``section.key=value`` strings into one set of values; the last one wins."""
    found = _Values({})
    for text in texts:
        key = text.partition("=")[0].strip()
        found = found.under(_Values(parse_override(text), {key: "--set"}))
    return found


def _read_merged(path: Path, seen: tuple[Path, ...], read: list[Path]) -> _Values:
    """Read a file and merge it over its ``__BASE__`` parents.

    Args:
        seen: chain of files that led here, the recipe first.
        read: all files read so far; extended in place.
    """
    read.append(path)
    if len(read) > MAX_FILES:
        raise ConfigError(f"config {read[0]}: __BASE__ leads to more than {MAX_FILES} files")
    own = _read_own(path)
    if path.resolve() in seen:
        raise ConfigError(f"config {path}: __BASE__ includes itself through {seen[-1]}")
    bases = own.tree.pop("__BASE__", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        place = own.places.get("__BASE__", str(path))
        raise ConfigError(
            f"{place}: __BASE__ wanted a file or a list of files, got {shown(repr(bases))}"
        )
    merged = _Values({})
    for base in bases:
        parent = find_parent(base, path)
        merged = merged.under(_read_merged(parent, (*seen, path.resolve()), read))
    return merged.under(own)


def _read_own(path: Path) -> _Values:
    """Read the values of the file itself, without its parents."""
    tree, node = parse_yaml(_text(path), f"config {path}", error=ConfigError)
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ConfigError(
            f"config {path}: wanted sections at the top level, got {type(tree).__name__}"
        )
    train = tree.get("train")
    distill = train.get("distill") if isinstance(train, dict) else None
    if isinstance(distill, dict) and isinstance(distill.get("recipe"), str) and distill["recipe"]:
        # absolute, because a run saves its recipe in another folder
        distill["recipe"] = os.path.abspath(
            find_beside(distill["recipe"], path) or path.parent / distill["recipe"]
        )
    return _Values(tree, {} if node is None else _places(node, str(path), ""))


def _text(path: Path) -> str:
    """Read the text of a recipe. Raises: ConfigError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4 * MAX_BYTES + 1).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"config {path}: wanted UTF-8 text, got byte {error.object[error.start]:#04x} at "
            f"{error.start}"
        ) from error
    except OSError as error:
        raise ConfigError(f"config {path}: cannot be read ({error.strerror})") from error


def _places(node: yaml.Node, path: str, name: str) -> dict[str, str]:
    """Find ``file:line`` of every key and list item below ``node``."""
    found = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{name}.{key.value}" if name else str(key.value)
            found[below] = f"{path}:{key.start_mark.line + 1}"
            found |= _places(value, path, below)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            found[f"{name}[{number}]"] = f"{path}:{item.start_mark.line + 1}"
            found |= _places(item, path, f"{name}[{number}]")
    return found


def _merge(below: Any, above: Any) -> Any:
    """Merge ``above`` over ``below``: mappings merge, anything else is replaced.

    A data set with another ``format`` is replaced as a whole, because keys belong to a format.
    """
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    if "format" in above and above["format"] != below.get("format"):
        return above
    return {**below, **{key: _merge(below.get(key), value) for key, value in above.items()}}


# ---- checks ----------------------------------------------------------------------------------


def _checked(values: _Values, where: str) -> Config:
    """Build the recipe; errors name ``where`` if the place of a key is unknown."""
    return _Reader(values.places, where).section(Config, values.tree, "")


class _Reader:
    """Build sections from mappings and check every key and type."""

    def __init__(self, places: Mapping[str, str], where: str):
        self.places, self.where = places, where

    def section(self, kind: type[Section], values: Any, prefix: str) -> Any:
        """Build a ``kind``; ``prefix`` is its name with a dot, empty for the recipe."""
        if not isinstance(values, Mapping):
            raise self.wrong(
                prefix[:-1] or "top level", f"wanted a section, got {shown(repr(values))}"
            )
        known, hints = [f.name for f in fields(kind)], hints_of(kind)  # type: ignore[arg-type]
        gone = [k for k, v in values.items() if (f"{prefix}{k}", v) in RETIRED.items()]
        values = {key: value for key, value in values.items() if key not in gone}
        for key in values:
            if key not in known:
                near = closest(key, known)
                hint = f", did you mean {prefix}{near}?" if near else f"; known: {', '.join(known)}"
                name = f"{prefix}{key}"
                raise ConfigError(f"{self.place(name)}: unknown key {shown(name)}{hint}")
        converted = {
            key: self.value(hints[key], value, f"{prefix}{key}") for key, value in values.items()
        }
        try:
            return kind(**converted)
        except SettingError as error:
            raise self.wrong(prefix + error.key, error.problem) from error

    def value(self, kind: Any, value: Any, name: str) -> Any:
        """Convert ``value`` to the type hint ``kind``. Integers count as numbers, and so does
        ``1e-3``, which YAML reads as text.
        """
        if is_dataclass(kind):
            return self.section(kind, value, name + ".")  # type: ignore[arg-type]
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Union, types.UnionType):
            return self.any_of(inner, value, name)
        if origin is typing.Literal or kind is typing.Any:
            return value  # choices are checked by the section
        if origin is list:
            if not isinstance(value, (list, tuple)):
                raise self.wrong(name, f"wanted a list, got {shown(repr(value))}")
            return [self.value(inner[0], item, f"{name}[{i}]") for i, item in enumerate(value)]
        if origin is dict:
            if not isinstance(value, dict):
                raise self.wrong(name, f"wanted a mapping, got {shown(repr(value))}")
            return value
        if kind is bool and isinstance(value, str):
            value = SWITCHES.get(value.lower(), value)
        if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
            try:
                return float(value)
            except ValueError:
                pass
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.wrong(name, f"wanted {WORDS[kind]}, got {shown(repr(value))}")
        return value

    def any_of(self, kinds: Sequence[Any], value: Any, name: str) -> Any:
        """Convert ``value`` to the first of ``kinds`` that fits."""
        if value is None and type(None) in kinds:
            return None
        kinds = sorted(  # a string accepts anything; the section checks it
            (kind for kind in kinds if kind is not type(None)),
            key=lambda kind: typing.get_origin(kind) is typing.Literal,
        )
        for kind in kinds[:-1]:
            if isinstance(value, typing.get_origin(kind) or kind):
                return self.value(kind, value, name)
        return self.value(kinds[-1], value, name)

    def wrong(self, name: str, problem: str) -> ConfigError:
        """Create the error of a setting, with file and line."""
        return ConfigError(f"{self.place(name)}: {name} {problem}")

    def place(self, name: str) -> str:
        """Return the place of a key or, if it is missing, of the section that should have it."""
        while name:
            if name in self.places:
                return self.places[name]
            shorter = LAST_PART.sub("", name)
            name = shorter if shorter != name else ""
        return self.where

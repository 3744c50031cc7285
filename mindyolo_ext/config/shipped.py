"""Find the recipes that come with the package, by name.

A wheel holds them in ``mindyolo_ext/configs``; in a clone they are next to the package.
"""

import functools
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

from mindyolo_ext.errors import MissingFileError, UsageError, closest, shown

SUFFIXES = (".yaml", ".yml")
_PACKAGE = Path(__file__).resolve().parents[1]


@functools.cache
def recipe_folder() -> Path:
    """Return the folder of the shipped recipes."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


@functools.cache
def shipped_recipes() -> dict[str, Path]:
    """Return every shipped file by its name, such as ``yolox/yolox-s``, sorted."""
    folder = recipe_folder()
    files = sorted(folder.glob("**/*.yaml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def headline(name: str) -> str:
    """Return the first sentence of a shipped recipe's leading comment."""
    lines = shipped_recipes()[name].read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: re.match(r"# *\S", line), lines)
    text = " ".join(line.removeprefix("#").strip() for line in comment)
    return re.split(r"[.:;](?:\s|$)", text, maxsplit=1)[0]


def find_recipe(text: str | Path) -> Path:
    """Find the file that ``text`` names: a path with or without its suffix, or else a shipped
    recipe by name, with or without folder, suffix and a leading ``configs/``.

    Raises: MissingFileError with the closest name; UsageError for a name of several recipes.
    """
    found = _on_disk(Path(text)) or _by_name(str(text), f"config {shown(str(text), 300)}")
    if found is None:
        raise MissingFileError(f"config {shown(str(text), 300)}: no such file{_hint(str(text))}")
    return found


def find_beside(text: str, namer: Path) -> Path | None:
    """Find the file that a recipe names, next to the recipe or else among the shipped ones. Return
    None if there is neither.

    Args:
        text: the name as written in the recipe.
        namer: the recipe that names it.

    Raises: UsageError for a name of several shipped recipes.
    """
    return _on_disk(namer.parent / text) or _by_name(text, f"config {namer}: {shown(text)}")


def find_parent(text: str, namer: Path) -> Path:
    """Call ``find_beside``. Raises: MissingFileError with the closest name."""
    found = find_beside(text, namer)
    if found is None:
        place = shown(str(namer.parent / text), 300)
        raise MissingFileError(f"config {place}: no such file (named by {namer}){_hint(text)}")
    return found


def recipe_of_model(model: str, models: Iterable[str]) -> str:
    """Return the name of the shipped recipe that trains a model: the one with the model's name, or
    else the shortest name that starts with it.

    Args:
        model: ``yolox_nano`` or ``yolox-nano``.
        models: names of all models.

    Raises: UsageError with the closest name for an unknown model, or one without a recipe.
    """
    known = {_plain(name): name for name in models}
    if _plain(model) not in known:
        near = closest(_plain(model), known)
        hint = f", did you mean {known[near]}?" if near else "; `mindyolo-ext models` lists all"
        raise UsageError(f"--model {shown(model)}: no such model{hint}")
    begin = _plain(model)
    longer = [other for other in known if other.startswith(begin) and other != begin]
    fitting = [
        name
        for name in shipped_recipes()
        if _last(name).startswith(begin) and not _last(name).startswith(tuple(longer))
    ]
    if not fitting:
        raise UsageError(
            f"--model {shown(model)}: has no shipped recipe; use --config with one of the same "
            f"family and --set model.name={known[begin]}"
        )
    return min(fitting, key=lambda name: (len(name), name))


def _on_disk(path: Path) -> Path | None:
    """Return ``path``, with a suffix if it needs one, if it is a file."""
    places = [path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES if path.name)]
    return next((place for place in places if os.path.isfile(place)), None)


def _by_name(text: str, where: str) -> Path | None:
    """Return the shipped recipe of a name. Raises: UsageError for a name of several."""
    wanted = _plain(text)
    fitting = [name for name in shipped_recipes() if wanted in (_plain(name), _last(name))]
    if len(fitting) > 1:
        raise UsageError(f"{where}: matches {' and '.join(fitting)}; use one of these")
    return shipped_recipes()[fitting[0]] if fitting else None


def _plain(text: str) -> str:
    """Normalize a name, so that its spellings compare equal."""
    plain = text.replace("\\", "/").lower().replace("_", "-")
    return re.sub(r"^(\./)?(configs/)?|\.ya?ml$", "", plain)


def _last(name: str) -> str:
    return _plain(name).rpartition("/")[2]


def _hint(text: str) -> str:
    """Suggest what may have been meant, for a message."""
    names = list(shipped_recipes())
    near = closest(_plain(text).rpartition("/")[2], map(_last, names))
    if near is None:
        return "; `mindyolo-ext recipes` lists the shipped ones"
    meant = next(name for name in names if _last(name) == near)
    return f", did you mean {meant}? (`mindyolo-ext recipes` lists the shipped ones)"

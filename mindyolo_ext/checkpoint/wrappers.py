"""Remove the prefixes that wrappers add to names: training programs, averages, parallel training.

If no family's table knows the names, they are tried again without a prefix: ``model.`` of
Lightning, ``module.`` of an ``AveragedModel``, both, or the common prefix of all names.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mindyolo_ext.errors import CheckpointError, shown

WRAPPERS = (
    "model",
    "module",
    "net",
    "network",
    "detector",
    "model_without_ddp",
    "online_model",
    "base_model",
    "student",
    "teacher",
    "_forward_module",
    "_orig_mod",
)
AVERAGES = ("ema", "ema_model", "model_ema", "ema_net", "averaged_model")
AVERAGE_MARK = "n_averaged"  # tensor beside the weights of PyTorch's AveragedModel
MAX_NESTING = 5  # maximum number of nested wrappers
MAX_TRIED = 64  # maximum number of prefixes to try for a message
Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Unwrapped:
    """Tensors without the prefix of their names.

    Args:
        tensors: name -> array.
        prefix: the prefix that was removed, with its dot; empty if there was none.
        left_out: names of tensors outside of the prefix.
        is_average: whether the weights are averaged.
    """

    tensors: Tensors
    prefix: str = ""
    left_out: list[str] = field(default_factory=list)
    is_average: bool = False


def unwrapped(
    tensors: Tensors, is_known: Callable[[Tensors], bool], *, where: str, prefer_ema: bool = True
) -> Unwrapped:
    """Remove prefixes from ``tensors`` until ``is_known`` accepts their names; return them
    unchanged if it never does.

    Args:
        where: file, for messages.
        prefer_ema: take averaged weights if the file has both.

    Raises: CheckpointError if the file contains several networks.
    """
    if is_known(tensors):
        return Unwrapped(tensors)
    level: list[tuple[str, Tensors]] = [("", tensors)]
    for _ in range(MAX_NESTING):
        level = [pair for prefix, group in level for pair in _inside(prefix, group)]
        known = [(prefix, group) for prefix, group in level if is_known(group)]
        if known:
            prefix, group = _picked(known, where=where, prefer_ema=prefer_ema)
            left_out = [name for name in tensors if not name.startswith(prefix)]
            average = _is_average(prefix) or AVERAGE_MARK in left_out
            return Unwrapped(group, prefix, left_out, average)
    return Unwrapped(tensors)


def hidden_weights(tensors: Tensors, is_known: Callable[[Tensors], bool]) -> str:
    """Find a prefix, whatever its name, after which the names are those of a known network; empty
    if there is none.
    """
    level: list[tuple[str, Tensors]] = [("", tensors)]
    tried = 0
    while level and tried < MAX_TRIED:
        below: list[tuple[str, Tensors]] = []
        for prefix, group in level:
            for word, _ in _first_words(group).most_common(8):
                tried += 1
                inner = f"{prefix}{word}."
                below.append((inner, _behind(group, f"{word}.")))
                if is_known(below[-1][1]):
                    return inner.removesuffix(".")
        level = below
    return ""


def beginnings(tensors: Tensors) -> str:
    """List the first parts of the names, for messages: ``backbone. (300), head. (20)``."""
    return ", ".join(f"{shown(word)}. ({n})" for word, n in _first_words(tensors).most_common(4))


def _inside(prefix: str, group: Tensors) -> Iterator[tuple[str, Tensors]]:
    """Yield (prefix, tensors) for each wrapper of a group, and for the common prefix of all
    names.
    """
    words = _first_words(group)
    whole = sum(array.size > 1 for array in group.values())
    common = max(words, key=lambda word: words[word], default="")
    for word in words:
        if word == common or word in WRAPPERS + AVERAGES:
            behind = _behind(group, f"{word}.")
            is_wrapper = word in WRAPPERS + AVERAGES
            if is_wrapper or sum(a.size > 1 for a in behind.values()) == whole:
                yield f"{prefix}{word}.", behind


def _picked(
    known: list[tuple[str, Tensors]], *, where: str, prefer_ema: bool
) -> tuple[str, Tensors]:
    """Choose one of several known groups."""
    averages = [pair for pair in known if _is_average(pair[0])]
    others = [pair for pair in known if not _is_average(pair[0])]
    chosen = averages if averages and (prefer_ema or not others) else others
    if len(chosen) > 1:
        names = ", ".join(shown(prefix.removesuffix(".")) for prefix, _ in chosen)
        raise CheckpointError(
            f"{where}: holds several networks, under {names}; select one with --entry"
        )
    return chosen[0]


def _is_average(prefix: str) -> bool:
    """Whether a wrapper keeps averaged weights."""
    return any(word in AVERAGES for word in prefix.split("."))


def _first_words(group: Tensors) -> Counter[str]:
    """Count names by their part before the first dot."""
    return Counter(name.partition(".")[0] for name in group if "." in name)


def _behind(group: Tensors, begin: str) -> Tensors:
    """Return the tensors whose names have this prefix, without it."""
    return {name[len(begin) :]: a for name, a in group.items() if name.startswith(begin)}

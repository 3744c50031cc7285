"""One setting of a recipe (default, sentence, range) and the base class of all sections."""

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin

from mindyolo_ext.errors import ConfigError, closest, shown


@dataclass(frozen=True)
class Facts:
    """Facts about a setting besides its name, type and default.

    Args:
        sentence: what the setting does, with its unit. All help texts and pages use it.
        least, most: range of a number, inclusive.
        empty: the meaning of a default that is a placeholder, such as 0 for "no limit".
    """

    sentence: str
    least: float | None = None
    most: float | None = None
    empty: str = ""


def option(
    default: Any,
    sentence: str,
    *,
    least: float | None = None,
    most: float | None = None,
    empty: str = "",
) -> Any:
    """Declare a field of a section; ``Facts`` describes the arguments."""
    metadata = {"facts": Facts(sentence, least, most, empty)}
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


class SettingError(ConfigError):
    """A value that a setting cannot have.

    Args:
        key: key of the setting within its section.
        problem: ``wanted ..., got ...``.
    """

    def __init__(self, key: str, problem: str):
        super().__init__(f"{key} {problem}")
        self.key, self.problem = key, problem


class Section:
    """Base of the dataclasses that make up a recipe: checks choices, ranges and ``rules``."""

    def __post_init__(self) -> None:
        hints = hints_of(type(self))
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            _check_choice(item.name, hints[item.name], value)
            _check_range(item.name, item.metadata["facts"], value)
        for key, problem in self.rules():
            raise SettingError(key, problem)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield (key, problem) for settings that contradict each other; the first one is raised."""
        yield from ()


def hints_of(kind: type) -> dict[str, Any]:
    """Return the type hints of a section by name of the setting."""
    return typing.get_type_hints(kind)


def choices_of(hint: Any) -> tuple[str, ...]:
    """Return the words that a setting or its elements allow; empty if any word is allowed."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) in (list, types.UnionType, typing.Union):
        return next((found for found in map(choices_of, get_args(hint)) if found), ())
    return ()


def _check_choice(key: str, hint: Any, value: Any) -> None:
    """Raises: SettingError for a word that is not one of the choices."""
    choices = choices_of(hint)
    if not choices or value is None:
        return
    others = tuple(kind for kind in (int, bool) if kind in get_args(hint))  # besides the words
    for word in value if isinstance(value, list) else [value]:
        if word not in choices and not (others and isinstance(word, others)):
            near = closest(word, choices)
            number = "an integer, or " if int in others else ""
            raise SettingError(
                key,
                f"wanted {number}one of {', '.join(filter(None, choices))}, got "
                f"{shown(repr(word))}" + (f", did you mean {near}?" if near else ""),
            )


def _check_range(key: str, facts: Facts, value: Any) -> None:
    """Raises: SettingError for a number, or an element of a list, out of range."""
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        low, high = facts.least, facts.most
        if (low is None or number >= low) and (high is None or number <= high):
            continue
        if low is not None and high is not None:
            wanted = f"a number from {low:g} to {high:g}"
        else:
            wanted = f"at least {low:g}" if high is None else f"at most {high:g}"
        raise SettingError(key, f"wanted {wanted}, got {number}")

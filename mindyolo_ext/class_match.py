"""Compare two lists of class names, regardless of order and spelling.

A checkpoint and a data set agree on a class by its name: label 3 of one may differ from label 3 of
the other. White space, underscores and case are ignored. COCO's names with two spellings
(``motorbike`` and ``motorcycle``) are one class, unless a list contains both.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mindyolo_ext.errors import shown

# The spelling of darknet and Pascal VOC -> that of COCO's own annotation files
_SYNONYMS = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "tvmonitor": "tv",
}
_NUMBERED = re.compile(r"(class)?[ _-]?\d+", re.IGNORECASE)
_LONGEST_NAME, _MOST_NAMES = 40, 8  # in messages


class Relation(Enum):
    """How the names of one list relate to those of another."""

    SAME = "the same"
    RESPELLED = "the same in another spelling"
    REORDERED = "the same in another order"
    DIFFERENT = "different"
    UNKNOWN = "unknown"  # one of the lists has no names, or only numbers


@dataclass(frozen=True)
class ClassMatch:
    """The result of ``match_classes``.

    Args:
        relation: how the two lists relate.
        order: the index in the second list for each class of the first; empty unless all have one.
        missing: names of the first list that the second lacks.
        additional: names of the second list that the first lacks.
    """

    relation: Relation
    order: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    additional: tuple[str, ...] = ()

    @property
    def aligned(self) -> bool:
        """Whether class i of one list is class i of the other."""
        return self.relation in (Relation.SAME, Relation.RESPELLED)

    def difference(self, first: str, second: str) -> str:
        """Return ``only FIRST has cat; only SECOND has dog``; empty if no name is unique to a
        list.
        """
        parts = [
            f"only {whose} has {listed(names)}"
            for whose, names in ((first, self.missing), (second, self.additional))
            if names
        ]
        return "; ".join(parts)


def match_classes(first: Sequence[str], second: Sequence[str]) -> ClassMatch:
    """Compare two lists of class names, each in the order of its labels."""
    plain = tuple(range(len(first)))
    if first and list(first) == list(second):
        return ClassMatch(Relation.SAME, plain)
    if not are_known(first) or not are_known(second):
        return ClassMatch(Relation.UNKNOWN)
    keys, others = _keys(first), _keys(second)
    if len(set(keys)) < len(first) or len(set(others)) < len(second):
        keys, others = list(first), list(second)  # two classes differ only in spelling
    known, place_of = set(keys), {key: index for index, key in enumerate(others)}
    missing = tuple(name for name, key in zip(first, keys) if key not in place_of)
    additional = tuple(name for name, key in zip(second, others) if key not in known)
    if missing or additional or len(keys) != len(others):
        return ClassMatch(Relation.DIFFERENT, (), missing, additional)
    order = tuple(place_of[key] for key in keys)
    return ClassMatch(Relation.RESPELLED if order == plain else Relation.REORDERED, order)


def place_of(name: str, names: Sequence[str]) -> int | None:
    """Index of a class in ``names``: of the name itself, or of the only equivalent one; None if
    there is none.
    """
    if name in names:
        return list(names).index(name)
    (key,), keys = _keys([name]), _keys(names)
    return keys.index(key) if keys.count(key) == 1 else None


def are_known(names: Sequence[str]) -> bool:
    """Whether ``names`` describe classes: there are some, and they are not all numbers or
    placeholders such as ``class0``.
    """
    return any(not _NUMBERED.fullmatch(name.strip()) for name in names)


def listed(names: Sequence[str]) -> str:
    """List the first names for a message, with control characters escaped and long names cut."""
    first = [shown(name, _LONGEST_NAME) for name in names[:_MOST_NAMES]]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


def _keys(names: Sequence[str]) -> list[str]:
    """Return the part of each name that is compared."""
    plain = [
        re.sub(r"[\s_]+", "", unicodedata.normalize("NFKC", name)).casefold() for name in names
    ]
    return [_SYNONYMS.get(name, name) for name in plain]

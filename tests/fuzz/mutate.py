"""Mutations of bytes, lines and trees, chosen for what readers get wrong."""

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

Files = dict[str, bytes]  # name below a folder -> content

NUMBERS: tuple[int | float, ...] = (
    *(0, -1, 1, 2, 255, 256, 65535, 65536),
    *(2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64),
    *(10**30, 10**400, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf")),
)
TEXTS = (
    *("", " ", "0", "-1", "1e999", "nan", "true", "no", "null", "~", "*", "[", ".", "..", "#", "="),
    *("\0", "a\0b", "two\nlines", "\x1b[2J\x1b[31mred", "\u202egpj.x", "\x85", "\u2028", "\ud800"),
    *("../../../etc/passwd", "/etc/passwd", "C:\\windows\\x", "a/b", "images", "%s{0}", "é", "猫"),
    *("9" * 5000, "x" * 300, "y" * 70_000),
)
VALUES: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"a": {}}, [None], ["a", 1], {"": 0})
LENGTHS = (0, 1, 2, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64)


class Raw:
    """Text that goes into JSON unchanged; ``dumps`` inserts it."""

    def __init__(self, text: str):
        self.text = text

    def __deepcopy__(self, memo: dict) -> "Raw":
        return self


RAW = tuple(
    Raw(text)
    for text in (
        *("[" * 100_000, "[" * 500 + "]" * 500, '{"a":' * 2000 + "1" + "}" * 2000, "9" * 5000),
        *("1e999", "-0", '"\\ud800"', '"\\u0000"', "NaN", "01", "1,", ""),
    )
)


def odd_value(random: Random) -> Any:
    """A number, text or container in the wrong place."""
    return copy.deepcopy(random.choice(random.choice((NUMBERS, NUMBERS, TEXTS, TEXTS, VALUES))))


# ---- trees ---------------------------------------------------------------------------------------


def mutate_tree(random: Random, tree: Any, *, raw: bool = False) -> Any:
    """A copy of ``tree`` (lists, mappings, values) with one to four changes.

    Args:
        raw: also insert what only ``dumps`` can write.
    """
    box = {"": copy.deepcopy(tree)}
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        places = list(_places(box))
        if not 0 < len(places) < 3000:  # everything is removed, or it was repeated before
            break
        container, key = random.choice(places)
        change = random.choice(CHANGES)
        if raw and random.random() < 0.1:
            container[key] = random.choice(RAW)
        elif change is _swapped:
            other, place = random.choice(places)
            container[key] = copy.deepcopy(other[place])
        else:
            change(random, container, key)
    return box.get("")


def dumps(tree: Any, random: Random) -> bytes:
    """``tree`` as JSON with ``Raw`` inserted, sometimes with a duplicate key."""
    found: list[str] = []

    def default(value: Raw) -> str:
        found.append(value.text)
        return f"@raw{len(found) - 1}@"

    text = json.dumps(tree, default=default, ensure_ascii=random.random() < 0.9)
    for index, raw in enumerate(found):
        text = text.replace(f'"@raw{index}@"', raw)
    if random.random() < 0.05:
        start = text.find("{") + 1
        text = text[:start] + text[start : text.find(",", start) + 1] + text[start:]
    return text.encode("utf-8", "surrogatepass")


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of every value below ``tree``."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _replaced(random: Random, container: Any, key: Any) -> None:
    container[key] = odd_value(random)


def _removed(_: Random, container: Any, key: Any) -> None:
    del container[key]


def _renamed(random: Random, container: Any, key: Any) -> None:
    if isinstance(container, dict):
        container[random.choice((odd_text(random), str(key).upper(), f"{key} "))] = container.pop(
            key
        )
    else:
        container.insert(0, container.pop(key))


def _repeated(random: Random, container: Any, key: Any) -> None:
    value, count = container[key], random.choice((1, 2, 500))
    if isinstance(container, dict):
        container.update({f"{key}{index}": value for index in range(count)})
    else:
        container[key:key] = [value] * count


def _nested(random: Random, container: Any, key: Any) -> None:
    for _ in range(random.choice((1, 2, 30))):
        container[key] = [container[key]] if random.random() < 0.5 else {"a": container[key]}


def _nudged(random: Random, container: Any, key: Any) -> None:
    value = container[key]
    if isinstance(value, str):
        position = random.randint(0, len(value))
        container[key] = value[:position] + odd_text(random) + value[position:]
    elif isinstance(value, (int, float)):
        container[key] = random.choice((value + 1, value - 1, -value, value * 1000, str(value)))
    else:
        container[key] = random.choice((None, 0, str(value)))


def _swapped() -> None:
    """Marks the change that copies a value from another place; ``mutate_tree`` makes it."""


CHANGES: tuple[Any, ...] = (
    *(_replaced, _replaced, _replaced, _removed, _renamed, _repeated, _nested, _nudged, _nudged),
    _swapped,
)


def odd_text(random: Random) -> str:
    return random.choice(TEXTS)


# ---- lines and bytes -----------------------------------------------------------------------------


def mutate_lines(random: Random, text: str) -> bytes:
    """``text`` with a few words or lines changed, in some encoding."""
    lines = text.split("\n")
    for _ in range(random.choice((1, 1, 2, 4))):
        if sum(map(len, lines)) > 50_000:  # repeated once already
            break
        row = random.randrange(len(lines))
        words = lines[row].split(" ")
        word = random.randrange(len(words))
        kind = random.randrange(8)
        if kind < 3:
            words[word] = str(odd_value(random))
        elif kind == 3:
            del words[word]
        elif kind == 4:
            words = words * random.choice((2, 3, 1000))
        elif kind == 5:
            lines[row:row] = [lines[row]] * random.choice((1, 2, 500))
        elif kind == 6:
            words[word] += odd_text(random)
        else:
            words = random.choice(lines).split(" ")
        lines[row] = " ".join(words)
    content = random.choice(("\n", "\n", "\n", "\r\n", "\r", "\x0b")).join(lines)
    encoding = random.choice(("utf-8",) * 8 + ("utf-8-sig", "utf-16", "gbk", "latin-1"))
    return content.encode(encoding, "surrogatepass" if "utf" in encoding else "replace")


def mutate_bytes(random: Random, content: bytes, changes: int | None = None) -> bytes:
    """``content`` with flipped, removed, duplicated, overwritten or moved parts."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8)) if changes is None else changes):
        if not data:
            break
        begin = random.randrange(len(data))
        end = min(len(data), begin + random.choice((1, 1, 2, 4, 8, 64, 512)))
        kind = random.randrange(7)
        if kind == 0:
            data[begin] ^= 1 << random.randrange(8)
        elif kind == 1:
            del data[begin:end]
        elif kind == 2:
            data[begin:begin] = data[begin:end] * random.choice((1, 1, 50))
        elif kind == 3:
            data[begin:end] = bytes(random.choice((b"\0", b"\xff", b"\x80", b"\n"))) * (end - begin)
        elif kind == 4:
            width, order = random.choice((1, 2, 4, 8)), random.choice(("little", "big"))
            number = random.choice(LENGTHS) % 256**width
            data[begin : begin + width] = number.to_bytes(width, order)
        elif kind == 5:
            other = random.randrange(len(data))
            data[begin:end] = data[other : other + end - begin]
        else:
            del data[begin:]
    return bytes(data)


def sometimes_damaged(random: Random, content: bytes, share: float = 0.15) -> bytes:
    """``content``, damaged at random in a ``share`` of the cases."""
    return mutate_bytes(random, content) if random.random() < share else content

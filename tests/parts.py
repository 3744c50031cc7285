"""The processes of `make test-all`: MindSpore keeps every graph that it compiles, so each family
and each stored variant has its own process, and so has the loss of each stored case, whose compiled
steps take gigabytes.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import DEFAULT_GOLDEN

TESTS = Path(__file__).resolve().parent
FAMILIES = tuple(
    sorted(p.name for p in (TESTS / "models").iterdir() if (p / "test_loss.py").is_file())
)
# Seeded cases of each folder, whose names are relative to the family's: "yolox_m",
# "gold_yolo_l/distill"
STORED: dict[str, list[str]] = {}
for _family in FAMILIES:
    for _path in sorted((DEFAULT_GOLDEN / _family).rglob("case_seed*.npz")):
        _name = _path.parent.relative_to(DEFAULT_GOLDEN / _family).as_posix()
        STORED.setdefault(_name, []).append(_path.stem)
GENERAL = "general"
PARTS = tuple(
    dict.fromkeys(
        (
            *(GENERAL, *FAMILIES, *STORED),
            *(f"{name}, {case}" for name, cases in STORED.items() for case in cases),
        )
    )
)


def part_of(item: pytest.Item) -> str:
    """The process that runs the test: that of its stored variant or of its family."""
    callspec = getattr(item, "callspec", None)
    for value in callspec.params.values() if callspec else ():
        name = getattr(value, "variant", value)  # of a stored case
        if isinstance(name, str) and name in STORED:
            own = item.path.name == "test_loss.py" and value is not name
            return f"{name}, {value.path.stem}" if own else name
    folder = item.path.parent.name
    return folder if folder in FAMILIES else GENERAL


def select(items: Sequence[pytest.Item], part: str) -> list[pytest.Item]:
    """The tests of one process, in order."""
    return [item for item in items if part_of(item) == part]

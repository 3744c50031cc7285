"""The processes of `make test-all`: MindSpore keeps every graph that it compiled, so each family
and each stored variant have one of their own, and so has a variant's loss.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import DEFAULT_GOLDEN

TESTS = Path(__file__).resolve().parent
FAMILIES = tuple(
    sorted(p.name for p in (TESTS / "models").iterdir() if (p / "test_loss.py").is_file())
)
# Folders of seeded cases within those of their families: "yolox_m", "gold_yolo_l/distill"
STORED = tuple(
    dict.fromkeys(
        path.parent.relative_to(DEFAULT_GOLDEN / family).as_posix()
        for family in FAMILIES
        for path in sorted((DEFAULT_GOLDEN / family).rglob("case_seed*.npz"))
        if path.parent != DEFAULT_GOLDEN / family
    )
)
LOSS = ", loss"  # after the name of a stored variant: its compiled steps, some gigabytes each
GENERAL = "general"
PARTS = tuple(
    dict.fromkeys((GENERAL, *FAMILIES, *(name + end for name in STORED for end in ("", LOSS))))
)


def part_of(item: pytest.Item) -> str:
    """The process that runs the test: that of the stored variant it is about, or of its family."""
    callspec = getattr(item, "callspec", None)
    for value in callspec.params.values() if callspec else ():
        name = getattr(value, "variant", value)  # of a stored case
        if isinstance(name, str) and name in STORED:
            return name + LOSS if item.path.name == "test_loss.py" else name
    folder = item.path.parent.name
    return folder if folder in FAMILIES else GENERAL


def select(items: Sequence[pytest.Item], part: str) -> list[pytest.Item]:
    """The tests of one process, in their order."""
    return [item for item in items if part_of(item) == part]

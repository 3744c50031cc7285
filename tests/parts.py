"""The processes of `make test-all`: MindSpore keeps every graph that it compiled, so a family and
each large variant have one of their own.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
FAMILIES = tuple(
    sorted(p.name for p in (TESTS / "models").iterdir() if (p / "test_loss.py").is_file())
)
LARGE = (
    *("gold_yolo_s", "gold_yolo_m", "gold_yolo_l"),
    *("dy_yolov7", "dy_yolov7x", "dy_yolov7_w6"),
    *("yolox_m", "yolox_l", "yolox_x", "yolox_darknet53"),
)
GENERAL = "general"
PARTS = (GENERAL, *FAMILIES, *LARGE)


def part_of(item: pytest.Item) -> str:
    """The process that runs the test: that of the large variant it is about, or of its family."""
    callspec = getattr(item, "callspec", None)
    for value in callspec.params.values() if callspec else ():
        name = getattr(value, "variant", value)  # of a stored case
        name = name.split("/")[0] if isinstance(name, str) else ""
        if name in LARGE:
            return name
    folder = item.path.parent.name
    return folder if folder in FAMILIES else GENERAL


def select(items: Sequence[pytest.Item], part: str) -> list[pytest.Item]:
    """The tests of one process, in their order."""
    return [item for item in items if part_of(item) == part]

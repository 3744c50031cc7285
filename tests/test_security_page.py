"""The limits in docs/security.md are those of the code."""

import importlib
import re

from launching import ROOT

ROWS = re.findall(
    r"^\| .+ \| (.+) \| `([\w.]+)\.(_?[A-Z_]+)` \|$",
    (ROOT / "docs" / "security.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def written(name: str, value: int) -> str:
    """A limit as the page states it."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if name.endswith("BYTES") and value % size == 0:
            return f"{value // size} {unit}"
    return f"{value:,}"


def test_limits_are_those_of_the_code():
    assert len(ROWS) >= 20
    wrong = []
    for stated, module, name in ROWS:
        value = getattr(importlib.import_module(f"mindyolo_ext.{module}"), name)
        if written(name, value) != stated:
            wrong.append(f"{module}.{name} is {written(name, value)}, the page says {stated}")
    assert wrong == []

"""Tables of the docs that repeat the families' records are up to date."""

from pathlib import Path

import pytest
from launching import ROOT

from mindyolo_ext.models import tables
from mindyolo_ext.models.registry import families

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_up_to_date(page: Path):
    text = page.read_text(encoding="utf-8")
    assert tables.updated(text) == text, "run `make tables`"


def test_every_family_has_its_table():
    for name in families():
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert f"<!-- table: variants {name} -->" in text


def test_an_old_table_is_replaced():
    page = "before\n<!-- table: variants yolox -->\nold\n<!-- /table -->\nafter\n"
    new = tables.updated(page)
    assert "old" not in new and "`yolox_nano`" in new
    assert new.startswith("before\n") and new.endswith("<!-- /table -->\nafter\n")
    with pytest.raises(ValueError, match="wanted families, families zh, terms or variants FAMILY"):
        tables.updated("<!-- table: x -->\n<!-- /table -->")

"""The features page: the settings and files that it names exist, and no cell is empty."""

import re

import pytest
from launching import ROOT

from mindyolo_ext.config.describe import find_settings

PAGE = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
ROWS = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
SETTINGS = sorted(set(re.findall(r"`((?:data|train|eval)\.[\w.]+)`", PAGE)))
FILES = sorted(set(re.findall(r"`(mindyolo_ext/\S+)`", PAGE)))


def test_every_row_has_a_cell_for_everyone():
    table = [row for row in ROWS if len(row) != 3]  # the first one lists versions
    assert len(table) > 40 and {len(row) for row in table} == {7}
    assert all(cell.strip() for row in table for cell in row[1:])


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_exist(name: str):
    assert find_settings(name)


@pytest.mark.parametrize("name", FILES)
def test_files_exist(name: str):
    assert (ROOT / name).exists()

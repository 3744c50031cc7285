"""Files that appear whole or not at all."""

import json
import os
from pathlib import Path

import pytest

from mindyolo_ext import atomic
from mindyolo_ext.errors import WriteError


def test_json_keeps_names_that_are_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xd5\xd5\xc6\xac.jpg")
    path = tmp_path / "a.json"
    atomic.write_json(path, {name: [1], "漢 🙂": 2.5}, indent=1)
    text = path.read_text(encoding="utf-8")
    assert r"\udcd5\udcd5Ƭ.jpg" in text  # two of the four bytes are UTF-8
    assert "漢 🙂" in text
    assert os.fsencode(next(iter(json.loads(text)))) == b"\xd5\xd5\xc6\xac.jpg"


def test_number_that_json_lacks_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(path, [float("nan")])
    assert path.read_text() == "[]"
    assert os.listdir(tmp_path) == ["a.json"]


def test_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot be written"):
        atomic.write_text(tmp_path / "file" / "a.txt", "text")

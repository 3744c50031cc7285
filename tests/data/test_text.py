"""Paths, texts and names of a data set."""

import os
import tracemalloc
from pathlib import Path

import pytest
from label_sets import put

from mindyolo_ext.class_names import MAX_CLASSES
from mindyolo_ext.data import text
from mindyolo_ext.data.text import find_path, read_lines, read_names, read_text, whole
from mindyolo_ext.errors import DataError, MissingFileError, shown


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (7, 7),
        (7.0, 7),
        ("7", 7),
        (" -7.0 ", -7),
        (7.5, None),
        ("7.5", None),
        (True, None),
        (None, None),
        ("", None),
        ("seven", None),
        ("１", None),
        ([7], None),
        (2**70, None),
        ("9" * 5000, None),
        (float("nan"), None),
        (float("inf"), None),
        (1e300, None),
    ],
)
def test_whole_numbers(value: object, wanted: int | None) -> None:
    assert whole(value) == wanted


def test_values_in_messages() -> None:
    assert shown("a\x1b[31mb\nc\udcff") == r"a\x1b[31mb\nc\udcff"
    assert shown("x" * 100) == "x" * 80 + "..."
    assert len(shown([["x" * 1000] * 1000] * 1000)) < 200 and shown({"a": None}) == "{'a': None}"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marked_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    file = put(tmp_path / "a.names", f"猫{end}{end} dog {end}".encode(encoding))
    assert list(read_lines(file)) == [(1, "猫"), (3, "dog")]
    assert read_names(file) == ["猫", "dog"]


def test_other_encodings_are_refused_with_the_remedy(tmp_path: Path) -> None:
    file = put(tmp_path / "a.names", "dog\n狗\n".encode("gbk"))
    with pytest.raises(DataError, match=r"a.names: wanted UTF-8 .*line 2.*iconv -f GBK"):
        read_text(file)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is it a text file at all"):
        read_text(put(tmp_path / "a.names", b"\x89PNG\0\0"))


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="wanted a file, got a folder"):
        read_text(tmp_path)
    with pytest.raises(MissingFileError, match="a/b: no such file"):
        read_text(put(tmp_path / "a", "") / "b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe: wanted a file, got a device or pipe"):
        read_text(tmp_path / "pipe")
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path / ("x" * 300))
    monkeypatch.setattr(text, "MAX_TEXT_BYTES", 10)
    with pytest.raises(DataError, match="big: wanted at most"):
        read_text(put(tmp_path / "big", "x" * 11), most=10)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "a/" * 3000, "**", "a**b/[", "gone"])
def test_paths_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingFileError, match="no such file or folder"):
        find_path(name, tmp_path)


@pytest.mark.parametrize("path", [5, None, {"a": 1}, ["a", 5]])
def test_paths_that_are_no_texts(path: object) -> None:
    with pytest.raises(DataError, match="wanted the path of a file or folder"):
        find_path(path, ".")


def test_a_pattern_in_a_folder_with_brackets(tmp_path: Path) -> None:
    file = put(tmp_path / "set[1]/instances_val.json", "")
    assert find_path("instances_*.json", tmp_path / "set[1]") == file


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([True, "a"], r"names\[0\]: wanted a class name, got True; .*quote a word"),
        (["a", None], r"names\[1\]: wanted a class name, got None"),
        (["a", 1.5], r"names\[1\]: wanted a class name, got 1.5"),
        (["a", ""], r"names\[1\]: wanted a class name, got ''"),
        (["a", ["b"]], r"names\[1\]: wanted a class name"),
        (["a", "a"], r"wanted different class names, got \['a'\] twice"),
        ([], "got none"),
        (5, "wanted a list of class names, got 5"),
        ([str(i) for i in range(MAX_CLASSES + 1)], "wanted at most 16,384 classes"),
        ("data.yaml", "wanted a text file .* for a data.yaml"),
    ],
)
def test_names_that_are_refused(names: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_names(names)


def test_names_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"names: no such .*gone.*wanted a list such as"):
        read_names("gone", tmp_path)


def test_a_small_file_takes_little_however_large_it_might_be(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]", encoding="utf-8")
    tracemalloc.start()
    try:
        assert read_text(tmp_path / "a.json", most=1 << 33) == "[]"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()

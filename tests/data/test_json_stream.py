"""Lists of a JSON object, read piece by piece."""

import hashlib
import json
from pathlib import Path

import pytest

from mindyolo_ext.data import json_stream
from mindyolo_ext.data.json_stream import NotStreamable, read_lists

CONTENT = {
    "info": {"a": [1, {"b": "]}"}], "c": None},
    "first": [{"id": 1, "name": 'é"\\ü'}, 123456, -1.5e-3, "x", [], None, True, 77],
    "more": "text",
    "empty": [],
    "second": [[1, 2], {"deep": [[[{}]]]}] * 9,
}


def lists(path: Path, *names: str, **keywords: object) -> dict[str, list]:
    found: dict[str, list] = {name: [] for name in names}
    for name, entries in read_lists(path, names, **{"most": 10**6, **keywords}):
        found[name] += entries
    return found


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 10**6])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_any_block_size_gives_what_json_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, indent: int | None, mark: bytes
) -> None:
    monkeypatch.setattr(json_stream, "BLOCK", block)
    monkeypatch.setattr(json_stream, "_CHUNK", 3)
    text = json.dumps(CONTENT, indent=indent, ensure_ascii=False).encode()
    path, digest, sizes = tmp_path / "a.json", hashlib.sha256(), []
    path.write_bytes(mark + text + b"\r\n ")
    found = lists(path, "second", "first", "empty", digest=digest, progress=sizes.append)
    assert found == {name: CONTENT[name] for name in ("first", "second", "empty")}
    assert digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sum(sizes) == path.stat().st_size


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"first": [1, 2',
        b'{"first": [1, 2]',
        b'{"first": [1, 2]} x',
        b'{"first": [1, 2,]}',
        b'{"first": [1 2]}',
        b'{"first": [,]}',
        b'{"first": [1], }',
        b'{"first": {"a": 1}}',
        b'{"first": null}',
        b'{"first": [1], "first": [2]}',
        b"{first: [1]}",
        b'{"first" [1]}',
        b'{"first": [1], 5: 6}',
        b'{"first": ["\xff"]}',
        b'{"first": ["\n"]}',
        b'{"other": [1]}',
        b'{"first": [' + b"9" * 5000 + b"]}",
        b'{"first": ' + b"[" * 100_000,
        '{"first": [1]}'.encode("utf-16"),
        '{"first": [1]}'.encode("utf-32"),
    ],
)
@pytest.mark.parametrize("block", [1, 10**6])
def test_what_is_left_to_the_reader_of_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, block: int
) -> None:
    if block == 1 and len(text) > 10_000:
        pytest.skip("quadratic")
    monkeypatch.setattr(json_stream, "BLOCK", block)
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(NotStreamable):
        lists(tmp_path / "a.json", "first")


def test_files_that_are_none_or_too_large(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json", Path("/dev/zero")):
        with pytest.raises(NotStreamable):
            lists(path, "first")
    (tmp_path / "a.json").write_text('{"first": [1]}', encoding="utf-8")
    assert lists(tmp_path / "a.json", "first", most=14) == {"first": [1]}
    with pytest.raises(NotStreamable):
        lists(tmp_path / "a.json", "first", most=13)


def test_an_entry_without_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "BLOCK", 10)
    monkeypatch.setattr(json_stream, "_LONGEST", 50)
    read: list[int] = []
    (tmp_path / "a.json").write_text('{"first": ["' + "x" * 1000 + '"]}', encoding="utf-8")
    with pytest.raises(NotStreamable):
        lists(tmp_path / "a.json", "first", progress=read.append)
    assert sum(read) <= 80

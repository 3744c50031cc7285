"""Files that appear whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindyolo_ext import atomic
from mindyolo_ext.atomic import replacing, write_bytes, write_text
from mindyolo_ext.errors import WriteError

KILLED = """
import os, signal, sys
from pathlib import Path
from mindyolo_ext.atomic import replacing
with replacing(Path(sys.argv[1]), nameless=True) as unfinished:
    unfinished.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def nameless_files_work(folder: Path) -> bool:
    handle = atomic._open_nameless(folder)
    if handle is not None:
        os.close(handle)
    return handle is not None


@pytest.mark.parametrize("nameless", [True, False])
def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, nameless):
    path = tmp_path / "some.folder" / "a.txt"
    with replacing(path, nameless=nameless) as unfinished:
        unfinished.write_bytes(b"first")
        assert not path.exists()
    with pytest.raises(KeyError), replacing(path, nameless=nameless) as unfinished:
        unfinished.write_bytes(b"second")
        raise KeyError
    assert path.read_bytes() == b"first"
    assert os.listdir(path.parent) == ["a.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_killed_process_leaves_nothing(tmp_path):
    if not nameless_files_work(tmp_path):
        pytest.skip("this file system has no files without a name")
    path = tmp_path / "a.bin"
    write_bytes(path, b"whole")
    done = subprocess.run([sys.executable, "-c", KILLED, path], cwd=Path(__file__).parents[1])
    assert done.returncode == -9
    assert path.read_bytes() == b"whole" and os.listdir(tmp_path) == ["a.bin"]


def test_without_nameless_files_it_works_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_open_nameless", lambda _: None)
    write_text(tmp_path / "a.txt", "text")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_place_that_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file/a.txt: cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "text")


def test_json_keeps_names_that_are_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xd5\xd5\xc6\xac.jpg")
    path = tmp_path / "a.json"
    atomic.write_json(path, {name: [1], "漢 🙂": 2.5}, indent=1)
    text = path.read_text(encoding="utf-8")
    assert r"\udcd5\udcd5Ƭ.jpg" in text  # two of the four bytes are UTF-8
    assert "漢 🙂" in text
    assert os.fsencode(next(iter(json.loads(text)))) == b"\xd5\xd5\xc6\xac.jpg"


@pytest.mark.parametrize("entries", [[], [1], [{"a": [1.5, None]}, "\udcd5 漢", {}]])
def test_a_list_that_is_written_in_pieces_is_the_same(tmp_path: Path, entries: list) -> None:
    atomic.write_json(tmp_path / "whole.json", entries)
    atomic.write_json_list(tmp_path / "pieces.json", iter(entries))
    assert (tmp_path / "pieces.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    with pytest.raises(ValueError):
        atomic.write_json_list(tmp_path / "pieces.json", [1, float("inf")])
    assert (tmp_path / "pieces.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_number_that_json_lacks_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(path, [float("nan")])
    assert path.read_text() == "[]"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("nameless", [False, True])
def test_the_disk_is_waited_for_unless_asked_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    flushed = []
    monkeypatch.setattr(atomic, "_flush", flushed.append)
    for flush in (False, True):
        with replacing(tmp_path / "a.txt", nameless=nameless, flush=flush) as unfinished:
            unfinished.write_bytes(b"whole")
        assert (tmp_path / "a.txt").read_bytes() == b"whole"
        assert bool(flushed) == flush


def test_the_umask_is_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "umask", None)  # all threads share it
    with replacing(tmp_path / "a.txt") as unfinished:
        unfinished.write_bytes(b"whole")
    write_bytes(tmp_path / "b.txt", b"whole")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"]

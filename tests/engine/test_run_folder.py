"""Two runs never share a folder, and a killed run leaves neither a lock nor half a file."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT

from mindyolo_ext.engine import run_folder
from mindyolo_ext.engine.run_folder import LOCK, locked
from mindyolo_ext.errors import ExistingFileError, WriteError

HOLDS = """
import signal, sys
from pathlib import Path
from mindyolo_ext.engine import run_folder
if sys.argv[2] == "without":
    run_folder._lock = lambda handle: False
with run_folder.locked(Path(sys.argv[1])):
    print("locked", flush=True)
    signal.pause()
"""


@contextlib.contextmanager
def another_run(folder: Path, *, locks: bool):
    """A process that holds the folder until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, folder, "with" if locks else "without"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()


@pytest.fixture(params=[True, False], ids=["flock", "no flock"])
def locks(request, monkeypatch) -> bool:
    """With locks of the system, and on a file system without them."""
    if not request.param:

        def refuse(*_: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "not supported")

        monkeypatch.setattr(run_folder.fcntl, "flock", refuse)
    return request.param


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path, locks):
    folder = tmp_path / "run"
    with another_run(folder, locks=locks) as process:
        for _ in range(2):  # a refusal changes nothing
            with (
                pytest.raises(
                    ExistingFileError, match=f"in use: another run .process {process.pid} on"
                ),
                locked(folder),
            ):
                pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(folder):
            assert json.loads((folder / LOCK).read_text())["process"] == os.getpid()
    assert not (folder / LOCK).exists()


def test_a_lock_of_another_machine_or_of_a_recycled_number(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_lock", lambda _: False)
    owner = {"process": os.getpid(), "host": socket.gethostname(), "started": "1"}
    (tmp_path / LOCK).write_text(json.dumps(owner))
    with locked(tmp_path):  # this process has that number now, but started at another time
        pass
    (tmp_path / LOCK).write_text(json.dumps({**owner, "host": "elsewhere"}))
    refused = pytest.raises(ExistingFileError, match=r"If that run is gone, delete .*\.lock")
    with refused, locked(tmp_path):
        pass


def test_unfinished_files_go_and_others_stay(tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    kept = [tmp_path / "results.csv", weights / "last.ckpt", weights / "a.tmp.ckpt"]
    gone = [tmp_path / ".results.x1.tmp.png", weights / ".last.ckpt.x1.tmp"]
    for file in kept + gone:
        file.touch()
    with locked(tmp_path):
        assert all(file.exists() for file in kept) and not any(file.exists() for file in gone)


def test_unfinished_files_of_a_running_run_stay(tmp_path, locks):
    with another_run(tmp_path, locks=locks):
        unfinished = tmp_path / ".last.x1.tmp.ckpt"
        unfinished.touch()
        with pytest.raises(ExistingFileError), locked(tmp_path):
            pass
        assert unfinished.exists()


def test_a_folder_that_was_made_for_nothing_goes(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(KeyError), locked(folder):
        assert folder.is_dir()
        raise KeyError
    assert not folder.exists()


def test_a_place_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        refused = pytest.raises(WriteError, match="cannot be the folder of a run .*--save_dir")
        with refused, locked(place):
            pass


def test_an_error_of_the_run_is_not_taken_for_one_of_the_folder(tmp_path):
    with pytest.raises(PermissionError, match="of the run"), locked(tmp_path):
        raise PermissionError("of the run")

"""Decoded images, cached in memory or on disk for all processes of a machine."""

import errno
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.data import dataset as dataset_module
from mindyolo_ext.data import image_cache
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.image_file import read_image, write_image
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.errors import UsageError
from mindyolo_ext.input_spec import InputSpec

ROOT = Path(__file__).resolve().parents[2]
COCO = {"format": "coco", "images": "images/train", "annotations": "annotations/train.json"}
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs positioned writes")
needs_proc = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs nameless memory")


@pytest.fixture
def folder(shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set and an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(shapes_folder, tmp_path / "data"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which files were decoded."""
    found: list[str] = []
    monkeypatch.setattr(
        dataset_module, "read_image", lambda path: found.append(path) or read_image(path)
    )
    return found


def opened(folder: Path, cache: str) -> Dataset:
    return build_dataset({**COCO, "cache": cache}, folder)


def load_all(dataset: Dataset) -> list[np.ndarray]:
    return [dataset.load(index).image for index in range(len(dataset))]


def assert_pixels(dataset: Dataset) -> None:
    for path, image in zip(dataset.paths, load_all(dataset), strict=True):
        np.testing.assert_array_equal(image, read_image(path))
        assert not image.flags.writeable


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_every_image_is_decoded_once_and_is_the_same(
    folder: Path, decoded: list[str], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    dataset = opened(folder, kind)
    assert f"data.cache={kind}: 0.0 GB for 19 decoded images of at most " in caplog.text
    assert "GB are free" in caplog.text
    for _ in range(2):
        assert_pixels(dataset)
    assert sorted(decoded) == sorted(dataset.paths)
    other = opened(folder, kind)  # like a second rank or a later run
    assert_pixels(other)
    assert len(decoded) == len(dataset)


@needs_proc
@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_worker_processes_share_the_images(folder: Path, decoded: list[str], kind: str) -> None:
    dataset = opened(folder, kind)
    keywords = {"batch_size": 4, "input_spec": InputSpec(size=(64, 96), resize="stretch")}
    with Loader(dataset, workers=1, worker_kind="process", **keywords) as loader:
        found = list(loader.epoch(0))
    with Loader(opened(folder, "none"), workers=0, **keywords) as loader:
        wanted = list(loader.epoch(0))
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.images, two.images)
    decoded.clear()
    assert_pixels(dataset)
    assert_pixels(pickle.loads(pickle.dumps(dataset)))
    assert not decoded


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_another_content_is_decoded_again(folder: Path, decoded: list[str], kind: str) -> None:
    first = opened(folder, kind)
    load_all(first)
    path = Path(first.paths[3])
    before, image = path.stat(), read_image(path)
    content = path.read_bytes()
    write_image(path, 255 - image, 60)
    smaller = path.read_bytes()
    path.write_bytes(smaller.ljust(len(content), b"\0"))  # neither size nor date shows it
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    decoded.clear()
    again = opened(folder, kind)
    assert_pixels(again)
    assert decoded == [str(path)]
    assert_pixels(opened(folder, kind))
    assert decoded == [str(path)]


def test_damaged_pixels_are_decoded_again(folder: Path, decoded: list[str]) -> None:
    load_all(opened(folder, "disk"))
    (file,) = (folder / "images/train").glob(".*.images")
    with open(file, "r+b") as opened_file:
        opened_file.seek(-100, os.SEEK_END)
        opened_file.write(b"\1\2\3\4\5")
    decoded.clear()
    assert_pixels(opened(folder, "disk"))
    assert len(decoded) == 1
    file.write_bytes(b"\0" * 100)
    assert_pixels(opened(folder, "disk"))
    assert len(decoded) == 1 + 19


def test_read_only_data_uses_the_cache_folder(
    folder: Path, decoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: object, *given: int, **keywords: int) -> int:
        if str(path).startswith(str(folder)) and given and given[0] & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, *given, **keywords)

    monkeypatch.setattr(os, "open", refuse)  # root may write everywhere
    for _ in range(2):
        assert_pixels(opened(folder, "disk"))
    assert len(decoded) == 19 and not list(folder.rglob(".*"))
    assert len(list((tmp_path / "cache/mindyolo_ext/images").glob("*.images"))) == 1


def test_a_full_disk_is_told_once_and_the_run_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, written = os.pwrite, []

    def refuse(file: int, content: memoryview, start: int) -> int:
        written.append(start)
        if len(written) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content, start)

    monkeypatch.setattr(os, "pwrite", refuse)
    dataset = opened(folder, "disk")
    for _ in range(2):
        for path, image in zip(dataset.paths, load_all(dataset), strict=True):
            np.testing.assert_array_equal(image, read_image(path))
    (record,) = [r for r in caplog.records if "cannot cache more images" in r.message]
    assert "No space left on device" in record.message and "data.cache=none" in record.message


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_what_does_not_fit_is_refused(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "_free_memory", lambda: 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(UsageError, match=rf"data.cache={kind}: .* GB are free: use data.cache="):
        opened(folder, kind)


_KILLED = """
import os, signal, sys
from mindyolo_ext.data.build import build_dataset
dataset = build_dataset(
    {"format": "coco", "images": "images/train", "annotations": "annotations/train.json",
     "cache": sys.argv[2]}, sys.argv[1])
for index in range(5):
    dataset.load(index)
real = os.pwrite
def half(file, content, start):
    if len(content) > 16:
        real(file, content[: len(content) // 2], start)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(file, content, start)
os.pwrite = half
dataset.load(5)
"""


@pytest.mark.parametrize(("kind", "kept"), [("ram", 0), ("disk", 5)])
def test_a_killed_process_leaves_nothing_broken(
    folder: Path, decoded: list[str], kind: str, kept: int
) -> None:
    command = [sys.executable, "-c", _KILLED, str(folder), kind]
    status = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert status.returncode == -signal.SIGKILL
    assert_pixels(opened(folder, kind))
    assert len(decoded) == 19 - kept


@needs_proc
def test_memory_is_given_back(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    dataset = opened(folder, "ram")
    load_all(dataset)
    assert len(os.listdir("/proc/self/fd")) > before
    del dataset
    assert len(os.listdir("/proc/self/fd")) == before

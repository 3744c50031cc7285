"""Imports by the names of the layout without family folders."""

import importlib

import numpy as np
import pytest

from mindyolo_ext import errors, former_names
from mindyolo_ext.checkpoint.ckpt_file import write_ckpt
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.formats import coco, yolo

NAMES = [
    ("checkpoint.errors", "CheckpointError", errors.CheckpointError),
    ("data.coco", "read_coco", coco.read_coco),
    ("data.yolo_text", "read_yolo", yolo.read_yolo),
    ("data.dataset", "build_dataset", build_dataset),
    ("backend.files", "write_arrays", write_ckpt),
]


@pytest.mark.parametrize(("module", "name", "now"), NAMES, ids=[name for _, name, _ in NAMES])
def test_former_name_is_the_present_one(module, name, now):
    with pytest.warns(DeprecationWarning, match=now.__name__):
        assert getattr(importlib.import_module(f"mindyolo_ext.{module}"), name) is now


def test_every_listed_place_exists():
    for module, names in former_names._MOVED.items():
        for name, home in names.items():
            place, _, attribute = f"mindyolo_ext.{home}".rpartition(".")
            target = importlib.import_module(f"mindyolo_ext.{home}" if name == "*" else place)
            assert name == "*" or hasattr(target, attribute), (module, name)


def test_former_reader_of_arrays(tmp_path):
    write_ckpt(tmp_path / "a.ckpt", {"w": np.arange(3, dtype=np.float32)})
    with pytest.warns(DeprecationWarning):
        from mindyolo_ext.backend.files import read_arrays
    assert read_arrays(tmp_path / "a.ckpt")["w"].tolist() == [0, 1, 2]


def test_unknown_names_stay_unknown():
    with pytest.raises(ImportError):
        importlib.import_module("mindyolo_ext.data.nothing")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        importlib.import_module("mindyolo_ext.data.dataset").nothing  # noqa: B018
    with pytest.raises(ImportError):
        from mindyolo_ext.data.coco import nothing  # noqa: F401

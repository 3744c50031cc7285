"""Files that we write are read back bit for bit, and PyTorch itself loads them (checked where it is
available).
"""

import os
import subprocess
import zipfile

import numpy as np
import pytest

from mindyolo_ext.checkpoint import torch_writer
from mindyolo_ext.checkpoint.reader import read_checkpoint
from mindyolo_ext.checkpoint.torch_writer import write_torch_checkpoint
from mindyolo_ext.errors import CheckpointError, WriteError

TENSORS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(4, 3, 2, 1) / 7,
    "transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "big": np.array([1, 2], ">f4"),
    "counter": np.array(1 << 40, np.int64),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "bytes": np.arange(5, dtype=np.uint8),
    "größe": np.float32(2.5),
}


@pytest.mark.parametrize("wrap", [None, "model", "ema"])
def test_read_back(tmp_path, wrap):
    path = tmp_path / "folder" / "x.pth"
    write_torch_checkpoint(path, TENSORS, wrap=wrap)
    checkpoint = read_checkpoint(path)
    assert checkpoint.entry == (wrap or "")
    assert checkpoint.used_ema == (wrap == "ema")
    assert list(checkpoint.tensors) == list(TENSORS)
    for name, array in TENSORS.items():
        assert checkpoint.tensors[name].shape == np.shape(array)
        assert checkpoint.tensors[name].dtype == np.asarray(array).dtype.newbyteorder("=")
        assert np.array_equal(checkpoint.tensors[name], array)


def test_plain_values_beside_the_weights(tmp_path):
    beside = {
        "epoch": -1,
        "big": 1 << 40,
        "best": 0.125,
        "ema": None,
        "done": True,
        "open": False,
        "name": "größe",
    }
    write_torch_checkpoint(tmp_path / "x.pt", TENSORS, wrap="model", beside=beside)
    checkpoint = read_checkpoint(tmp_path / "x.pt")
    assert (checkpoint.entry, checkpoint.entries) == ("model", [*beside, "model"])
    assert checkpoint.extras == {name: value for name, value in beside.items() if name != "ema"}
    with pytest.raises(ValueError, match="epoch beside a bare state dict, wanted wrap"):
        write_torch_checkpoint(tmp_path / "y.pt", TENSORS, beside={"epoch": 1})
    assert not (tmp_path / "y.pt").exists()


def test_half_precision_rounds(tmp_path):
    write_torch_checkpoint(
        tmp_path / "x.pth", {"a": np.array([1 / 3], np.float32), "n": np.array(3)}, half=True
    )
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert checkpoint.stored_dtypes == {"float16": 1, "int64": 1}
    assert checkpoint.tensors["a"] == np.float32(np.float16(1 / 3))


def test_same_input_same_bytes(tmp_path):
    for name in "ab":
        write_torch_checkpoint(tmp_path / f"{name}.pth", TENSORS)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_type_without_storage(tmp_path):
    with pytest.raises(CheckpointError, match="tensor 'a' is complex64, wanted one of float64"):
        write_torch_checkpoint(tmp_path / "x.pth", {"a": np.zeros(1, np.complex64)})
    assert not list(tmp_path.iterdir())


def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    write_torch_checkpoint(path, {"a": np.zeros(3, np.float32)})
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(WriteError, match=r"x\.pth: cannot be written \(disk full\)"):
        write_torch_checkpoint(path, TENSORS)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.pth"]


def test_pytorch_loads_it(tmp_path):
    """Needs a Python with PyTorch, named by MINDYOLO_EXT_TORCH_PYTHON."""
    python = os.environ.get("MINDYOLO_EXT_TORCH_PYTHON")
    if not python:
        pytest.skip("MINDYOLO_EXT_TORCH_PYTHON names no Python with PyTorch")
    write_torch_checkpoint(
        tmp_path / "x.pth", TENSORS, wrap="model", beside={"epoch": -1, "best": 0.5, "ema": None}
    )
    np.savez(
        tmp_path / "x.npz",
        **{
            name: np.asarray(array, np.asarray(array).dtype.newbyteorder("="))
            for name, array in TENSORS.items()
        },
    )
    code = (
        "import sys, numpy, torch\n"
        "loaded = torch.load(sys.argv[1], weights_only=True)['model']\n"
        "wanted = numpy.load(sys.argv[2])\n"
        "assert list(loaded) == wanted.files\n"
        "for name in wanted.files:\n"
        "    array = loaded[name].numpy()\n"
        "    assert array.dtype == wanted[name].dtype and array.shape == wanted[name].shape, name\n"
        "    assert (array == wanted[name]).all(), name\n"
    )
    subprocess.run(
        [python, "-c", code, str(tmp_path / "x.pth"), str(tmp_path / "x.npz")], check=True
    )


@pytest.mark.parametrize("value", [0, 1, (1 << 31) - 1, 1 << 31, 1 << 40])
def test_integers(value):
    import pickle

    assert pickle.loads(b"\x80\x02" + torch_writer._integer(value) + b".") == value

"""Our own checkpoints: what is written comes back, whole or not at all."""

import os

import numpy as np
import pytest

from mindyolo_ext.checkpoint import store
from mindyolo_ext.checkpoint.store import (
    METADATA_NAME,
    CheckpointMetadata,
    load_checkpoint,
    save_checkpoint,
)
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.input_spec import InputSpec

PARAMETERS = {
    "conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "state.step": np.array(12, np.int64),
    "scalar": np.array(0.5, np.float32),
    "half": np.ones(3, np.float16),
    "flag": np.array([True, False]),
    "wide": np.array([1 / 3]),
    "state.bytes": np.arange(4, dtype=np.uint8),
}
METADATA = CheckpointMetadata(
    "toy",
    2,
    ["cat", "größe"],
    InputSpec(size=(64, 96), color="rgb"),
    {"anchors": [[1.5, 2.0]]},
    7,
    {"map": 0.25},
    {"file": "x.pth"},
    {"thresholds": [0.1]},
)


def test_round_trip(tmp_path):
    path = tmp_path / "folder" / "x.ckpt"
    save_checkpoint(path, PARAMETERS, METADATA)
    parameters, metadata = load_checkpoint(path)
    assert metadata == METADATA
    assert set(parameters) == set(PARAMETERS)
    for name, array in PARAMETERS.items():
        assert parameters[name].dtype == array.dtype, name
        assert parameters[name].shape == array.shape, name
        assert np.array_equal(parameters[name], array), name
    assert [file.name for file in path.parent.iterdir()] == ["x.ckpt"]


def test_mindspore_loads_it_by_plain_names(tmp_path):
    import mindspore

    import mindyolo_ext.backend  # noqa: F401

    cell = mindspore.nn.Dense(3, 2, has_bias=False)
    save_checkpoint(tmp_path / "x.ckpt", {"weight": PARAMETERS["conv.weight"]}, METADATA)
    loaded = mindspore.load_checkpoint(str(tmp_path / "x.ckpt"))
    missing, unused = mindspore.load_param_into_net(cell, loaded)
    assert (missing, unused) == ([], [METADATA_NAME])
    assert np.array_equal(cell.weight.asnumpy(), PARAMETERS["conv.weight"])


@pytest.mark.parametrize("step", ["_write", "_sync", "replace"])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "x.ckpt"
    save_checkpoint(path, PARAMETERS, METADATA)
    before = path.read_bytes()

    def fail(target, *_):
        if step == "_write":  # half a file, then the end
            with open(target, "wb") as stream:
                stream.write(before[:50])
        raise OSError("disk full")

    monkeypatch.setattr(os if step == "replace" else store, step, fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, {"a": np.zeros(3)}, METADATA)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.ckpt"]


def test_a_first_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "x.ckpt", PARAMETERS, METADATA)
    assert not list(tmp_path.iterdir())


def test_file_mode_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        save_checkpoint(tmp_path / "x.ckpt", PARAMETERS, METADATA)
    finally:
        os.umask(old)
    assert (tmp_path / "x.ckpt").stat().st_mode & 0o777 == 0o640


def test_files_that_are_cut_off(tmp_path):
    path = tmp_path / "x.ckpt"
    save_checkpoint(path, PARAMETERS, METADATA)
    content = path.read_bytes()
    for length in range(1, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"x\.ckpt"):
            load_checkpoint(path)


@pytest.mark.parametrize(
    ("path", "parameters", "message"),
    [
        ("x.pth", {}, "our checkpoints end in .ckpt"),
        ("x.ckpt", {METADATA_NAME: np.zeros(1)}, "cannot be called '__metadata__'"),
        ("x.ckpt", {"": np.zeros(1)}, "cannot be called ''"),
        (
            "x.ckpt",
            {"a": np.zeros(1, np.complex64)},
            "parameter 'a' is complex64, wanted one of bool",
        ),
        ("x.ckpt", {"a": np.array(["text"])}, "parameter 'a' is <U4"),
    ],
)
def test_what_cannot_be_written(tmp_path, path, parameters, message):
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(tmp_path / path, parameters, METADATA)
    assert not list(tmp_path.iterdir())


def test_files_of_other_programs(tmp_path):
    store._write(str(tmp_path / "x.ckpt"), {"a": np.zeros(2, np.float32)})
    with pytest.raises(
        CheckpointError, match="has no metadata, wanted a checkpoint of mindyolo_ext"
    ):
        load_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_checkpoint(tmp_path / "y.ckpt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "its metadata is broken"),
        ("{}", "format None, this program reads 1"),
        ("{", "its metadata is broken"),
        ('{"format": 2}', "format 2, this program reads 1"),
        ('{"format": 1, "modell": 3}', "wanted .'architecture'"),
    ],
)
def test_broken_metadata(tmp_path, text, message):
    store._write(str(tmp_path / "x.ckpt"), {METADATA_NAME: np.frombuffer(text.encode(), np.uint8)})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "x.ckpt")


def test_class_names_must_fit():
    with pytest.raises(ValueError, match="1 class names for 2 classes"):
        CheckpointMetadata("toy", 2, ["cat"])

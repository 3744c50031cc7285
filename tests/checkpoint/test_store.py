"""Our own checkpoints: what is written can be read back, completely or not at all."""

import json
import os
import resource
import signal

import numpy as np
import pytest

from mindyolo_ext import atomic
from mindyolo_ext.checkpoint import store
from mindyolo_ext.checkpoint.ckpt_file import write_ckpt
from mindyolo_ext.checkpoint.inspect import describe
from mindyolo_ext.checkpoint.metadata import seal
from mindyolo_ext.checkpoint.reader import read_checkpoint
from mindyolo_ext.checkpoint.safetensors_file import write_safetensors
from mindyolo_ext.checkpoint.store import (
    METADATA_KEY,
    METADATA_NAME,
    CheckpointMetadata,
    load_checkpoint,
    save_checkpoint,
)
from mindyolo_ext.errors import CheckpointError, WriteError
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
    {"note": [0.1]},
)


@pytest.fixture(params=[".ckpt", ".safetensors"])
def suffix(request) -> str:
    """The suffix of one of our formats."""
    return request.param


def test_round_trip(tmp_path, suffix):
    path = tmp_path / "folder" / f"x{suffix}"
    save_checkpoint(path, PARAMETERS, METADATA)
    parameters, metadata = load_checkpoint(path)
    assert metadata == METADATA
    assert list(parameters) == list(PARAMETERS)
    for name, array in PARAMETERS.items():
        assert parameters[name].dtype == array.dtype, name
        assert parameters[name].shape == array.shape, name
        assert np.array_equal(parameters[name], array), name
    assert [file.name for file in path.parent.iterdir()] == [f"x{suffix}"]


@pytest.mark.needs_mindspore
def test_mindspore_loads_it_by_plain_names(tmp_path):
    import mindspore

    import mindyolo_ext.backend  # noqa: F401

    cell = mindspore.nn.Dense(3, 2, has_bias=False)
    save_checkpoint(tmp_path / "x.ckpt", {"weight": PARAMETERS["conv.weight"]}, METADATA)
    loaded = mindspore.load_checkpoint(str(tmp_path / "x.ckpt"))
    missing, unused = mindspore.load_param_into_net(cell, loaded)
    assert (missing, unused) == ([], [METADATA_NAME])
    assert np.array_equal(cell.weight.asnumpy(), PARAMETERS["conv.weight"])


@pytest.mark.parametrize("step", ["_write", "_flush", "replace"])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, suffix, step):
    path = tmp_path / f"x{suffix}"
    save_checkpoint(path, PARAMETERS, METADATA)
    before = path.read_bytes()

    def fail(target, *_):
        if step == "_write":  # half a file, then the process ends
            with open(target, "wb") as stream:
                stream.write(before[:50])
        raise OSError("disk full")

    monkeypatch.setattr({"_write": store, "_flush": atomic, "replace": os}[step], step, fail)
    with pytest.raises(WriteError, match=rf"x\{suffix}: cannot be written \(disk full\)"):
        save_checkpoint(path, {"a": np.zeros(3)}, METADATA)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [f"x{suffix}"]


def test_a_disk_that_refuses(tmp_path, suffix):
    """The writers' own errors, not simulated ones."""
    path = tmp_path / f"x{suffix}"
    save_checkpoint(path, PARAMETERS, METADATA)
    before = path.read_bytes()
    ours, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
    try:
        with pytest.raises(WriteError, match="cannot be written.*File too large"):
            save_checkpoint(path, {"a": np.zeros(1_000_000)}, METADATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (ours, most))
        signal.signal(signal.SIGXFSZ, old)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [f"x{suffix}"]
    with pytest.raises(WriteError, match="cannot be written"):
        save_checkpoint(f"/dev/null/x{suffix}", PARAMETERS, METADATA)


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


def test_files_that_are_cut_off(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    save_checkpoint(path, PARAMETERS, METADATA)
    content = path.read_bytes()
    for length in [*range(0, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=rf"x\{suffix}"):
            load_checkpoint(path)


def test_every_flipped_bit_is_noticed(tmp_path, suffix):
    """Or it changes nothing, such as the case of a letter in an escape sequence."""
    path = tmp_path / f"x{suffix}"
    save_checkpoint(path, PARAMETERS, METADATA)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    unnoticed = 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        try:
            parameters, metadata = load_checkpoint(path)
        except CheckpointError as error:
            assert f"x{suffix}" in str(error)
            continue
        unnoticed += 1
        assert metadata == METADATA
        assert list(parameters) == list(PARAMETERS)
        for name, array in PARAMETERS.items():
            assert parameters[name].dtype == array.dtype, name
            assert np.array_equal(parameters[name], array), name
    assert unnoticed < 0.01 * len(content)


@pytest.mark.parametrize("changed", ["numbers", "metadata", "shape"])
def test_what_was_changed_after_sealing(tmp_path, changed):
    arrays = dict(PARAMETERS)
    text = seal(METADATA, arrays)
    if changed == "numbers":
        arrays["wide"] = arrays["wide"] + 1e-12
    elif changed == "shape":
        arrays["conv.weight"] = arrays["conv.weight"].reshape(3, 2)
    else:
        text = text.replace('"epoch": 7', '"epoch": 8')
    write_ckpt(tmp_path / "x.ckpt", {METADATA_NAME: as_numbers(text), **arrays})
    with pytest.raises(CheckpointError, match=r"x\.ckpt: is damaged: .*\(SHA-256 differs\)"):
        load_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_checkpoints_without_a_digest(tmp_path):
    """As older versions wrote them."""
    text = METADATA.to_json(count=len(PARAMETERS))
    write_ckpt(tmp_path / "x.ckpt", {METADATA_NAME: as_numbers(text), **PARAMETERS})
    parameters, metadata = load_checkpoint(tmp_path / "x.ckpt")
    assert metadata == METADATA
    assert list(parameters) == list(PARAMETERS)


def as_numbers(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


@pytest.mark.parametrize(
    ("path", "parameters", "message"),
    [
        ("x.pth", {}, "our checkpoints end in .ckpt or .safetensors"),
        ("x.ckpt", {"a": np.zeros((0, 3))}, r"'a' is \(0, 3\), wanted at least one number"),
        ("x.safetensors", {METADATA_NAME: np.zeros(1)}, "cannot be named '__metadata__'"),
        ("x.safetensors", {"a": np.zeros(1, np.complex64)}, "parameter 'a' is complex64"),
        ("x.ckpt", {METADATA_NAME: np.zeros(1)}, "cannot be named '__metadata__'"),
        ("x.ckpt", {"": np.zeros(1)}, "cannot be named ''"),
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
    write_ckpt(tmp_path / "x.ckpt", {"a": np.zeros(2, np.float32)})
    write_safetensors(tmp_path / "x.safetensors", {"a": np.zeros(2, np.float32)}, {})
    for name in ("x.ckpt", "x.safetensors"):
        with pytest.raises(
            CheckpointError, match="has no metadata, wanted a mindyolo_ext checkpoint"
        ):
            load_checkpoint(tmp_path / name)
    for name in ("y.ckpt", "y.pth"):
        with pytest.raises(FileNotFoundError, match="no such file"):
            load_checkpoint(tmp_path / name)
    (tmp_path / "x.pth").touch()
    with pytest.raises(CheckpointError, match=r"x\.pth: the file is empty"):
        load_checkpoint(tmp_path / "x.pth")


GOOD = {"model": "toy", "num_classes": 1, "count": 1, "format": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "its metadata is broken"),
        ("{}", "format 'None', this program reads 1"),
        ("{", "its metadata is broken"),
        ("[" * 100_000, "its metadata is broken .*nested too deeply"),
        ('{"a": ' * 100_000, "its metadata is broken .*nested too deeply"),
        ('{"format": 2}', "format '2', this program reads 1"),
        ('{"format": 1, "modell": 3}', "wanted .'architecture'"),
        ({"model": 5}, "model is '5', wanted a string"),
        ({"num_classes": 1.5}, "num_classes is '1.5', wanted an integer"),
        ({"num_classes": True}, "num_classes is 'True'"),
        ({"num_classes": -1}, "num_classes is '-1'"),
        ({"num_classes": 16_384}, "16384 classes, but 2 numbers in total"),
        ({"num_classes": 16_385}, "num_classes is '16385', wanted 0 to 16384"),
        ({"num_classes": 10**400}, "its metadata is broken"),
        ({"class_names": [1]}, "class_names is .*, wanted a list of strings"),
        ({"class_names": {"a": 1}}, "class_names is .*, wanted a list of strings"),
        ({"class_names": ["a", "b"]}, "2 class names for 1 classes"),
        ({"input_spec": None}, "input_spec is 'None', wanted a mapping"),
        ({"input_spec": {"size": 5}}, "input_spec"),
        ({"input_spec": {"size": ["a", "b"]}}, "its metadata is broken"),
        ({"input_spec": {"stride": 0}}, "input_spec"),
        ({"input_spec": {"border": "x"}}, "input_spec"),
        ({"input_spec": {"pad_value": "x"}}, r"input_spec\.pad_value is 'x'"),
        ({"input_spec": {"scale": True}}, r"input_spec\.scale is"),
        ({"input_spec": {"size": [1 << 20, 32]}}, "at most 16384 pixels a side"),
        ({"extra": {"num_batches_tracked": "x"}}, r"extra\.num_batches_tracked is 'x'"),
        ({"extra": {"assumed": 5}}, r"extra\.assumed is '5', wanted a list of strings"),
        ({"architecture": [1]}, "architecture is .*, wanted a mapping"),
        ({"epoch": "x"}, "epoch is 'x'"),
        ({"metrics": {"AP": "x"}}, "metrics is .*, wanted a mapping of numbers"),
        ({"source": 5}, "source is '5', wanted a mapping"),
        ({"extra": None}, "extra is 'None', wanted a mapping"),
        ({"extra": [1]}, "extra is .*, wanted a mapping"),
        ({"extra": {"part": 5}}, r"extra\.part is '5', wanted a mapping of strings"),
        ({"extra": {"thresholds": 5}}, r"extra\.thresholds is '5', wanted a mapping"),
        ({"extra": {"thresholds": {}}}, r"extra\.thresholds\.values is 'None', wanted 11 numbers"),
        ({"version": 5}, "version is '5', wanted a string"),
        ({"count": 5}, "holds 1 parameters, it should hold 5"),
        ({"count": "5"}, "it should hold 5"),
        ({"order": ["b"]}, "order names other parameters"),
        ({"order": 5}, "order names other parameters"),
        ({"sha256": 5}, "is damaged"),
        ({"model": "x\ud800"}, "its metadata is broken .*surrogates"),
    ],
)
def test_broken_metadata(tmp_path, text, message):
    text = text if isinstance(text, str) else json.dumps({**GOOD, **text})
    array = np.zeros(2, np.float32)
    write_ckpt(tmp_path / "x.ckpt", {METADATA_NAME: as_numbers(text), "a": array})
    write_safetensors(tmp_path / "x.safetensors", {"a": array}, {METADATA_KEY: text})
    for read in (load_checkpoint, read_checkpoint, describe):
        for name in ("x.ckpt", "x.safetensors"):
            with pytest.raises(CheckpointError, match=message) as caught:
                read(tmp_path / name)
            assert name in str(caught.value)
            assert len(str(caught.value)) < 1000


def test_texts_of_a_file_do_not_steer_a_terminal(tmp_path):
    metadata = CheckpointMetadata("toy", 2, ["\x1b[31mred\x1b]0;title\x07", "b\u202e"])
    save_checkpoint(tmp_path / "x.ckpt", PARAMETERS, metadata)
    shown = describe(tmp_path / "x.ckpt").table()
    assert r"\x1b[31mred\x1b]0;title\x07, b\u202e" in shown
    assert shown.replace("\n", "").isprintable()


@pytest.mark.needs_mindspore
def test_mindspore_reads_our_safetensors(tmp_path):
    import mindspore

    import mindyolo_ext.backend  # noqa: F401

    save_checkpoint(tmp_path / "x.safetensors", PARAMETERS, METADATA)
    loaded = mindspore.load_checkpoint(str(tmp_path / "x.safetensors"), format="safetensors")
    assert set(loaded) == set(PARAMETERS)
    for name, array in PARAMETERS.items():
        assert np.array_equal(loaded[name].asnumpy(), array), name


def test_class_names_must_fit():
    with pytest.raises(ValueError, match="1 class names for 2 classes"):
        CheckpointMetadata("toy", 2, ["cat"])

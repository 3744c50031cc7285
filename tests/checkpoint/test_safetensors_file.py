"""``.safetensors``: our files equal those of the library, and hostile files are refused."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.checkpoint import safetensors_file
from mindyolo_ext.checkpoint.inspect import describe
from mindyolo_ext.checkpoint.reader import read_checkpoint
from mindyolo_ext.checkpoint.safetensors_file import read_safetensors, write_safetensors
from mindyolo_ext.errors import CheckpointError

ARRAYS = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.scalar": np.array(0.5, np.float64),
    "half": np.ones(3, np.float16),
    "flag": np.array([True, False]),
    "step": np.array([12], np.int64),
    "größe": np.arange(5).astype(np.uint8),
    "none": np.zeros((0, 3), np.int8),
    "i16": np.arange(2, dtype=np.int16),
    "u16": np.arange(2, dtype=np.uint16),
    "u32": np.arange(2, dtype=np.uint32),
    "u64": np.array([2**63], np.uint64),
}


def item(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def written(path: Path, header: object, numbers: bytes = b"\0" * 8) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + numbers)
    return path


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


def test_against_the_library(tmp_path):
    from safetensors.numpy import load_file, save_file

    write_safetensors(tmp_path / "ours.safetensors", ARRAYS, {"note": "größe"})
    assert_same(load_file(tmp_path / "ours.safetensors"), ARRAYS)
    save_file(ARRAYS, tmp_path / "theirs.safetensors", {"note": "größe"})
    for name in ("ours.safetensors", "theirs.safetensors"):
        content = read_safetensors(tmp_path / name)
        assert_same(content.arrays, ARRAYS)
        assert content.metadata == {"note": "größe"}
        assert content.stored_dtypes == {key: str(array.dtype) for key, array in ARRAYS.items()}
        for array in content.arrays.values():
            array[...] = 0  # an array of its own


def test_arrays_in_other_orders(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write_safetensors(tmp_path / "x.safetensors", {"a": array}, {})
    assert np.array_equal(read_safetensors(tmp_path / "x.safetensors").arrays["a"], array)


@pytest.mark.needs_mindspore
def test_files_of_mindspore(tmp_path):
    import mindspore

    from mindyolo_ext.backend import Tensor

    items = [{"name": "a", "data": Tensor(ARRAYS["b.weight"])}]
    mindspore.save_checkpoint(items, str(tmp_path / "x.safetensors"), format="safetensors")
    assert_same(read_checkpoint(tmp_path / "x.safetensors").tensors, {"a": ARRAYS["b.weight"]})


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": item(shape=[3])}, r"'a' has 8 bytes, float32 \[3\] needs 12"),
        ({"a": item(shape=[1])}, "needs 4"),
        ({"a": item(shape=[1 << 62, 4])}, "needs"),
        ({"a": item(shape=[-2])}, "shape are not whole numbers >= 0"),
        ({"a": item(shape=[2.0])}, "shape are not whole numbers >= 0"),
        ({"a": item(shape=[True, 2])}, "shape are not whole numbers >= 0"),
        ({"a": item(shape="2")}, "shape are not whole numbers >= 0"),
        ({"a": item(shape=[1] * 33)}, "shape are not whole numbers >= 0"),
        ({"a": item(offsets=[0])}, "data_offsets are not two numbers"),
        ({"a": item(offsets=[0, 8, 16])}, "data_offsets are not whole numbers"),
        ({"a": item(offsets=[8, 0])}, "has -8 bytes"),
        ({"a": item(offsets=[8, 16])}, "lies outside the file"),
        ({"a": item(offsets=[1 << 70, (1 << 70) + 8])}, "not whole numbers >= 0 of 64 bits"),
        ({"a": item(), "b": item()}, "'b' begins at byte 0, wanted 8"),
        ({"a": item(shape=[1], offsets=[4, 8])}, "begins at byte 4, wanted 0"),
        ({"a": item(shape=[1], offsets=[0, 4])}, "4 bytes at the end belong to no tensor"),
        ({}, "8 bytes at the end belong to no tensor"),
        ({"a": item("F8_E4M3")}, "'a' is F8_E4M3, wanted one of F64"),
        ({"a": item(5)}, "'a' is 5, wanted one of F64"),
        ({"a": item(["F32"])}, "wanted one of F64"),
        ({"a": {**item(), "x": 1}}, "lacks its dtype, shape or data_offsets"),
        ({"a": [1]}, "lacks its dtype, shape or data_offsets"),
        ({"__metadata__": 5, "a": item()}, "__metadata__ is not a mapping of strings"),
        ({"__metadata__": {"a": 5}, "a": item()}, "__metadata__ is not a mapping of strings"),
        ({"__metadata__": None, "a": item()}, "__metadata__ is not a mapping of strings"),
        ({"__metadata__": {"a": "\ud800"}, "a": item()}, "surrogates"),
        ({"\ud800": item()}, "surrogates"),
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b'{"a":' * 100_000, "broken safetensors file"),
        (b'{"\xff": 1}', "broken safetensors file"),
        (b"{nonsense", "broken safetensors file"),
        (b'{"a":' + b"9" * 10_000 + b"}", "broken safetensors file"),
        ([1], "the header is a list, wanted a mapping"),
        ({"a": item("BOOL", [8])}, "booleans other than 0 and 1"),
    ],
)
def test_what_is_refused(tmp_path, header, message):
    path = written(tmp_path / "x.safetensors", header, b"\2" * 8)
    for read in (read_safetensors, *([read_checkpoint, describe] if header != [1] else [])):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(path)
        assert "x.safetensors" in str(caught.value)
        assert len(str(caught.value)) < 500


def test_limits(tmp_path, monkeypatch):
    path = written(tmp_path / "x.safetensors", {"a": item()})
    with pytest.raises(CheckpointError, match=r"the file has \d+ bytes, the limit is 20"):
        read_safetensors(path, max_bytes=20)
    monkeypatch.setattr(safetensors_file, "MAX_HEADER_BYTES", 10)
    with pytest.raises(CheckpointError, match=r"a header of \d+ bytes, wanted at most 10"):
        read_safetensors(path)
    path.write_bytes(b"\xff" * 7)
    with pytest.raises(CheckpointError, match="7 bytes are too few"):
        read_safetensors(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_safetensors(tmp_path / "y.safetensors")


@pytest.mark.parametrize("seed", range(3))
def test_random_damage(tmp_path, seed):
    """Truncated files and flipped bits give a CheckpointError or valid arrays."""
    write_safetensors(tmp_path / "x.safetensors", ARRAYS, {"note": "x"})
    whole = (tmp_path / "x.safetensors").read_bytes()
    random = np.random.default_rng(seed)
    for _ in range(400):
        content = bytearray(whole)
        place = int(random.integers(len(content)))
        if random.integers(3):
            content[place] ^= 1 << random.integers(8)
        else:
            del content[place:]
        path = tmp_path / "y.safetensors"
        path.write_bytes(content)
        for read in (read_safetensors, read_checkpoint):
            try:
                read(path)
            except CheckpointError as error:
                assert "y.safetensors" in str(error)

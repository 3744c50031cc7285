"""MindSpore's files without MindSpore: the same numbers in both directions, and hostile files."""

import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.checkpoint import ckpt_file
from mindyolo_ext.checkpoint.ckpt_file import read_ckpt, write_ckpt
from mindyolo_ext.checkpoint.protobuf import BYTES, bytes_field, bytes_head, fields, varint_field
from mindyolo_ext.checkpoint.reader import read_checkpoint
from mindyolo_ext.errors import CheckpointError

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "scalar": np.array(0.5, np.float32),
    "one": np.array([0.5], np.float64),
    "step": np.array(12, np.int64),
    "half": np.linspace(-1, 1, 5).astype(np.float16),
    "flag": np.array([[True], [False]]),
    "größe.i8": np.arange(-3, 3, dtype=np.int8),
    "i16": np.arange(4, dtype=np.int16),
    "i32": np.arange(4, dtype=np.int32),
    "u8": np.arange(300).astype(np.uint8),
    "u16": np.arange(4, dtype=np.uint16),
    "u32": np.arange(4, dtype=np.uint32),
    "u64": np.array([2**63], np.uint64),
}


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name
        found[name][...] = 0  # an array of its own


def entry(
    name: bytes = b"w",
    dims: tuple[int, ...] = (2,),
    kind: bytes = b"Float32",
    content: bytes = b"\0" * 8,
) -> bytes:
    """One parameter as the format has it; negative axes in two's complement."""
    axes = b"".join(varint_field(1, length % (1 << 64)) for length in dims)
    tensor = axes + bytes_field(2, kind) + bytes_field(3, content)
    return bytes_field(1, bytes_field(1, name) + bytes_field(2, tensor))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# ---- both directions -----------------------------------------------------------------------------


def test_round_trip(tmp_path):
    write_ckpt(tmp_path / "x.ckpt", ARRAYS)
    content = read_ckpt(tmp_path / "x.ckpt")
    assert content.stored_dtypes == {name: str(array.dtype) for name, array in ARRAYS.items()}
    assert content.texts == {}
    assert_same(content.arrays, ARRAYS)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.arange(12, dtype=np.int32)[::3],
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.broadcast_to(np.float32(3), (2, 2)),
    ],
)
def test_arrays_in_other_orders(tmp_path, array):
    write_ckpt(tmp_path / "x.ckpt", {"a": array})
    found = read_ckpt(tmp_path / "x.ckpt").arrays["a"]
    assert found.dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(found, array)


@pytest.mark.parametrize("crc_check", [False, True])
@pytest.mark.needs_mindspore
def test_files_of_mindspore(tmp_path, crc_check):
    import mindspore

    from mindyolo_ext.backend import Tensor

    items = [{"name": name, "data": Tensor(array)} for name, array in ARRAYS.items()]
    path = tmp_path / "x.ckpt"
    mindspore.save_checkpoint(
        items, str(path), append_dict={"epoch": 3, "note": "größe"}, crc_check=crc_check
    )
    content = read_ckpt(path)
    assert content.texts == {"note": "größe"}
    assert content.arrays.pop("epoch") == 3
    assert_same(content.arrays, ARRAYS)
    if crc_check:
        changed = bytearray(path.read_bytes())
        changed[changed.index(b"Float32") + 20] ^= 1
        damaged = written(tmp_path / "y.ckpt", bytes(changed))
        with pytest.raises(
            CheckpointError, match=r"y\.ckpt: .*its checksum is \d+, the file states"
        ):
            read_ckpt(damaged)


@pytest.mark.needs_mindspore
def test_mindspore_reads_our_files(tmp_path):
    import mindspore

    import mindyolo_ext.backend  # noqa: F401

    write_ckpt(tmp_path / "x.ckpt", ARRAYS)
    loaded = mindspore.load_checkpoint(str(tmp_path / "x.ckpt"))
    assert_same({name: value.asnumpy().copy() for name, value in loaded.items()}, ARRAYS)


@pytest.mark.needs_mindspore
def test_our_bytes_are_those_of_mindspore(tmp_path):
    import mindspore

    from mindyolo_ext.backend import Tensor

    items = [{"name": name, "data": Tensor(array)} for name, array in ARRAYS.items()]
    mindspore.save_checkpoint(items, str(tmp_path / "theirs.ckpt"))
    write_ckpt(tmp_path / "ours.ckpt", ARRAYS)
    assert (tmp_path / "ours.ckpt").read_bytes() == (tmp_path / "theirs.ckpt").read_bytes()


@pytest.mark.needs_mindspore
def test_large_parameters_in_slices(tmp_path, monkeypatch):
    """Both programs write slices, and each slice repeats all axes."""
    import mindspore
    from mindspore.train import serialization

    from mindyolo_ext.backend import Tensor

    arrays = {"big": np.arange(3000, dtype=np.float32).reshape(3, 1000), "small": np.ones(2)}
    monkeypatch.setattr(ckpt_file, "SLICE_BYTES", 5000)
    write_ckpt(tmp_path / "ours.ckpt", arrays)
    assert len(list(entries(tmp_path / "ours.ckpt"))) == 4
    loaded = mindspore.load_checkpoint(str(tmp_path / "ours.ckpt"))
    assert_same({name: value.asnumpy().copy() for name, value in loaded.items()}, arrays)
    assert_same(read_ckpt(tmp_path / "ours.ckpt").arrays, arrays)
    arrays["big"] = np.arange(3000, dtype=np.float32).reshape(3, 1000)
    arrays["small"] = np.ones(2)
    monkeypatch.setattr(serialization, "SLICE_SIZE", 5)  # in KB
    items = [{"name": name, "data": Tensor(array)} for name, array in arrays.items()]
    mindspore.save_checkpoint(items, str(tmp_path / "theirs.ckpt"))
    assert len(list(entries(tmp_path / "theirs.ckpt"))) > 2
    assert_same(read_ckpt(tmp_path / "theirs.ckpt").arrays, arrays)


def entries(path: Path):
    content = path.read_bytes()
    return fields(content, 0, len(content))


def test_bfloat16_is_widened(tmp_path):
    bits = struct.pack("<2H", 0x3FC0, 0xC000)
    path = written(tmp_path / "x.ckpt", entry(kind=b"BFloat16", content=bits))
    content = read_ckpt(path)
    assert content.stored_dtypes == {"w": "bfloat16"}
    assert_same(content.arrays, {"w": np.array([1.5, -2], np.float32)})
    scalar = entry(kind=b"BFloat16", dims=(), content=bits[:2])
    assert_same(read_ckpt(written(path, scalar)).arrays, {"w": np.array(1.5, np.float32)})


def test_axes_of_length_zero(tmp_path):
    """Some programs write a number without axes as one axis of length 0."""
    for dims, content, shape in (
        ((0,), b"\0" * 4, ()),
        ((), b"\0" * 4, ()),
        ((0,), b"", (0,)),
        ((3, 0), b"", (3, 0)),
    ):
        path = written(tmp_path / "x.ckpt", entry(dims=dims, content=content))
        assert read_ckpt(path).arrays["w"].shape == shape


# ---- hostile files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (entry(dims=(1,), content=b"A" * (1 << 20)), r"'w' holds 1048576 bytes, .* needs 4"),
        (entry(dims=(4,), content=b"A" * 64), r"holds 64 bytes, float32 \[4\] needs 16"),
        (entry(dims=(1 << 16,), content=b"B" * 4), r"holds 4 bytes, float32 \[65536\] needs"),
        (entry(dims=(64,), kind=b"Float64", content=b"C" * 256), r"holds 256 bytes, float64"),
        (entry(dims=(-1,), content=b"D" * 64), "an axis of length -1, wanted at least 0"),
        (entry(dims=(-1, -4), content=b"D" * 16), "an axis of length -1"),
        (entry(dims=(1 << 62, 4)), f"needs {1 << 66}"),
        (entry(dims=(1 << 32, 1 << 32)), "holds 8 bytes"),
        (entry(dims=(1,) * 33, content=b"\0" * 4), "more than 32 axes"),
        (entry(content=b"\0" * 7), "holds 7 bytes"),
        (entry(content=b""), "holds 0 bytes"),
        (entry(kind=b"Int4"), "element type 'Int4', known are Bool"),
        (entry(kind=b"float32"), "element type 'float32'"),
        (entry(kind=b"F" * 1000), "a text of 1000 bytes, at most 64"),
        (entry(kind=b"Bool", content=b"\2\1"), "booleans other than 0 and 1"),
        (entry(kind=b"str", content=b"abc"), "'w' is not text"),
        (entry(name=b"\xff"), "not UTF-8"),
        (entry(name=b"n" * 5000), "a text of 5000 bytes, at most 1000"),
        (entry() + entry(b"v") + entry(), "duplicate parameter 'w'"),
        (entry() + entry(dims=(1, 2)), "duplicate parameter 'w'"),
        (entry() + entry(), "holds 16 bytes"),
        (entry(kind=b"str", content=b"a\0\0\0") * 2, "duplicate parameter 'w'"),
        (b"", "the file is empty"),
        (b"\x0a\x00", "lacks its name or its numbers"),
        (bytes_field(2, b""), "field 2 of wire type 2 where a parameter should be"),
        (varint_field(1, 5), "field 1 of wire type 0 where a parameter should be"),
        (bytes_field(1, bytes_field(1, b"w")), "lacks its name or its numbers"),
        (
            bytes_field(1, bytes_field(1, b"w") * 2),
            "duplicate name",
        ),
        (
            bytes_field(1, bytes_field(1, b"w") + bytes_field(3, b"")),
            "field 3 of wire type 2 is unknown",
        ),
        (
            bytes_field(1, bytes_field(1, b"w") + bytes_field(2, bytes_field(2, b"Int8"))),
            "'w': no element type or no content",
        ),
        (bytes_field(1, bytes_field(1, b"w") + bytes_field(2, b"\x0d\0\0\0\0")), "wire type 5"),
        (bytes_field(1, bytes_field(1, b"w") + bytes_field(2, b"\x0b")), "unknown wire type"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "field 1 needs .* 0 are left"),
        (b"\x0a" + b"\xff" * 11, "more than 64 bits"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "more than 64 bits"),
        (b"\x0a\x80", "a number is truncated"),
        (b"\x02\x00", "field number 0"),
        (entry() + b"crc_num" + (5).to_bytes(10, "big"), "its checksum is .*, the file states 5"),
        (entry()[:-1], "needs"),
        (b"PK\x03\x04" + b"\0" * 60, "not a .ckpt file"),
    ],
)
def test_what_is_refused(tmp_path, content, message):
    path = written(tmp_path / "x.ckpt", content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_ckpt(path)
    assert "x.ckpt: " in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_sound_checksum(tmp_path):
    content = entry()
    crc = zlib.crc32(content).to_bytes(10, "big")
    path = written(tmp_path / "x.ckpt", content + b"crc_num" + crc)
    assert list(read_ckpt(path).arrays) == ["w"]


def test_limits(tmp_path):
    path = written(tmp_path / "x.ckpt", entry())
    with pytest.raises(CheckpointError, match=r"the file has \d+ bytes, the limit is 10"):
        read_ckpt(path, max_bytes=10)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_ckpt(tmp_path / "y.ckpt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_ckpt(tmp_path)


@pytest.mark.parametrize(
    "kind", ["many parameters", "many slices", "many axes", "a long name", "a hole"]
)
def test_no_file_takes_much_time_or_memory(tmp_path, kind):
    """The files are read in a process that may allocate 400 MB."""
    path = tmp_path / "x.ckpt"
    if kind == "many parameters":
        names = (b"%06d" % number for number in range(200_000))
        path.write_bytes(b"".join(entry(name) for name in names))
    elif kind == "many slices":
        path.write_bytes(entry(content=b"") * 300_000)
    elif kind == "many axes":
        path.write_bytes(entry(dims=(1,) * 1_000_000, content=b"\0" * 4))
    elif kind == "a long name":
        path.write_bytes(entry(name=b"n" * 200_000_000))
    else:  # a sparse file that declares 3 GB
        head = bytes_field(1, b"w")
        tensor = varint_field(1, 1 << 28) + bytes_field(2, b"Float64") + bytes_head(3, 3 << 30)
        inner = head + bytes_head(2, len(tensor) + (3 << 30)) + tensor
        with path.open("wb") as stream:
            stream.write(bytes_head(1, len(inner) + (3 << 30)) + inner)
            stream.truncate(stream.tell() + (3 << 30))
    program = (
        "import resource, sys\n"
        "from mindyolo_ext.checkpoint.ckpt_file import read_ckpt\n"
        "from mindyolo_ext.errors import CheckpointError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    read_ckpt(sys.argv[1])\nexcept CheckpointError as error:\n    print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - begin < 20
    message, grown = done.stdout.strip().splitlines()
    assert "x.ckpt: damaged" in message
    # the pages of a mapped file count too
    assert int(grown) < 400


@pytest.mark.parametrize("seed", range(3))
def test_random_damage(tmp_path, seed):
    """Truncated files, flipped bits and overwritten bytes give an error or valid arrays."""
    write_ckpt(tmp_path / "x.ckpt", ARRAYS)
    whole = (tmp_path / "x.ckpt").read_bytes()
    random = np.random.default_rng(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(content)))
            what = random.integers(4)
            if what == 0:
                content[place] ^= 1 << random.integers(8)
            elif what == 1:
                del content[place + 1 :]
            elif what == 2:
                content[place : place + 4] = random.bytes(4)
            else:
                del content[place : place + int(random.integers(1, 9))]
        path = written(tmp_path / "y.ckpt", bytes(content))
        for read in (read_ckpt, read_checkpoint):
            try:
                read(path)
            except CheckpointError as error:
                assert "y.ckpt" in str(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.needs_mindspore
def test_wire_format_against_the_library():
    """Protobuf parses what we write, for numbers of every length."""
    from mindspore.train.checkpoint_pb2 import Checkpoint

    dims = tuple(1 << shift for shift in range(0, 63, 3))
    message = Checkpoint()
    message.ParseFromString(entry(dims=dims))
    assert tuple(message.value[0].tensor.dims) == dims
    assert message.SerializeToString() == entry(dims=dims)
    ((number, wire_type, begin, end),) = fields(entry(), 0, len(entry()))
    assert (number, wire_type) == (1, BYTES)
    assert end == len(entry())
    assert begin == 2

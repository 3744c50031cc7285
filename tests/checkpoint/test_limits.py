"""Small files that demand a lot of memory or time: a stated limit refuses each one before it costs
much.
"""

import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.checkpoint import limits
from mindyolo_ext.checkpoint.ckpt_file import write_ckpt
from mindyolo_ext.checkpoint.metadata import CheckpointMetadata
from mindyolo_ext.checkpoint.store import METADATA_NAME

MOST_MB = 500
MOST_SECONDS = 4  # of processor time: twice the documented limit, for slow machines
READ = """
import json, resource, sys
from pathlib import Path
from mindyolo_ext.checkpoint.inspect import describe
from mindyolo_ext.errors import CheckpointError
def seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
def peak():
    return int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) // 1024
for name in sys.argv[1:]:
    memory, begin, told = peak(), seconds(), ''
    try:
        describe(name)
    except CheckpointError as error:
        told = str(error)
    print(json.dumps([told, peak() - memory, seconds() - begin]))
"""


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def storage(count: int, kind: str = "Float", key: str = "0") -> bytes:
    content = text("storage") + b"ctorch\n" + kind.encode() + b"Storage\n" + text(key)
    return b"(" + content + text("cpu") + number(count) + b"tQ"


def tensor(
    count: int, shape: tuple[int, ...], stride: tuple[int, ...], kind: str = "Float"
) -> bytes:
    sizes = (b"(" + b"".join(map(number, values)) + b"t" for values in (shape, stride))
    begin = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(count, kind) + number(0)
    return begin + b"".join(sizes) + b"\x89NtR"


ONE = tensor(1, (1,), (1,))


def pickled(content: bytes, stored: bytes = bytes(4)) -> Callable[[Path], None]:
    """Write a checkpoint with this description and one storage."""

    def write(path: Path) -> None:
        noise = os.urandom(len(content) // 150)  # keeps the compression ratio within its limit
        head = b"\x80\x04B" + struct.pack("<I", len(noise)) + noise + b"0"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as stream:
            stream.writestr("a/data.pkl", head + content)
            stream.writestr("a/data/0", stored)

    return write


def model(*items: bytes) -> bytes:
    """A dict with one tensor under ``model``, and further keys and values."""
    return b"}(" + text("model") + b"}" + text("w") + ONE + b"s" + b"".join(items) + b"u."


def many_entries(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as stream:
        for index in range(70_000):
            stream.writestr(f"a/data/{index}", b"")


def long_directory(path: Path) -> None:
    """An archive whose end record claims a directory of 200 MB."""
    with path.open("wb") as stream:
        stream.write(b"PK\x03\x04")
        stream.truncate(200 << 20)
        stream.seek(200 << 20)
        size = (200 << 20) - 8
        stream.write(b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 65535, 65535, size, 8, 0))


def nested(levels: int, leaf: bytes = b"}") -> bytes:
    for _ in range(levels):
        leaf = b"}" + text("a") + leaf + b"s"
    return leaf


def safetensors(header: dict | bytes, size: int = 4) -> Callable[[Path], None]:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()

    def write(path: Path) -> None:
        path.write_bytes(struct.pack("<Q", len(content)) + content + bytes(size))

    return write


def ours(**changes: object) -> Callable[[Path], None]:
    """A checkpoint of ours with this value in its metadata."""
    good = json.loads(CheckpointMetadata("yolo_fastestv2", 2).to_json(count=1))

    def write(path: Path) -> None:
        content = np.frombuffer(json.dumps({**good, **changes}).encode(), np.uint8)
        write_ckpt(path, {METADATA_NAME: content, "w": np.zeros(20_000, np.float32)})

    return write


def legacy(*pickles: bytes) -> Callable[[Path], None]:
    """A file in the format before 1.6."""
    magic = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    head = magic + b"\x80\x02M\xe9\x03.\x80\x02}."

    def write(path: Path) -> None:
        path.write_bytes(head + b"".join(pickles))

    return write


SHARED_DICT = b"}(" + b"".join(text(f"{i:x}") + b"N" for i in range(60_000)) + b"uq\x01"
UNDER_KEYS = b"".join(text(f"k{i}") + b"h\x01" for i in range(3000))
LONG = text("n" * 2000)
FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "opcodes": (pickled(b"(" + b"\x8f" * 3_000_000 + b"1}."), "takes more than 2,000,000 steps"),
    "objects": (
        pickled(b"cmodels\nNet\nq\x000(" + b"h\x00)\x81" * 700_000 + b"1}."),
        "takes more than 2,000,000 steps",
    ),
    "tensors built": (
        pickled(
            storage(1)
            + b"q\x000"
            + b"("
            + number(1) * 32
            + b"tq\x010"
            + b"ctorch._utils\n_rebuild_tensor_v2\nq\x020(h\x00K\x00h\x01h\x01\x89Ntq\x030("
            + b"h\x02h\x03R" * 600_000
            + b"1}."
        ),
        "takes more than 2,000,000 steps",
    ),
    "a long name of a class": (
        pickled(text("m" * 1_000_000) + b"q\x000(" + b"h\x00h\x00\x93" * 300_000 + b"1}."),
        "the name of a class has 2000000 characters",
    ),
    "a long tuple as key": (
        pickled(b"(" + b"K\x01" * 100_000 + b"tq\x000}(" + b"h\x00N" * 100_000 + b"u."),
        "is used as a key",
    ),
    "a long text": (pickled(text("a" * (20 << 20)) + b"0}."), "a text of 20971520 bytes"),
    "copies": (
        pickled(
            b"]("
            + b"K\x01" * 200_000
            + b"eq\x00cbuiltins\nlist\nq\x010]"
            + b"h\x01h\x00\x85Ra" * 1000
            + b"."
        ),
        "copies more than 2,000,000 items",
    ),
    "a large number": (
        pickled(b"\x8b" + struct.pack("<i", 1_000_000) + b"\x01" * 1_000_000 + b"0}."),
        "a whole number of 7999993 bits, the limit is 128",
    ),
    "a number of 200 bits": (
        pickled(model(b"\x8a\x19" + b"\x01" * 25, b"N")),
        "a whole number of 193 bits",
    ),
    "a size of 64 bits": (
        pickled(
            b"}"
            + text("w")
            + tensor(1, (1,), (1,)).replace(
                b"(" + number(1) + b"t", b"(\x8a\x09" + b"\xff" * 8 + b"\x00t"
            )
            + b"s."
        ),
        "whole numbers >= 0 of 64 bits",
    ),
    "fan-out": (
        pickled(
            SHARED_DICT + b"0}" + text("model") + b"}(" + text("w") + ONE + UNDER_KEYS + b"us."
        ),
        "more than 200000 parts",
    ),
    "fan-out beside the weights": (
        pickled(SHARED_DICT + b"0}(" + UNDER_KEYS + b"u."),
        "no weights among its entries",
    ),
    "nested dicts": (
        pickled(b"}" + text("model") + b"}(" + text("w") + ONE + text("x") + nested(150) + b"us."),
        "nested deeper than 100",
    ),
    "a long name of a tensor": (
        pickled(b"}(" + LONG + ONE + b"u."),
        "a tensor is named 'nnn.*2000 characters",
    ),
    "many tensors": (
        pickled(
            ONE + b"q\x000}(" + b"".join(text(str(i)) + b"h\x00" for i in range(20_001)) + b"u."
        ),
        "more than 20000 tensors",
    ),
    "repeated numbers": (
        pickled(
            b"}("
            + b"".join(text(str(i)) + tensor(1, (1 << 20,), (0,), "Double") for i in range(300))
            + b"u.",
            bytes(8),
        ),
        "to 2516582400 by repetition",
    ),
    "zip entries": (many_entries, "70000 entries, the limit is 65536"),
    "zip directory": (long_directory, "the directory of the zip archive has 209715192 bytes"),
    "shared tuples as a key": (
        pickled(
            b"("
            + text("x") * 10
            + b"tq\x01"
            + b"".join(
                b"(" + (b"h" + bytes([i])) * 10 + b"tq" + bytes([i + 1]) for i in range(1, 9)
            )
            + b"0" * 9
            + model(b"c__main__\nNet\n(h\x09tR", b"N")
        ),
        "",
    ),
    "legacy opcodes": (
        legacy(b"\x80\x02(" + b"N" * 3_000_000 + b"1}."),
        "takes more than 2,000,000 steps",
    ),
    "legacy line without end": (legacy(b"V" + b"a" * (80 << 20)), "the pickled part is"),
    "header": (safetensors(b'{"a":[' + b"[]," * 2_000_000 + b"[]]}"), "a header of 6000010 bytes"),
    "safetensors tensors": (
        safetensors(
            {str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_001)}
        ),
        "20001 tensors, the limit is 20000",
    ),
    "safetensors sizes": (
        safetensors({"w": {"dtype": "F32", "shape": [10**4000], "data_offsets": [0, 4]}}),
        "not whole numbers >= 0 of 64 bits",
    ),
    "safetensors overlap": (
        safetensors(
            {n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in ("v", "w")}
        ),
        "begins at byte 0, wanted 4",
    ),
    "safetensors duplicates": (
        safetensors(b"{" + b",".join(b'"%d":1' % i for i in range(300_000)) + b',"299999":1}'),
        "duplicate key '299999'",
    ),
    "safetensors name": (
        safetensors({"n" * 2000: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        "a name of 2000 characters",
    ),
    "classes": (ours(num_classes=20_000), "num_classes is '20000', wanted 0 to 16384"),
    "metadata": (ours(extra={"a": "x" * (5 << 20)}), "the limit is 4194304"),
    "metadata depth": (ours(extra=json.loads('{"a":' * 200 + "1" + "}" * 200)), "nested deeper"),
    "architecture": (ours(architecture={"anchors": [[1, 2]] * 2000}), "at most 1000 values"),
    "epoch": (ours(epoch=10**30), "epoch is .*, wanted less than"),
    "order of lists": (ours(order=[["w"]]), "order names other parameters"),
    "order of a number": (ours(order=5), "order names other parameters"),
    "no model": (ours(model=None), "model is 'None', wanted a string"),
    "no extra": (ours(extra=None), "extra is 'None', wanted a mapping"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, tuple[str, float, float]]:
    """What the reader says about each file (nothing if it accepts it), and the MB and seconds it
    costs.
    """
    folder = tmp_path_factory.mktemp("limits")
    paths = [str(folder / f"{number}.bin") for number in range(len(FILES))]
    for path, (write, _) in zip(paths, FILES.values(), strict=True):
        write(Path(path))
    done = subprocess.run(
        [sys.executable, "-c", READ, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(FILES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_a_file_beyond_a_limit_is_refused_and_costs_little(told, name):
    message, memory, seconds = told[name]
    wanted = FILES[name][1]
    assert re.search(wanted, message) if wanted else not message
    assert len(message) < 1000
    assert memory < MOST_MB
    assert seconds < MOST_SECONDS


def test_all_files_together_cost_little(told):
    assert sum(memory for _, memory, _ in told.values()) < MOST_MB


def test_every_limit_has_a_reason():
    """A comment after each constant gives its reason."""
    source = Path(limits.__file__).read_text().split("class Budget")[0]
    constants = [line for line in source.splitlines() if line[:1].isupper() and " = " in line]
    assert len(constants) > 25
    assert [line for line in constants if "#" not in line] == []

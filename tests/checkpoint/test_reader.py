"""The reader returns the numbers of ``torch.load``, which data/make_fixtures.py stores beside the
files.
"""

import hashlib
import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same

from mindyolo_ext.checkpoint.reader import file_sha256, read_checkpoint
from mindyolo_ext.checkpoint.torch_writer import write_torch_checkpoint
from mindyolo_ext.errors import CheckpointError

DATA = Path(__file__).parent / "data"
PUBLISHED = {  # file -> entry, tensors, element types in the file
    "weights/yolo_fastestv2/backbone.pth": ("", 330, {"float32": 275, "int64": 55}),
    "weights/yolo_fastestv2/coco2017-0.241078ap-model.pth": (
        "",
        444,
        {"float32": 371, "int64": 73},
    ),
    "weights/yolox/yolox_nano_0.0.1legacy_bnident.pth": (
        "model",
        642,
        {"float32": 538, "int64": 104},
    ),
    "weights/yolox/yolox_nano_0.1.1rc0_bnident.pth": ("model", 642, {"float32": 538, "int64": 104}),
    "weights/yolox/yolox_nano_1class.pth": ("", 642, {"float32": 538, "int64": 104}),
    "reference/yolox/official_format_yolox_nano.pt": ("model", 642, {"float32": 538, "int64": 104}),
    "reference/yolo_fastestv2/official_format_yolo_fastestv2.pth": (
        "",
        444,
        {"float32": 371, "int64": 73},
    ),
    "reference/simple_yolo/official_format_resnet18_025.pth": (
        "state_dict",
        215,
        {"float32": 180, "int64": 35},
    ),
    "reference/dynamicdet/official_format_dy_yolov7_w0125.pt": (
        "model",
        1146,
        {"float16": 962, "int64": 184},
    ),
    "reference/gold_yolo/official_format_gold_yolo_n.pt": (
        "model",
        935,
        {"float16": 778, "int64": 157},
    ),
}
DIGESTS = json.loads((DATA / "published_digests.json").read_text())


def expected(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


@pytest.mark.parametrize(
    ("file", "source_format"), [("zip.pth", "torch-zip"), ("legacy.pth", "torch-legacy")]
)
def test_element_types_views_and_shared_storages(file, source_format):
    checkpoint = read_checkpoint(DATA / file)
    assert checkpoint.source_format == source_format
    assert_same(checkpoint.tensors, expected("tensors"))
    assert checkpoint.stored_dtypes["bfloat16"] == checkpoint.stored_dtypes["float16"] == 1
    assert checkpoint.sha256 == file_sha256(DATA / file)
    assert not checkpoint.warnings
    checkpoint.tensors["plain"][:] = 0  # a copy of its own, though its storage is shared
    assert checkpoint.tensors["row"].any()


@pytest.mark.parametrize("file", ["modules.pt", "modules_legacy.pt"])
@pytest.mark.parametrize("prefer_ema", [True, False])
def test_whole_models_of_an_absent_package(file, prefer_ema):
    checkpoint = read_checkpoint(DATA / file, prefer_ema=prefer_ema)
    assert checkpoint.used_ema == prefer_ema
    assert checkpoint.entry == ("ema" if prefer_ema else "model")
    assert_same(checkpoint.tensors, expected("ema" if prefer_ema else "model"))
    assert "hidden" not in checkpoint.tensors  # a buffer that is not in state_dict
    assert checkpoint.class_names == ["cat", "dog"]
    assert checkpoint.epoch == 12
    assert checkpoint.extras["best"] == 0.5
    assert checkpoint.extras["curve"] == [[0, 1, 2], [3, 4, 5]]
    assert checkpoint.extras["args"] == {"lr": 0.1, "out": "runs/x"}
    assert checkpoint.extras["device"] == "cuda:0"
    assert checkpoint.extras["size"] == [3, 4]
    assert set(checkpoint.entries) >= {"model", "ema", "epoch"}


def test_prefix_of_parallel_training_is_removed():
    assert_same(read_checkpoint(DATA / "parallel.pth").tensors, expected("ema"))


def test_named_entry():
    assert not read_checkpoint(DATA / "modules.pt", entry="model").used_ema
    with pytest.raises(
        CheckpointError,
        match=r"modules\.pt: has no entry 'nets', its entries are model, ema, epoch",
    ):
        read_checkpoint(DATA / "modules.pt", entry="nets")


def test_big_endian_file(tmp_path):
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_torch_checkpoint(tmp_path / "little.pth", {"a": numbers, "b": np.array(258, np.int64)})
    with (
        zipfile.ZipFile(tmp_path / "little.pth") as old,
        zipfile.ZipFile(tmp_path / "big.pth", "w") as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if "/data/" in name:
                content = (
                    np.frombuffer(content, "<f4" if name.endswith("0") else "<i8")
                    .byteswap()
                    .tobytes()
                )
            new.writestr(name, b"big" if name.endswith("byteorder") else content)
    assert_same(
        read_checkpoint(tmp_path / "big.pth").tensors, {"a": numbers, "b": np.array(258, np.int64)}
    )


def test_values_that_are_not_finite_are_reported(tmp_path):
    write_torch_checkpoint(
        tmp_path / "x.pth",
        {
            "good": np.ones(3, np.float32),
            "bad": np.array([1, np.nan], np.float32),
            "worse": np.array(np.inf, np.float32),
        },
    )
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert checkpoint.warnings == ["2 tensors hold non-finite values: bad, worse"]
    assert np.isnan(checkpoint.tensors["bad"][1])


def test_tar_format_before_0_1_10(tmp_path):
    """Written by hand, following PyTorch's own reader of that format."""
    mark = b"X\x01\x00\x00\x00@"  # a string in place of the type's name
    storages = pickle.dumps(1, 2) + pickle.dumps((7, "cpu", "@"), 2).replace(
        mark, b"ctorch\nFloatStorage\n"
    )
    storages += (
        struct.pack("<q", 6) + np.arange(6, dtype="<f4").tobytes() + pickle.dumps([(8, 7, 2, 4)], 2)
    )
    tensors = pickle.dumps(2, 2)
    for key, storage, shape, stride, offset in ((1, 7, (2, 3), (3, 1), 0), (2, 8, (2,), (2,), 1)):
        entry = pickle.dumps((key, storage, "@"), 2).replace(mark, b"ctorch\nFloatTensor\n")
        tensors += entry + struct.pack("<i4x", len(shape))
        tensors += struct.pack(f"<{2 * len(shape) + 1}q", *shape, *stride, offset)
    root = b"\x80\x02}(X\x01\x00\x00\x00aX\x01\x00\x00\x001QX\x01\x00\x00\x00bX\x01\x00\x00\x002Qu."
    path = tmp_path / "old.pth"
    with tarfile.open(path, "w") as archive:
        for name, content in (
            ("sys_info", b""),
            ("storages", storages),
            ("tensors", tensors),
            ("pickle", root),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    checkpoint = read_checkpoint(path)
    assert checkpoint.source_format == "torch-legacy-tar"
    assert_same(
        checkpoint.tensors,
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([3, 5], np.float32)},
    )


def test_safetensors(tmp_path):
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "BF16", "shape": [], "data_offsets": [8, 10]},
        }
    ).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(
        struct.pack("<Q", len(header)) + header + np.array([1, 2], "<f4").tobytes() + b"\xc0\x3f"
    )
    checkpoint = read_checkpoint(path)
    assert checkpoint.source_format == "safetensors"
    assert_same(
        checkpoint.tensors, {"a": np.array([1, 2], np.float32), "b": np.array(1.5, np.float32)}
    )
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="lies outside the file"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_files(shared, name):
    path = shared / name
    if not path.exists():
        pytest.skip(f"no {path}")
    entry, count, dtypes = PUBLISHED[name]
    checkpoint = read_checkpoint(path)
    assert (checkpoint.source_format, checkpoint.entry, len(checkpoint.tensors)) == (
        "torch-zip",
        entry,
        count,
    )
    assert checkpoint.stored_dtypes == dtypes
    assert digest(checkpoint.tensors) == DIGESTS[name]


def digest(tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes, types and numbers in order, as data/make_digests.py computes it
    from ``torch.load``.
    """
    total = hashlib.sha256()
    for key, array in tensors.items():
        total.update(f"{key} {array.shape} {array.dtype}".encode() + array.tobytes())
    return total.hexdigest()

"""Every reader recognizes files of other programs and names the command to type."""

import gzip
import io
import shlex
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import DEFAULT_GOLDEN

from mindyolo_ext.checkpoint.convert import convert, export_torch
from mindyolo_ext.checkpoint.file_kinds import convert_command, sniff_format
from mindyolo_ext.checkpoint.inspect import describe
from mindyolo_ext.checkpoint.reader import read_checkpoint
from mindyolo_ext.checkpoint.safetensors_file import write_safetensors
from mindyolo_ext.checkpoint.store import load_checkpoint
from mindyolo_ext.checkpoint.torch_writer import write_torch_checkpoint
from mindyolo_ext.cli import main
from mindyolo_ext.errors import CheckpointError, ExistingFileError

OFFICIAL = DEFAULT_GOLDEN / "yolo_fastestv2" / "official_format_yolo_fastestv2.pth"


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """Weights of the original."""
    return read_checkpoint(OFFICIAL).tensors


def zip_of(*names: str) -> bytes:
    """An archive with small entries of these names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return stream.getvalue()


def tar_of(*names: str) -> bytes:
    """A tar archive with small files of these names."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"x"))
    return stream.getvalue()


OTHERS = {
    "nothing": (b"", "the file is empty"),
    "web page": (b"\xef\xbb\xbf<!DOCTYPE html>", "is a web page"),
    "commented page": (b"<!-- saved --><html>", "is a web page"),
    "xml": (b"<?xml version='1.0'?><Error>", "is an XML file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "run git lfs pull"),
    "gzip": (gzip.compress(b"x"), r"is a gzip file.*gunzip -c \S+ > \S+x_unpacked\.\w+"),
    "bzip2": (b"BZh91AY&SY", "is a bzip2 file"),
    "xz": (b"\xfd7zXZ\0\0\4", "is an xz file"),
    "zstd": (b"\x28\xb5\x2f\xfd\x00", "is a Zstandard file"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "is a 7-Zip archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n\0\0", "is an HDF5 file"),
    "npy": (b"\x93NUMPY\1\0v\0", "is a NumPy array"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x05", "is an ONNX file"),
    "mindir": (b"\x0a\x050.3.0\x12\x09MindSpore", "is a MindIR file"),
    "tflite": (b"\x20\0\0\0TFL3\0\0", "is a TensorFlow Lite file"),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "is a JPEG image"),
    "zeros": (bytes(4096), "download or copy is incomplete"),
    "message": (b"Entry not found", "is text that begins with 'Entry not found'"),
    "json": (b'{"weight_map": {}}', "is JSON that begins with"),
    "old pickle": (b"(dp0\nS'a'\np1\nI1\ns.", "is a pickle of protocol 0"),
    "npz": (zip_of("arr_0.npy", "arr_1.npy"), r"is a NumPy archive \(.npz\) of 2 arrays"),
    "pt2": (zip_of("m/archive_format", "m/models/model.json"), "is a program of torch.export"),
    "older pt2": (zip_of("serialized_exported_program.json"), "is a program of torch.export"),
    "torchscript": (zip_of("m/data.pkl", "m/constants.pkl"), "is a TorchScript program"),
    "zip around": (zip_of("runs/best.pt"), r"is a zip archive around runs/best\.pt.*unzip"),
    "cut torch.save": (zip_of("m/version", "m/byteorder"), "torch.save did not finish"),
    "tar around": (tar_of("runs/best.pth"), r"is a tar archive around runs/best\.pth.*tar -xf"),
    "tar named like a picture": (tar_of("BM.pth"), r"is a tar archive around BM\.pth"),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
def test_what_is_no_checkpoint_is_named(tmp_path, name, suffix):
    content, message = OTHERS[name]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    readers = [load_checkpoint, read_checkpoint, lambda p: convert(p, tmp_path / "y.ckpt")]
    if name not in ("onnx", "mindir"):  # ``info`` describes these
        readers.append(describe)
    for read in readers:
        with pytest.raises(CheckpointError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_the_command_that_unpacks_works(tmp_path):
    path = tmp_path / "best.pth"
    path.write_bytes(gzip.compress(OFFICIAL.read_bytes()))
    with pytest.raises(CheckpointError, match="unpack it first: ") as caught:
        load_checkpoint(path)
    subprocess.run(str(caught.value).partition("unpack it first: ")[2], shell=True, check=True)
    assert (tmp_path / "best_unpacked.pth").read_bytes() == OFFICIAL.read_bytes()


def test_a_header_of_safetensors_may_begin_like_anything(tmp_path):
    """The first bytes are the length of the header: 19,778 reads as BM, 35,615 is the magic number
    of gzip.
    """
    for length in (19_778, 35_615):
        header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
        path = tmp_path / "x.safetensors"
        path.write_bytes(struct.pack("<Q", length) + header + bytes(4))
        assert sniff_format(path) == "safetensors"
        assert read_checkpoint(path).tensors["a"].tolist() == [0]


@pytest.mark.parametrize("name", ["best.pth", "my best.ckpt", "x.safetensors"])
def test_the_command_to_type_works(tmp_path, state, name):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        write_safetensors(path, state, {})
    else:
        write_torch_checkpoint(path, state)
    with pytest.raises(CheckpointError, match="convert it first: mindyolo-ext convert") as caught:
        load_checkpoint(path)
    command = str(caught.value).partition("convert it first: ")[2]
    assert command == convert_command(path)
    before = path.read_bytes()
    assert main(shlex.split(command)[1:]) == 0
    assert path.read_bytes() == before
    assert load_checkpoint(shlex.split(command)[-1])[1].model == "yolo_fastestv2"
    assert describe(OFFICIAL).convert == convert_command(OFFICIAL)


def test_a_checkpoint_of_ours_is_known_by_its_content(tmp_path):
    convert(OFFICIAL, tmp_path / "x.ckpt")
    (tmp_path / "x.ckpt").rename(tmp_path / "x.pth")
    assert load_checkpoint(tmp_path / "x.pth")[1].model == "yolo_fastestv2"


def linked(path: Path, how: str) -> Path:
    """A second name for the file ``path``."""
    other = path.parent / "sub" / ".." / path.name
    (path.parent / "sub").mkdir()
    if how == "symbolic link":
        other = path.parent / "sub" / "link.ckpt"
        other.symlink_to(path)
    elif how == "hard link":
        other = path.parent / "sub" / "hard.ckpt"
        other.hardlink_to(path)
    return other


@pytest.mark.parametrize("how", ["same name", "symbolic link", "hard link"])
@pytest.mark.parametrize("what", ["target", "report"])
def test_the_source_is_never_written_over(tmp_path, state, how, what):
    source = tmp_path / "a.ckpt"
    write_torch_checkpoint(source, state)
    before = source.read_bytes()
    other = linked(source, how)
    for one, two in ((source, other), (other, source)):
        target = two if what == "target" else tmp_path / "b.ckpt"
        with pytest.raises(ExistingFileError, match="would overwrite .* which is read"):
            convert(one, target, report=two if what == "report" else None)
    assert source.read_bytes() == before
    assert not (tmp_path / "b.ckpt").exists()


def test_other_files_that_are_read_and_two_outputs(tmp_path, state):
    write_torch_checkpoint(tmp_path / "a.pth", state)
    names = tmp_path / "names.ckpt"
    names.write_text("a\n")
    with pytest.raises(ExistingFileError, match=r"would overwrite .*names\.ckpt"):
        convert(tmp_path / "a.pth", names, names=names)
    with pytest.raises(ExistingFileError, match="is both target and --report"):
        convert(tmp_path / "a.pth", tmp_path / "b.ckpt", report=tmp_path / "." / "b.ckpt")
    convert(tmp_path / "a.pth", tmp_path / "b.ckpt")
    (tmp_path / "back.pth").symlink_to(tmp_path / "b.ckpt")
    with pytest.raises(ExistingFileError, match="would overwrite"):
        export_torch(tmp_path / "b.ckpt", tmp_path / "back.pth")
    (tmp_path / "b.safetensors").symlink_to(tmp_path / "b.ckpt")
    with pytest.raises(ExistingFileError, match="would overwrite"):
        convert(tmp_path / "b.ckpt", tmp_path / "b.safetensors")


def test_options_that_mean_nothing_on_the_way_back(tmp_path, capsys):
    convert(OFFICIAL, tmp_path / "x.ckpt")
    arguments = ["convert", str(tmp_path / "x.ckpt"), str(tmp_path / "x.pth")]
    assert main([*arguments, "--names", "coco.names", "--no_ema"]) == 1
    assert "does not take --names, --no_ema" in capsys.readouterr().out
    assert main([*arguments, "--report", str(tmp_path / "r.json")]) == 0
    assert (tmp_path / "r.json").is_file()


def wrapped(state: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The weights as a wrapper names them."""
    return {prefix + name: array for name, array in state.items()}


@pytest.mark.parametrize(
    ("prefix", "beside", "prefix_found"),
    [
        ("model.", {}, "model."),
        ("module.", {"n_averaged": np.array(5)}, "module."),
        ("net.", {}, "net."),
        ("model._orig_mod.module.", {}, "model.module."),
        ("whatever.it.is.", {}, "whatever.it.is."),
        ("model.", {"loss.weight": np.ones(80, np.float32)}, "model."),
        ("ema_model.module.", {"step": np.array(3), "initted": np.array(1)}, "ema_model.module."),
        ("_orig_mod.module.model.", {}, "model."),
    ],
)
def test_wrappers_come_off(tmp_path, state, prefix, beside, prefix_found):
    write_torch_checkpoint(tmp_path / "x.pth", {**wrapped(state, prefix), **beside})
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt")
    assert (report.model, len(report.mapped)) == ("yolo_fastestv2", 371)
    assert report.prefix == prefix_found
    assert set(beside) <= set(report.ignored)
    assert report.used_ema == (prefix.startswith("ema") or "n_averaged" in beside)
    info = describe(tmp_path / "x.pth")
    assert (info.model, info.prefix, info.used_ema) == (
        report.model,
        report.prefix,
        report.used_ema,
    )


@pytest.mark.parametrize("inner", [False, True])
def test_raw_and_averaged_weights_side_by_side(tmp_path, state, inner):
    weights = {
        **wrapped(state, "model."),
        **wrapped({name: array + 1 for name, array in state.items()}, "ema_model."),
    }
    write_torch_checkpoint(tmp_path / "x.pth", weights, wrap="state_dict" if inner else "")
    for prefer_ema, prefix in ((True, "ema_model."), (False, "model.")):
        report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt", prefer_ema=prefer_ema)
        assert (report.prefix, report.used_ema) == (prefix, prefer_ema)
        assert len(report.mapped) == 371


def test_two_networks_in_one_file(tmp_path, state):
    weights = {**wrapped(state, "student."), **wrapped(state, "teacher.")}
    write_torch_checkpoint(tmp_path / "x.pth", weights)
    with pytest.raises(
        CheckpointError, match="several networks, under student, teacher; .*--entry"
    ):
        convert(tmp_path / "x.pth", tmp_path / "x.ckpt")
    assert "holds several networks, under" in describe(tmp_path / "x.pth").warnings[0]
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt", entry="teacher")
    assert (report.entry, len(report.mapped)) == ("teacher", 371)


def test_a_prefix_that_is_not_known_is_named(tmp_path, state):
    weights = {**wrapped(state, "mine."), **wrapped(state, "other.x.")}
    weights = {**weights, "other.x.output_cls_layers.weight": np.ones((1, 2))}
    write_torch_checkpoint(tmp_path / "x.pth", weights)
    with pytest.raises(CheckpointError, match=r"after mine\. are known: .*--entry mine"):
        convert(tmp_path / "x.pth", tmp_path / "x.ckpt")
    assert convert(tmp_path / "x.pth", tmp_path / "x.ckpt", entry="mine").model == "yolo_fastestv2"
    with pytest.raises(CheckpointError, match=r"no entry 'yours'.*begin with mine, other"):
        convert(tmp_path / "x.pth", tmp_path / "x.ckpt", entry="yours")
    write_torch_checkpoint(tmp_path / "x.pth", {"a.b": np.ones(2), "c.d": np.ones(2)})
    with pytest.raises(CheckpointError, match=r"names begin with a\. \(1\), c\. \(1\)"):
        convert(tmp_path / "x.pth", tmp_path / "x.ckpt")


def folded(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The network as PyTorch's ``fuse_conv_bn`` leaves it: batch norms in the convolutions."""
    result = {}
    for name, array in state.items():
        layer, _, place = name.removesuffix(".weight").rpartition(".")
        norm = f"{layer}.{int(place) + 1}" if place.isdecimal() else ""
        if name.endswith(".weight") and array.ndim == 4 and f"{norm}.running_var" in state:
            scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + 1e-5)
            shift = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
            result[name] = (array * scale[:, None, None, None]).astype(np.float32)
            result[name.removesuffix("weight") + "bias"] = shift.astype(np.float32)
        elif name.startswith("output_"):
            result[name] = array
    return result


def test_folded_norms_are_taken_apart(tmp_path, state):
    weights = folded(state)
    write_torch_checkpoint(tmp_path / "x.pth", weights)
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt")
    assert report.warnings[0].startswith("deployed weights: 73 folded layers")
    assert set(report.mapped) == set(weights)
    assert describe(tmp_path / "x.pth").warnings == report.warnings
    parameters, _ = load_checkpoint(tmp_path / "x.ckpt")
    bias = weights["backbone.first_conv.0.bias"]
    np.testing.assert_array_equal(parameters["backbone.first_conv.1.beta"], bias)
    np.testing.assert_array_equal(parameters["backbone.first_conv.1.gamma"], np.ones_like(bias))
    np.testing.assert_allclose(
        parameters["backbone.first_conv.1.moving_variance"] + np.float32(1e-5), 1, rtol=1e-7
    )


def test_some_folded_layers_and_some_not(tmp_path, state):
    part = folded({n: a for n, a in state.items() if n.startswith("backbone.first_conv")})
    rest = {n: a for n, a in state.items() if not n.startswith("backbone.first_conv")}
    write_torch_checkpoint(tmp_path / "x.pth", {**part, **rest})
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt")
    assert report.warnings[0].startswith("deployed weights: 1 folded layers")


@pytest.mark.parametrize("which", ["", "backbone.stage2"])
def test_missing_statistics_are_named(tmp_path, state, which):
    weights = {
        name: array
        for name, array in state.items()
        if not name.startswith(which) or ("running_" not in name and "num_batches" not in name)
    }
    write_torch_checkpoint(tmp_path / "x.pth", weights)
    with pytest.raises(
        CheckpointError, match=r"batch norms have no running statistics.*state_dict"
    ):
        convert(tmp_path / "x.pth", tmp_path / "x.ckpt")
    (warning,) = describe(tmp_path / "x.pth").warnings
    assert "cannot convert it" in warning
    assert "no running statistics" in warning


def test_what_the_file_does_not_tell_is_recorded(tmp_path, state):
    custom = {
        **state,
        "output_cls_layers.weight": state["output_cls_layers.weight"][:1],
        "output_cls_layers.bias": state["output_cls_layers.bias"][:1],
    }
    write_torch_checkpoint(tmp_path / "x.pth", custom)
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt")
    assert "took COCO's anchors and an input of 352x352" in report.warnings[0]
    assert load_checkpoint(tmp_path / "x.ckpt")[1].extra["assumed"] == report.warnings
    assert report.warnings[0] in describe(tmp_path / "x.ckpt").warnings
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt", anchors=list(range(1, 13)))
    assert "took an input of 352x352" in report.warnings[0]
    data = tmp_path / "x.data"
    data.write_text("anchors=1,2,3,4,5,6,7,8,9,10,11,12\nwidth=320\nheight=320\nclasses=1\n")
    report = convert(tmp_path / "x.pth", tmp_path / "x.ckpt", data=data)
    assert report.warnings == []
    assert "assumed" not in load_checkpoint(tmp_path / "x.ckpt")[1].extra
    report = convert(OFFICIAL, tmp_path / "x.ckpt")
    assert report.warnings == []

"""Which runtime runs which file."""

from pathlib import Path

import pytest

from mindyolo_ext.errors import UsageError
from mindyolo_ext.runtimes.names import EXPORTED, RUNTIMES, is_exported, runtime_of


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("a.onnx", "onnxruntime"),
        ("A.ONNX", "onnxruntime"),
        ("a.xml", "openvino"),
        ("a.ncnn.param", "ncnn"),
        ("a.mindir", "mindir"),
        ("a.engine", "tensorrt"),
        ("a.ckpt", None),
        ("a.safetensors", None),
    ],
)
def test_the_suffix_tells_the_runtime(name: str, runtime: str | None):
    assert runtime_of(Path(name)) == runtime
    assert is_exported(Path(name)) == (runtime is not None)


def test_a_checkpoint_runs_in_every_runtime_and_a_file_where_it_can():
    assert [runtime_of(Path("a.ckpt"), name) for name in RUNTIMES] == list(RUNTIMES)
    assert runtime_of(Path("a.onnx"), "openvino") == "openvino"
    for name, facts in EXPORTED.items():
        assert runtime_of(Path(f"a{facts.suffixes[0]}"), name) == name


@pytest.mark.parametrize(
    ("name", "asked", "wanted"),
    [
        ("a.onnx", "torch", "torch runs a checkpoint, not .onnx files"),
        ("a.onnx", "ncnn", "for these use --runtime onnxruntime or openvino"),
        ("a.mindir", "onnxruntime", "onnxruntime runs .onnx, not .mindir files"),
        ("a.ckpt", "openvin", "no such runtime, did you mean openvino"),
    ],
)
def test_a_runtime_that_does_not_fit_is_refused(name: str, asked: str, wanted: str):
    with pytest.raises(UsageError, match=wanted):
        runtime_of(Path(name), asked)

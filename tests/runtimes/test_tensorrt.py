"""TensorRT's builder by its arguments, and its runner with stand-ins for the packages."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from drawn_onnx import SIZE, draw_onnx, texts
from launching import ROOT, environment

from mindyolo_ext.errors import CheckpointError, DeviceError, MissingPackageError, UsageError
from mindyolo_ext.runtimes.file import read_exported
from mindyolo_ext.runtimes.load import open_predictor

PROGRAM = ROOT / "deploy" / "build_tensorrt.py"


def build(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, PROGRAM, *map(str, words)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_builder_names_every_shape(tmp_path: Path):
    free = draw_onnx(tmp_path / "free.onnx", texts(batch_size="any"), batch="B")
    done = build(free, "--half", "--batch", 1, 4, 16, "--dry_run")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[:3] == ["trtexec", f"--onnx={free}", f"--saveEngine={tmp_path / 'free.engine'}"]
    assert words[-4:] == [
        "--fp16",
        "--minShapes=images:1x3x32x64",
        "--optShapes=images:4x3x32x64",
        "--maxShapes=images:16x3x32x64",
    ]
    fixed = draw_onnx(tmp_path / "fixed.onnx", texts())
    assert "Shapes" not in build(fixed, "--dry_run").stdout


def test_the_builder_refuses_what_cannot_be_built(tmp_path: Path):
    fixed = draw_onnx(tmp_path / "fixed.onnx", texts())
    free = draw_onnx(tmp_path / "free.onnx", texts(batch_size="any"), batch="B")
    whole = draw_onnx(tmp_path / "whole.onnx", texts(preprocess="inside"))
    for words, wanted in (
        ((fixed, "--batch", 1, 2, 4), "takes batches of 1 alone; export it with --dynamic_batch"),
        ((free, "--batch", 4, 2, 1), "wanted least <= usual <= most"),
        ((whole,), "was exported with --with_preprocess"),
        ((tmp_path / "none.onnx",), "no such file"),
        ((fixed, "--trtexec", "no-such-program"), "it comes with TensorRT"),
    ):
        done = build(*words)
        assert done.returncode == 1 and wanted in done.stderr and "Traceback" not in done.stderr


def test_the_builder_writes_the_metadata_beside_the_engine(tmp_path: Path):
    fixed = draw_onnx(tmp_path / "fixed.onnx", texts())
    program = tmp_path / "trtexec"
    program.write_text(f"#!/bin/sh\nprintf engine > {tmp_path / 'fixed.engine'}\n")
    program.chmod(0o755)
    done = build(fixed, "--trtexec", program)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "fixed.json").read_text()) == texts()
    assert read_exported(tmp_path / "fixed.engine").metadata.model == "yolox_nano"


class Memory:
    """CUDA's calls on host memory."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self) -> None:
        self.blocks: dict[int, np.ndarray] = {}

    def cudaStreamCreate(self) -> tuple:
        return 0, 7

    def cudaStreamSynchronize(self, stream: int) -> tuple:
        return (int(stream != 7),)

    def cudaMalloc(self, size: int) -> tuple:
        block = np.zeros(size, np.uint8)
        self.blocks[block.ctypes.data] = block
        return 0, block.ctypes.data

    def cudaFree(self, place: int) -> tuple:
        del self.blocks[place]
        return (0,)

    def cudaMemcpy(self, target: int, source: int, size: int, kind: int) -> tuple:  # noqa: ARG002
        import ctypes

        ctypes.memmove(target, source, size)
        return (0,)


class Engine:
    """One network with an input and two outputs, whose boxes are the mean of each image."""

    names = ("images", "boxes", "scores")
    num_io_tensors = 3

    def __init__(self, memory: Memory):
        self.memory, self.addresses, self.batch = memory, {}, 0

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> str:  # noqa: ARG002
        return "float"

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "images" else "out"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = self.batch or -1
        return {"images": (batch, 3, *SIZE), "boxes": (batch, 2, 4), "scores": (batch, 2, 2)}[name]

    def create_execution_context(self) -> "Engine":
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        assert name == "images"
        self.batch = shape[0]

    def set_tensor_address(self, name: str, place: int) -> None:
        self.addresses[name] = place

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        images = self.memory.blocks[self.addresses["images"]].view(np.float32)
        means = images.reshape(self.batch, -1).mean(1)
        for name, width in (("boxes", 8), ("scores", 4)):
            self.memory.blocks[self.addresses[name]].view(np.float32)[:] = means.repeat(width)
        return True


class Logger:
    """TensorRT's logger."""

    ERROR = 1

    def __init__(self, level: int):
        self.level = level


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    tensorrt = ModuleType("tensorrt")
    tensorrt.Logger = Logger
    tensorrt.Runtime = lambda _: SimpleNamespace(
        deserialize_cuda_engine=lambda content: Engine(memory) if content == b"engine" else None
    )
    tensorrt.nptype = lambda _: np.float32
    tensorrt.TensorIOMode = SimpleNamespace(INPUT="in")
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = memory
    for name, module in (
        ("tensorrt", tensorrt),
        ("cuda", ModuleType("cuda")),
        ("cuda.bindings", bindings),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    return memory


def engine_file(folder: Path, content: bytes = b"engine") -> Path:
    path = folder / "a.engine"
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps(texts(batch_size="any")))
    return path


def test_the_runner_moves_arrays_there_and_back(packages: Memory, tmp_path: Path):
    predictor = open_predictor(read_exported(engine_file(tmp_path)), "tensorrt", device="GPU")
    images = np.random.RandomState(0).randint(0, 256, (3, *SIZE, 3)).astype(np.uint8)
    boxes, scores = predictor(images)
    means = (images / 255).mean((1, 2, 3))
    np.testing.assert_allclose(boxes, means[:, None, None].repeat(2, 1).repeat(4, 2), rtol=1e-5)
    assert scores.shape == (3, 2, 2)
    assert packages.blocks == {}  # all device memory is freed


def test_what_the_runner_cannot_use_is_refused(
    packages: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = read_exported(engine_file(tmp_path, b"other"))
    with pytest.raises(
        CheckpointError, match="a.engine: TensorRT cannot load it .built for another"
    ):
        open_predictor(file, "tensorrt")
    with pytest.raises(DeviceError, match="only on NVIDIA GPUs"):
        open_predictor(file, "tensorrt", device="Ascend")
    monkeypatch.setattr(packages, "cudaStreamCreate", lambda: (2, None))
    with pytest.raises(DeviceError, match="CUDA returned 2"):
        open_predictor(file, "tensorrt")
    own = texts(outputs="tensorrt")
    with pytest.raises(UsageError, match="holds TensorRT's NMS, for your own programs"):
        open_predictor(read_exported(draw_onnx(tmp_path / "b.onnx", own)), "onnxruntime")


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="it is installed")
def test_a_missing_tensorrt_is_named(tmp_path: Path):
    with pytest.raises(MissingPackageError, match="`pip install tensorrt cuda-python`"):
        open_predictor(read_exported(engine_file(tmp_path)), "tensorrt")

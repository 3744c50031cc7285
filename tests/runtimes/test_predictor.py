"""Exported files as predictors, in every installed runtime."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_onnx import SIZE, SPEC, draw_onnx, texts
from launching import environment

from mindyolo_ext.contracts import Predictor
from mindyolo_ext.errors import CheckpointError, DeviceError, MissingPackageError, UsageError
from mindyolo_ext.runtimes import on_openvino
from mindyolo_ext.runtimes.file import read_exported
from mindyolo_ext.runtimes.load import open_predictor, with_size
from mindyolo_ext.runtimes.predictor import spread

RUNTIMES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(name) is None, reason=f"{name} is not installed"
        ),
    )
    for name in ("onnxruntime", "openvino")
]


def opened(path: Path, runtime: str = "onnxruntime", **options: object) -> Predictor:
    return open_predictor(read_exported(path), runtime, **options)


FIRST_IN_FIRST_OUT = """
import faulthandler, gc, signal, sys
from pathlib import Path
from mindyolo_ext.runtimes.on_openvino import OpenVinoSession

signal.signal(signal.SIGTERM, lambda *_: print("handled"))
faulthandler.enable()
sessions = [OpenVinoSession(Path(sys.argv[1])) for _ in range(3)]
while sessions:
    del sessions[0]
    gc.collect()
faulthandler.disable()
signal.raise_signal(signal.SIGTERM)
"""


def photos(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (count, *size, 3)).astype(np.uint8)


def wanted(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of the drawn network, see ``draw_onnx``."""
    means = (images / np.float32(255)).mean((1, 2, 3)).reshape(-1, 1, 1)
    boxes = np.arange(1, 9, dtype=np.float32).reshape(1, 2, 4)
    return means * boxes, means * np.linspace(0.2, 0.9, 4, dtype=np.float32).reshape(1, 2, 2)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("batch", "text"), [(1, "1"), (3, "3"), ("B", "any")])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_any_batch_goes_through_any_file(
    tmp_path: Path, runtime: str, batch: int | str, text: str, count: int
):
    path = draw_onnx(tmp_path / "a.onnx", texts(batch_size=text), batch=batch)
    predictor, images = opened(path, runtime), photos(count)
    for found in (predictor(images), predictor(np.stack([SPEC.to_tensor(i) for i in images]))):
        for array, expected in zip(found, wanted(images), strict=True):
            assert array.dtype == np.float32 and array.shape == expected.shape
            np.testing.assert_allclose(array, expected, rtol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_free_size_follows_the_images(tmp_path: Path, runtime: str):
    path = draw_onnx(tmp_path / "a.onnx", texts(), size=("H", "W"))
    spec = with_size(read_exported(path), (96, 32))
    images = photos(1, (96, 32))
    boxes, _ = opened(path, runtime, input_spec=spec)(images)
    np.testing.assert_allclose(boxes, wanted(images)[0], rtol=1e-4)


def test_another_size_than_the_files_is_refused_at_once(tmp_path: Path):
    path = draw_onnx(tmp_path / "a.onnx", texts())
    with pytest.raises(UsageError, match="takes only images of 32x64 pixels, got 64x64; use --img"):
        opened(path, input_spec=replace(SPEC, size=(64, 64)))
    with pytest.raises(UsageError, match="multiples of 32"):
        with_size(read_exported(path), (33, 64))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_metadata_that_does_not_fit_the_network_is_refused(tmp_path: Path, runtime: str):
    names = '["a", "b", "c"]'
    path = draw_onnx(tmp_path / "a.onnx", texts(num_classes="3", class_names=names))
    with pytest.raises(CheckpointError, match=r"scores \(1, 2, 2\), but its metadata says 3"):
        opened(path, runtime)(photos(1))
    path = draw_onnx(tmp_path / "b.onnx", texts(outputs="detections"))
    with pytest.raises(CheckpointError, match="outputs are boxes, scores, wanted detections"):
        opened(path, runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_damaged_network_is_refused(tmp_path: Path, runtime: str):
    path = draw_onnx(tmp_path / "a.onnx", texts())
    content = path.read_bytes()
    path.write_bytes(content.replace(b"ReduceMean", b"ReduceNone"))
    with pytest.raises(CheckpointError, match="a.onnx: .* cannot load it"):
        opened(path, runtime)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"outputs": "raw"}, {}, "was exported with --raw; wanted decoded boxes"),
        ({"preprocess": "inside"}, {}, "was exported with --with_preprocess"),
        ({}, {"dy_thres": 0.5}, "is not routed, all images take the same exit; leave dy_thres"),
        ({}, {"easy": 0.5}, "leave easy out"),
    ],
)
def test_files_that_a_predictor_cannot_use_are_refused(
    tmp_path: Path, changes: dict, options: dict, message: str
):
    path = draw_onnx(tmp_path / "a.onnx", texts(**changes))
    with pytest.raises(UsageError, match=message):
        opened(path, **options)


def test_a_part_of_a_routed_model_is_refused_where_nothing_routes(tmp_path: Path):
    own = texts(part="first", holds="first detector", files='{"first": "a.onnx"}', pair="p")
    file = read_exported(draw_onnx(tmp_path / "a.onnx", own))
    for runtime in ("ncnn", "mindir", "tensorrt"):
        with pytest.raises(UsageError, match=f"{runtime} runs whole models only; use --runtime"):
            open_predictor(file, runtime)


def test_a_runtime_that_is_missing_names_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = draw_onnx(tmp_path / "a.onnx", texts())
    monkeypatch.setattr(on_openvino, "core", on_openvino.core.__wrapped__)
    for runtime, extra in (("onnxruntime", "onnx"), ("openvino", "openvino")):
        monkeypatch.setitem(sys.modules, runtime, None)
        with pytest.raises(MissingPackageError, match=rf"`pip install 'mindyolo_ext\[{extra}\]'`"):
            opened(path, runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, runtime: str):
    path = draw_onnx(tmp_path / "a.onnx", texts())
    with pytest.raises(DeviceError, match="--device_target Ascend"):
        opened(path, runtime, device="Ascend")


@pytest.mark.skipif(sys.platform != "linux", reason="alternate signal stacks are Linux's")
def test_a_signal_is_handled_after_sessions_have_ended(tmp_path: Path):
    """OpenVINO's plugin puts a signal stack in place, see ``core``."""
    pytest.importorskip("openvino")
    path = draw_onnx(tmp_path / "a.onnx", texts())
    done = subprocess.run(
        [sys.executable, "-c", FIRST_IN_FIRST_OUT, path],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_rows_after_nms_pass_another_nms_unchanged():
    rows = np.array(
        [[1, 0, 0, 9, 9, 0.9, 1], [0, 0, 0, 5, 5, 0.4, 0], [1, 2, 2, 4, 4, 0.3, 2]], np.float32
    )
    boxes, scores = spread(rows, 3, 3, "a.onnx")
    assert boxes.shape == (3, 2, 4) and not scores[2].any() and not boxes[0, 1].any()
    np.testing.assert_allclose(scores[1], [[0, 0.9, 0], [0, 0, 0.3]])
    np.testing.assert_allclose(boxes[1], rows[[0, 2], 1:5])
    assert [array.shape for array in spread(rows[:0], 2, 3, "")] == [(2, 0, 4), (2, 0, 3)]
    for wrong in (rows[:, :6], rows + 9, rows * [-1, 1, 1, 1, 1, 1, 1]):
        with pytest.raises(CheckpointError, match="a.onnx: gives detections"):
            spread(wrong, 3, 3, "a.onnx")

"""The programs of deploy/ that import nothing of this project, on a complete exported file."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from drawn_onnx import NAMES, SPEC, draw_onnx, texts
from launching import ROOT, environment

from mindyolo_ext.engine.onnx_graph import OnnxOptions, add_nms, add_preprocess

DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn network that includes preprocessing and NMS."""
    path = draw_onnx(tmp_path_factory.mktemp("whole") / "whole.onnx", texts())
    model = onnx.load(str(path))
    scale = next(t for t in model.graph.initializer if t.name == "boxes_of")
    corners = np.array([[[4, 4, 60, 30], [30, 2, 50, 20]]], np.float32)  # times the mean
    scale.CopyFrom(onnx.numpy_helper.from_array(corners, "boxes_of"))
    add_nms(model, OnnxOptions(nms="onnx", conf_thres=0.1), len(NAMES))
    add_preprocess(model, SPEC)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.RandomState(0).randint(90, 256, (50, 70, 3)).astype(np.uint8)


@pytest.fixture
def rows(whole: Path, picture: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(whole), providers=["CPUExecutionProvider"])
    (found,) = session.run(["detections"], {"image": picture})
    assert len(found) == 2 and np.ptp(found[:, 5]) > 0.01
    return found


def run(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in words],
        env={**environment(), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_python_without_this_package(
    whole: Path, picture: np.ndarray, rows: np.ndarray, tmp_path: Path
):
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    program = DEPLOY / "standalone_onnx.py"
    assert "mindyolo_ext" not in re.sub(r'""".*?"""', "", program.read_text(), flags=re.S)
    done = run(sys.executable, program, whole, tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("a.png: 2 boxes")
    for line, row in zip(lines[1:], rows, strict=True):
        corners = ", ".join(f"{value:.0f}" for value in row[1:5])
        assert line.strip() == f"{NAMES[int(row[6])]} {row[5]:.3f} at {corners}"
    done = run(sys.executable, program, whole, tmp_path / "b.png")
    assert done.returncode == 1 and "b.png: cannot be read" in done.stderr


def test_cpp_for_openvino(whole: Path, picture: np.ndarray, rows: np.ndarray, tmp_path: Path):
    """Built with the headers and the library of the Python package."""
    found = importlib.util.find_spec("openvino")
    if found is None or shutil.which("g++") is None:
        pytest.skip("no OpenVINO or no g++ here")
    package = Path(found.origin).parent
    libraries = sorted((package / "libs").glob("libopenvino.so*"))
    if not libraries or not (package / "include").is_dir():
        pytest.skip("the installed OpenVINO has no headers or no library to link with")
    source, program = DEPLOY / "cpp" / "openvino.cpp", tmp_path / "detect"
    built = run(
        *("g++", "-std=c++17", source, "-I", package / "include", libraries[0]),
        *(f"-Wl,-rpath,{package / 'libs'}", "-o", program),
    )
    assert built.returncode == 0, built.stderr
    cv2.imwrite(str(tmp_path / "a.ppm"), picture)
    done = run(program, whole, tmp_path / "a.ppm")
    assert done.returncode == 0, done.stderr
    values = np.array([line.split() for line in done.stdout.splitlines()], float)
    np.testing.assert_allclose(values, rows[:, [6, 5, 1, 2, 3, 4]], atol=0.02)
    (tmp_path / "b.ppm").write_bytes((tmp_path / "a.ppm").read_bytes()[:100])
    done = run(program, whole, tmp_path / "b.ppm")
    assert done.returncode == 1 and "b.ppm: is cut off" in done.stderr

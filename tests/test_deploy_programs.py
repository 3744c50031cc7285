"""The programs of deploy/ that import nothing of this project, on a complete exported file."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from drawn_onnx import NAMES, SPEC, draw_onnx, texts
from launching import ROOT, environment

from mindyolo_ext.data.shapes import draw_shapes
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


def openvino_flags(folder: Path) -> list[object]:  # noqa: ARG001
    """Headers and library of the Python package."""
    found = importlib.util.find_spec("openvino")
    if found is None:
        pytest.skip("no OpenVINO here")
    package = Path(found.origin).parent
    libraries = sorted((package / "libs").glob("libopenvino.so*"))
    if not libraries or not (package / "include").is_dir():
        pytest.skip("the installed OpenVINO has no headers or no library to link with")
    return ["-I", package / "include", libraries[0], f"-Wl,-rpath,{package / 'libs'}"]


def onnx_runtime_flags(folder: Path) -> list[object]:
    """Headers of a release, whose folder ``ORT`` names, and the library of the Python package."""
    places = [Path(os.environ[name]) / "include" for name in ("ORT",) if name in os.environ]
    places += [Path("/usr/include/onnxruntime"), Path("/usr/local/include/onnxruntime")]
    headers = [place for place in places if (place / "onnxruntime_cxx_api.h").is_file()]
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not headers or not libraries:
        pytest.skip("no headers of ONNX Runtime here (ORT names the folder of a release)")
    library = folder / "libonnxruntime.so.1"  # the name that programs ask for
    library.symlink_to(libraries[0])
    return ["-I", headers[0], library, f"-Wl,-rpath,{folder}"]


def build(name: str, flags: list[object], folder: Path) -> Path:
    """A program of ``deploy/cpp``."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    program = folder / "detect"
    source = DEPLOY / "cpp" / f"{name}.cpp"
    built = run("g++", "-std=c++17", source, *flags, "-o", program)
    assert built.returncode == 0, built.stderr
    return program


def numbers(text: str) -> np.ndarray:
    """Class, score and box of each line."""
    return np.array([line.split() for line in text.splitlines()], float)


@pytest.mark.parametrize(
    ("name", "flags"), [("openvino", openvino_flags), ("onnx_runtime", onnx_runtime_flags)]
)
def test_cpp_with_a_file_that_holds_everything(
    whole: Path, picture: np.ndarray, rows: np.ndarray, tmp_path: Path, name: str, flags: Callable
):
    program = build(name, flags(tmp_path), tmp_path)
    cv2.imwrite(str(tmp_path / "a.ppm"), picture)
    done = run(program, whole, tmp_path / "a.ppm")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(numbers(done.stdout), rows[:, [6, 5, 1, 2, 3, 4]], atol=0.02)
    (tmp_path / "b.ppm").write_bytes((tmp_path / "a.ppm").read_bytes()[:100])
    done = run(program, whole, tmp_path / "b.ppm")
    assert done.returncode == 1 and "b.ppm: is cut off" in done.stderr


@pytest.mark.needs_torch
@pytest.mark.parametrize(("model", "confidence"), [("yolo_fastestv2", 0.1), ("yolox_nano", 0.004)])
def test_cpp_for_ncnn(model: str, confidence: float, tmp_path: Path):
    """Where ``NCNN`` names the folder of an installed ncnn."""
    place = Path(os.environ.get("NCNN", "/usr/local"))
    if not (place / "include" / "ncnn" / "net.h").is_file():
        pytest.skip("no headers of ncnn here (NCNN names the folder where it was installed)")
    pytest.importorskip("pnnx")
    pytest.importorskip("ncnn")
    (library,) = sorted(place.glob("lib*/libncnn.*"))[:1]
    program = build("ncnn", ["-I", place / "include", library], tmp_path)
    from engine.test_onnx_agreement import save_seeded

    from mindyolo_ext import Detector
    from mindyolo_ext.engine.export import export

    file = export(save_seeded(model, tmp_path / "a.ckpt"), ["ncnn"]).files["ncnn"]
    image = draw_shapes(np.random.default_rng(0), (150, 210))[0]
    cv2.imwrite(str(tmp_path / "a.ppm"), image)
    wanted = Detector(file, conf_thres=confidence, iou_thres=0.45).predict(image)
    done = run(program, file, tmp_path / "a.ppm", confidence, 0.45)
    assert done.returncode == 0, done.stderr
    found = numbers(done.stdout)
    assert len(found) == len(wanted) > 2
    np.testing.assert_array_equal(found[:, 0], wanted.labels)
    np.testing.assert_allclose(found[:, 1], wanted.scores, atol=2e-4)
    # ncnn's own resizing rounds some pixels to the next gray level, which moves weak boxes: those
    # of yolo_fastestv2 by up to 0.02 pixels, of yolox_nano, with its image resized twice, by 0.32
    np.testing.assert_allclose(found[:, 2:], wanted.boxes, atol=0.5)

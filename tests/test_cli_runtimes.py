"""The commands ``predict``, ``test``, ``thresholds`` and ``benchmark`` with exported files."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from helpers import Command, original_name
from seeded import seeded_tensor
from source_rules import FRAMEWORKS
from test_architecture import loaded_modules

from mindyolo_ext import Detector, evaluate
from mindyolo_ext.backend import BACKEND
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.data.image_file import read_image
from mindyolo_ext.data.shapes import SHAPE_NAMES, make_shapes_dataset
from mindyolo_ext.engine import export as exporting
from mindyolo_ext.engine.export import export
from mindyolo_ext.errors import CheckpointError, DeviceError, UsageError
from mindyolo_ext.models.registry import create_model

SIZE, CONFIDENCE = (64, 96), "0.05"
ANNOTATIONS = "annotations/val.json"
# Each takes 5 ms to 2 s to load, and a picture with an ONNX file needs none of them
NOT_FOR_A_PICTURE = (
    *FRAMEWORKS,
    *("matplotlib", "onnx", "PIL", "pycocotools", "requests", "scipy", "tabulate", "yaml"),
    *("http.client", "mindyolo_ext.backend", "mindyolo_ext.config", "mindyolo_ext.engine.export"),
    *("mindyolo_ext.engine.build", "mindyolo_ext.models.registry", "multiprocessing.pool"),
)
pytestmark = pytest.mark.usefixtures("quiet_logging")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn images: 1 for training, 4 for evaluation."""
    folder = tmp_path_factory.mktemp("shapes")
    return make_shapes_dataset(folder, train_images=1, val_images=4, size=(96, 128), progress=False)


@pytest.fixture(scope="module")
def weight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded weights of yolo_fastestv2."""
    model = create_model("yolo_fastestv2", len(SHAPE_NAMES))
    values = {
        name: seeded_tensor(original_name(name), array.shape, 0, 1.2)
        for name, array in parameter_values(model).items()
    }
    spec = type(model.input_spec)(**{**vars(model.input_spec), "size": SIZE})
    path = tmp_path_factory.mktemp("weight") / "seeded.ckpt"
    metadata = CheckpointMetadata(
        "yolo_fastestv2", len(SHAPE_NAMES), list(SHAPE_NAMES), spec, model.architecture
    )
    save_checkpoint(path, values, metadata)
    return path


@pytest.fixture(scope="module")
def onnx_file(weight: Path) -> Path:
    return export(weight, ["onnx"]).files["onnx"]


@pytest.fixture
def on_data(data: Path) -> list[str]:
    described = f"{{format: coco, images: images/val, annotations: {ANNOTATIONS}}}"
    return [
        *("--data_root", str(data), "--set", f"data.val={described}", "--workers", "0"),
        *("--conf_thres", CONFIDENCE, "--set", "data.class_names=[]"),
    ]


def test_predict_finds_the_same_boxes_and_starts_no_framework(
    weight: Path, onnx_file: Path, data: Path, tmp_path: Path
):
    arguments = ["predict", str(data / "images" / "val"), "--conf_thres", CONFIDENCE]
    arguments += ["--weight", str(onnx_file), "--save_dir", str(tmp_path / "out")]
    code = f"from mindyolo_ext.cli import main\nassert main({arguments!r}) == 0"
    assert loaded_modules(code).isdisjoint(NOT_FOR_A_PICTURE)
    written = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))
    detector = Detector(weight, conf_thres=float(CONFIDENCE))
    assert len(written) == 4
    for name, rows in written.items():
        found = detector.predict(data / "images" / "val" / name)
        assert [row["class"] for row in rows] == found.labels.tolist() and len(rows) > 3
        np.testing.assert_allclose([row["box"] for row in rows], found.boxes, atol=0.02)
        np.testing.assert_allclose([row["score"] for row in rows], found.scores, atol=1e-4)


def test_both_backends_are_refused_beside_another_runtime(onnx_file: Path):
    with pytest.raises(ValueError, match=f"backend {BACKEND}: onnxruntime runs the file"):
        Detector(onnx_file, backend=BACKEND)


def test_metrics_of_an_exported_file_from_python(weight: Path, onnx_file: Path, data: Path):
    settings = {"data.root": data, "data.class_names": [], "eval.conf_thres": float(CONFIDENCE)}
    settings["data.val"] = dict(format="coco", images="images/val", annotations=ANNOTATIONS)
    settings |= {"eval.clip": True, "eval.iou_thres": 0.45}  # as the detector does
    found = evaluate(onnx_file, settings=settings, runtime="onnxruntime", device_target="CPU")
    detector = Detector(weight, conf_thres=float(CONFIDENCE))
    images = sorted((data / "images" / "val").glob("*.jpg"))
    for image, rows in zip(images, found.detections, strict=True):
        wanted = detector.predict(image).rows
        assert len(rows) == len(wanted) > 3
        np.testing.assert_allclose(rows, wanted, atol=0.02)
    with pytest.raises(UsageError, match="ncnn runs .param, not .onnx files"):
        evaluate(onnx_file, settings=settings, runtime="ncnn")


@pytest.mark.all_cases
def test_metrics_of_an_exported_file_are_the_checkpoints(
    command: Command, weight: Path, onnx_file: Path, on_data: list[str], tmp_path: Path
):
    found = []
    for name, file in (("ckpt", weight), ("onnx", onnx_file)):
        folder = tmp_path / name
        status, output = command("test", "--weight", file, "--save_dir", folder, *on_data)
        assert status == 0, output
        found.append(json.loads((folder / "detections.json").read_text(encoding="utf-8")))
    assert "yolo_fastestv2, 4 images, onnxruntime on CPU" in output
    ours, theirs = found
    assert len(ours) == len(theirs) > 10
    assert [r["category_id"] for r in ours] == [r["category_id"] for r in theirs]
    np.testing.assert_allclose(
        [r["bbox"] for r in ours], [r["bbox"] for r in theirs], atol=0.02, rtol=0
    )


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--runtime", "ncnn"], "ncnn runs .param, not .onnx files"),
        (["--img_size", "96"], "takes only images of 64x96 pixels, got 96x96"),
        (["--rectangular", "True"], "takes only images of 64x96 pixels"),
        (["--ms_amp_level", "O2"], "onnxruntime runs a file in the precision"),
        (["--curve", "True"], "--curve runs both exits on every image"),
        (["--dy_thres", "0.5"], "is not routed"),
        (["--model", "yolox-nano"], "holds yolo_fastestv2, but the recipe names yolox_nano"),
    ],
)
def test_what_an_exported_file_cannot_do_is_said(
    command: Command,
    onnx_file: Path,
    on_data: list[str],
    tmp_path: Path,
    arguments: list[str],
    wanted: str,
):
    more = ["--set", "input.size=[]"] if "--model" in arguments else []
    status, output = command(
        *("test", "--weight", onnx_file, "--save_dir", tmp_path, *on_data, *arguments, *more)
    )
    assert status == 1, output
    assert wanted in output and output.count("error:") == 1


def test_thresholds_want_a_checkpoint(command: Command, onnx_file: Path, on_data: list[str]):
    status, output = command("thresholds", "--weight", onnx_file, *on_data)
    assert status == 1
    assert "thresholds are stored in a checkpoint" in output


def test_two_frameworks_are_refused(command: Command, weight: Path):
    status, output = command(
        *("predict", "x.jpg", "--weight", weight, "--backend", "torch", "--runtime", "mindspore")
    )
    assert status == 1
    assert "--backend torch and --runtime mindspore name two frameworks" in output


def test_benchmark_measures_what_runs_and_says_what_does_not(
    command: Command, onnx_file: Path, on_data: list[str], tmp_path: Path, monkeypatch
):
    """Each runtime has a separate process; if a package fails there, its error is shown."""
    broken = tmp_path / "broken" / "openvino.py"
    broken.parent.mkdir()
    broken.write_text("raise ImportError('broken here')\n", encoding="utf-8")
    root = Path(__file__).resolve().parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{broken.parent}:{root}")
    arguments = ["benchmark", "--weight", onnx_file, "--save_dir", tmp_path, *on_data]
    status, output = command(*arguments, "--runtimes", "onnxruntime", "openvino")
    assert status == 0, output
    assert "openvino: --runtime openvino: OpenVINO is not installed (broken here)" in output
    stored = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    row = stored["rows"]["onnxruntime"]
    assert row["bytes"] == onnx_file.stat().st_size and row["images"] == 4
    assert min(row["ms"], row["memory"], row["start_up"]) > 0 and 0 <= row["AP"] <= 100
    status, output = command(*arguments, "--runtimes", "openvino")
    assert status == 1
    assert "no runtime could be measured" in output


# ---- other forms of files ------------------------------------------------------------------------


def same_boxes(
    weight: Path, file: Path, data: Path, *, size: tuple[int, int] = SIZE, tolerance: float = 0.02
) -> None:
    """Make sure that a file finds what the checkpoint finds, at the confidence of the NMS in the
    file.
    """
    ours, theirs = (
        Detector(path, conf_thres=0.1, iou_thres=0.45, size=size) for path in (weight, file)
    )
    count = 0
    for path in sorted((data / "images" / "val").glob("*.jpg")):
        wanted, found = ours.predict(path), theirs.predict(path)
        assert found.labels.tolist() == wanted.labels.tolist()
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=tolerance)
        count += len(wanted)
    assert count > 8


@pytest.mark.needs_torch
def test_nms_inside_and_any_batch_behind_the_detector(
    command: Command, weight: Path, data: Path, tmp_path: Path
):
    status, output = command(
        *("export", "--weight", weight, "--format", "onnx", "--output", tmp_path / "nms"),
        *("--nms", "--conf_thres", "0.1", "--dynamic_batch", "--simplify", "--opset", "18"),
        *("--images", data / "images" / "val"),
    )
    if "onnxslim is not installed" in output:
        pytest.skip("onnxslim is not installed")
    assert status == 0, output
    assert "boxes of 4 images within" in output
    same_boxes(weight, tmp_path / "nms.onnx", data)


@pytest.mark.needs_torch
def test_a_file_whose_sizes_are_constants_is_not_one_of_any_size(
    command: Command, weight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from mindyolo_ext.backend.on_torch import export as writing

    monkeypatch.setattr(writing, "sizes_vary", nullcontext)
    status, output = command(
        *("export", "--weight", weight, "--format", "onnx", "--output", tmp_path / "any"),
        "--dynamic_size",
    )
    assert status == 1 and "the onnx file cannot compute 128x96 pixels" in output
    assert not list(tmp_path.iterdir())


@pytest.mark.needs_torch
def test_any_size_behind_the_detector(command: Command, weight: Path, data: Path, tmp_path: Path):
    status, output = command(
        *("export", "--weight", weight, "--format", "onnx", "--output", tmp_path / "any"),
        "--dynamic_size",
    )
    assert status == 0, output
    file = tmp_path / "any.onnx"
    same_boxes(weight, file, data, size=(128, 64))
    with pytest.raises(ValueError, match="positive multiples of 32"):
        Detector(file, size=(100, 64))
    detector = Detector(file)
    with pytest.raises(UsageError, match="sides of multiples of 32 pixels, got 64x90"):
        detector._predictor(np.zeros((1, 64, 90, 3), np.uint8))


def test_eight_bits_are_calibrated_and_smaller(
    command: Command, weight: Path, onnx_file: Path, data: Path, tmp_path: Path
):
    pictures = data / "images" / "val"
    status, output = command(
        *("export", "--weight", weight, "--format", "onnx", "--output", tmp_path / "small"),
        *("--int8", "--images", pictures),
    )
    if BACKEND == "mindspore":
        assert status == 1 and "--int8 needs ONNX operators of version 13 or later" in output
        return
    assert status == 0, output
    file = tmp_path / "small.onnx"
    assert file.stat().st_size < 0.7 * onnx_file.stat().st_size
    ours, theirs = Detector(onnx_file), Detector(file)
    image = theirs.input_spec.resize_image(read_image(next(pictures.glob("*.jpg"))))[0][None]
    different = np.abs(ours._predictor(image)[1] - theirs._predictor(image)[1])
    assert 1e-4 < different.max() < 0.5


@pytest.mark.all_cases
def test_eight_bits_of_openvino(
    command: Command, weight: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("openvino")
    arguments = ["export", "--weight", weight, "--output", tmp_path / "small", "--int8"]
    arguments += ["--format", "openvino", "--images", data / "images" / "val"]
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "nncf", None)
        status, output = command(*arguments)
    assert status == 1 and "pip install 'mindyolo_ext[nncf]'" in output
    assert not list(tmp_path.iterdir())
    pytest.importorskip("nncf")
    status, output = command(*arguments)
    assert status == 0 and "boxes of 4 images" in output
    ours, theirs = Detector(weight), Detector(tmp_path / "small.xml")
    image = theirs.input_spec.resize_image(read_image(next((data / "images" / "val").glob("*"))))
    different = np.abs(ours._predictor(image[0][None])[1] - theirs._predictor(image[0][None])[1])
    assert 1e-4 < different.max() < 0.5


@pytest.mark.all_cases
@pytest.mark.parametrize(("kind", "name"), [("openvino", "a.xml"), ("ncnn", "a.ncnn.param")])
def test_further_formats_behind_the_detector(
    command: Command, weight: Path, data: Path, tmp_path: Path, kind: str, name: str
):
    pytest.importorskip({"ncnn": "pnnx"}.get(kind, kind))
    pytest.importorskip(kind)
    status, output = command(
        "export", "--weight", weight, "--format", kind, "--output", tmp_path / "a"
    )
    assert status == 0, output
    file = tmp_path / name
    companions = {"ncnn": ["a.ncnn.bin", "a.ncnn.json"], "openvino": ["a.bin"]}[kind]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, *companions])
    same_boxes(weight, file, data)
    status, output = command("info", file)
    assert status == 0 and f"yolo_fastestv2, {len(SHAPE_NAMES)} classes" in output
    weights = file.with_suffix(".bin")
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"a\.(ncnn\.bin|xml)"):
        Detector(file)
    weights.unlink()
    with pytest.raises((CheckpointError, FileNotFoundError), match=r"a\.(ncnn\.bin|xml)"):
        Detector(file)


def test_descriptions_that_ncnn_would_crash_on_are_refused(tmp_path: Path):
    pytest.importorskip("ncnn")
    from mindyolo_ext.runtimes.on_ncnn import NcnnSession

    good = "7767517\n1 1\nInput in0 0 1 in0\n"
    for text in (
        "",
        "7767517\n",
        good.replace("7767517", "1"),
        good.replace("1 1", "2 1"),
        "x\ny\nz",
    ):
        (tmp_path / "a.param").write_text(text, encoding="utf-8")
        (tmp_path / "a.bin").touch()
        with pytest.raises(CheckpointError, match="a.param: not an ncnn network"):
            NcnnSession(tmp_path / "a.param", size=(32, 32))
    (tmp_path / "a.param").write_text(good, encoding="utf-8")
    with pytest.raises(DeviceError, match="ncnn runs on the CPU here"):
        NcnnSession(tmp_path / "a.param", size=(32, 32), device="GPU")
    session = NcnnSession(tmp_path / "a.param", size=(32, 32))
    with pytest.raises(CheckpointError, match="ncnn cannot compute boxes"):
        session.run({"images": np.zeros((1, 3, 32, 32), np.float32)})


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--format", "ncnn", "--per_batch_size", "2"], "leave --per_batch_size 2 out"),
        (["--format", "ncnn", "--raw"], "leave --raw out"),
        (["--format", "onnx", "openvino", "--nms"], "use --format onnx alone"),
        (["--format", "onnx", "--nms", "--raw"], "need boxes; leave --raw out"),
        (["--format", "onnx", "--with_preprocess", "--per_batch_size", "2"], "takes one image"),
        (["--format", "onnx", "--dynamic_size", "--raw"], "--dynamic_size needs decoded boxes"),
        (["--format", "onnx", "--dynamic_size", "--with_preprocess"], "leave --dynamic_size out"),
        (["--format", "onnx", "--opset", "40"], "--opset: wanted 13 to 20, got 40"),
        (["--format", "onnx", "--img_size", "50"], "positive multiples of 32"),
        (["--format", "onnx", "--images", "nowhere"], "nowhere"),
        (["--format", "onnx", "--int8"], "--int8 needs images for calibration: --images DIR"),
        (["--format", "onnx", "--int8", "--half"], "two precisions; leave one out"),
    ],
)
def test_exports_that_cannot_be_are_refused(
    command: Command, weight: Path, tmp_path: Path, arguments: list[str], wanted: str
):
    status, output = command("export", "--weight", weight, "--output", tmp_path / "a", *arguments)
    assert status == 1
    assert wanted in output and not list(tmp_path.iterdir())


@pytest.mark.all_cases
def test_a_file_with_other_boxes_is_not_written(
    command: Command, weight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = exporting.finder
    made = iter((False, True))

    def lossy(*arguments: object, **keywords: object):
        find, drops = plain(*arguments, **keywords), next(made)
        return lambda picture: find(picture)[5 * drops :]

    monkeypatch.setattr(exporting, "finder", lossy)
    status, output = command(
        "export", "--weight", weight, "--format", "onnx", "--output", tmp_path / "a"
    )
    assert status == 1
    assert "the onnx file does not find the network's boxes" in output
    assert not list(tmp_path.iterdir())


CONVERTER = """#!{python}
import sys
options = dict(text.removeprefix("--").split("=") for text in sys.argv[1:])
assert options["fmk"] == "ONNX"
content = open(options["modelFile"], "rb").read()
if {fails}:
    print("unsupported operator")
    sys.exit(1)
open(options["outputFile"] + ".ms", "wb").write(b"\\0\\0\\0\\0MSL2" + content)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script")
@pytest.mark.parametrize("fails", [False, True])
def test_lite_files_are_written_where_the_converter_is(
    command: Command, weight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
):
    """A stand-in takes the converter's place; the real one was not available."""
    arguments = ["export", "--weight", weight, "--format", "ms", "--output", tmp_path / "a"]
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    status, output = command(*arguments)
    assert status == 1 and "--format ms needs converter_lite, which is not on PATH" in output
    program = tmp_path / "bin" / "converter_lite"
    program.parent.mkdir()
    program.write_text(CONVERTER.format(python=sys.executable, fails=fails), encoding="utf-8")
    program.chmod(0o755)
    status, output = command(*arguments)
    written = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    if fails:
        assert status == 1 and "cannot convert the network (unsupported operator)" in output
        assert not written
        return
    assert status == 0 and "not checked (needs MindSpore Lite)" in output, output
    assert written == ["a.json", "a.ms"]
    about = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert about["model"] == "yolo_fastestv2" and about["sha256.ms"]
    status, output = command("info", tmp_path / "a.ms")
    assert status == 1 and "a.ms: is a MindSpore Lite file, wanted a" in output, output

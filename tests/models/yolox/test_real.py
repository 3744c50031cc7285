"""Published YOLOX weights: exported files, prediction and runner agree with a foreign export and
with each other.
"""

from pathlib import Path

import numpy as np
import pytest
from launching import ROOT

from mindyolo_ext.backend.export import load_mindir
from mindyolo_ext.cli import main
from mindyolo_ext.data.image_file import read_image
from mindyolo_ext.engine.export import export
from mindyolo_ext.engine.predict import Detector
from mindyolo_ext.input_spec import InputSpec

TOLERANCE = 1e-3  # of box logits and probabilities
PHOTOS = ("000004.jpg", "000139.jpg", "000148.jpg", "000181.jpg", "000230.jpg")


@pytest.fixture(scope="module")
def published(shared) -> Path:
    """The folder of published weights; the tests are skipped if a file is missing."""
    folder = shared / "weights" / "yolox"
    files = [
        folder / name
        for name in (
            "yolox_nano_0.1.1rc0_bnident.pth",
            "yolox_nano_0.1.1rc0.onnx",
            "yolox_nano_0.0.1legacy_bnident.pth",
        )
    ]
    missing = [
        path
        for path in (*files, *(shared / "images" / name for name in PHOTOS))
        if not path.is_file()
    ]
    if missing:
        pytest.skip(f"no {missing[0]}")
    return folder


@pytest.fixture(scope="module")
def nano(published, tmp_path_factory) -> Path:
    """The converted COCO weights of version 0.1.1rc0."""
    return converted(published / "yolox_nano_0.1.1rc0_bnident.pth", tmp_path_factory.mktemp("nano"))


def converted(source: Path, folder: Path, *more: str) -> Path:
    assert main(["convert", str(source), str(folder / "yolox_nano.ckpt"), *more]) == 0
    return folder / "yolox_nano.ckpt"


def onnx_session(path: Path):
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_raw_export_equals_the_foreign_one(nano, published, shared, tmp_path):
    """Rows in the same order: box logits, objectness, class probabilities."""
    files = export(nano, output=tmp_path / "raw", raw=True).files
    foreign, ours = (
        onnx_session(published / "yolox_nano_0.1.1rc0.onnx"),
        onnx_session(files["onnx"]),
    )
    spec = InputSpec.from_json(ours.get_modelmeta().custom_metadata_map["input_spec"])
    runners = [lambda images: ours.run(None, {"images": images})]
    if "mindir" in files:  # only MindSpore writes it
        runners.append(load_mindir(files["mindir"]))
    for name in PHOTOS:
        images = spec.prepare(read_image(shared / "images" / name))[0][None]
        wanted = foreign.run(None, {"images": images})[0]
        assert wanted.shape == (1, 3549, 85) and wanted[..., 4].max() > 0.8, name
        for runner in runners:
            np.testing.assert_allclose(
                runner(images)[0], wanted, rtol=0, atol=TOLERANCE, err_msg=name
            )


@pytest.mark.all_cases
def test_the_onnx_runner_finds_what_predict_finds(nano, shared, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))
    from onnx_runtime import OnnxDetector

    runner = OnnxDetector(export(nano, ["onnx"], output=tmp_path / "decoded").files["onnx"])
    detector = Detector(nano)
    for name in PHOTOS:
        photo = read_image(shared / "images" / name)
        found, rows = detector.predict(photo), runner.predict(photo)
        assert len(rows) == len(found) > 0, name
        np.testing.assert_allclose(rows[:, :4], found.boxes, rtol=0, atol=0.01, err_msg=name)
        np.testing.assert_allclose(rows[:, 4], found.scores, rtol=0, atol=1e-4, err_msg=name)
        assert rows[:, 5].tolist() == found.labels.tolist(), name


@pytest.mark.all_cases
def test_legacy_weights_see_with_their_own_input_only(published, shared, tmp_path):
    """Weights of version 0.1.0 find the cyclist; with the input of 0.1.1 they find no bicycle."""
    source, photo = (
        published / "yolox_nano_0.0.1legacy_bnident.pth",
        shared / "images" / "000139.jpg",
    )
    found = Detector(converted(source, tmp_path)).predict(photo)
    assert sorted(found.names) == ["bicycle", "person", "person"]
    assert np.abs(found.boxes[found.names.index("bicycle")] - (115, 132, 240, 260)).max() < 15
    assert (
        "bicycle"
        not in Detector(converted(source, tmp_path, "--input", "official")).predict(photo).names
    )

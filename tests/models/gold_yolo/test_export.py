"""Exported files of Gold-YOLO: the original's numbers, every form, odd sizes, and the runner
without MindSpore.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from helpers import original_name
from models.gold_yolo.case import form_of, scale_of, stored

from mindyolo_ext.backend.export import FORMATS
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.engine.export import ExportReport, export
from mindyolo_ext.engine.predict import Detector
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.gold_yolo.variants import published_input
from mindyolo_ext.models.registry import create_model

FAMILY = "gold_yolo"
QUICK_VARIANTS = ("gold_yolo_n/distill",)
# coarsest map 5 x 7: bins of the pooling overlap
RECT, RECT_ROWS, RECT_ROW_STEP = (160, 224), 735, 11
BORDER = 4


@pytest.fixture(scope="module")
def weight(golden_case, tmp_path_factory) -> Path:
    """The case's seeded weights as a checkpoint of ours."""
    model = create_model(scale_of(golden_case), form=form_of(golden_case))
    weights = golden_case.weights()
    values = {name: weights[original_name(name)] for name, _ in model.parameters_and_names()}
    path = tmp_path_factory.mktemp("export") / "seeded.ckpt"
    save_checkpoint(
        path,
        values,
        CheckpointMetadata(
            scale_of(golden_case), 80, [], published_input(RECT, BORDER), dict(model.architecture)
        ),
    )
    return path


@pytest.fixture(scope="module")
def reports(golden_case, weight, tmp_path_factory) -> dict[bool, ExportReport]:
    """Both files with raw rows (True) and with boxes and scores (False)."""
    stored(golden_case.arrays(), "rect_boxes")  # for m and l, the student's folder has none
    folder = tmp_path_factory.mktemp("files")
    return {raw: export(weight, output=folder / f"raw_{raw}", raw=raw) for raw in (True, False)}


def session(report: ExportReport) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        str(report.files["onnx"]), providers=["CPUExecutionProvider"]
    )


@pytest.mark.all_cases
def test_every_file_was_compared_with_the_network(reports):
    """``export`` removes a file that differs by more than its own tolerance, which is wider."""
    for raw, report in reports.items():
        for kind in [name for name in FORMATS if name != "air"]:
            assert report.files[kind].is_file() and len(report.differences[kind]) == (
                1 if raw else 2
            )
            assert max(report.differences[kind]) < 3e-3


def test_files_hold_the_numbers_of_the_original(golden_case, reports):
    """At a size where the original's own ONNX file pools differently from its network; boxes follow
    from raw rows.
    """
    arrays, images = golden_case.arrays(), golden_case.images(1, *RECT)
    (rows,) = session(reports[True]).run(["output0"], {"images": images})
    assert rows.shape == (1, RECT_ROWS, 85)
    np.testing.assert_allclose(rows[..., :4], arrays["rect_boxes"], rtol=0, atol=3e-3)
    np.testing.assert_array_equal(rows[..., 4], 1)
    np.testing.assert_allclose(
        rows[:, ::RECT_ROW_STEP, 5:], arrays["rect_pred"][..., 5:], rtol=0, atol=1e-5
    )
    boxes, scores = session(reports[False]).run(["boxes", "scores"], {"images": images})
    centre, half = rows[..., :2], rows[..., 2:4] / 2
    np.testing.assert_allclose(
        boxes, np.concatenate((centre - half, centre + half), 2), rtol=0, atol=1e-3
    )
    np.testing.assert_allclose(scores, rows[..., 5:], rtol=0, atol=1e-5)


def test_metadata_names_scale_form_and_input(golden_case, reports):
    for raw, report in reports.items():
        metadata = session(report).get_modelmeta().custom_metadata_map
        assert metadata["model"] == scale_of(golden_case)
        assert json.loads(metadata["architecture"]) == {"form": form_of(golden_case)}
        assert metadata["outputs"] == ("raw" if raw else "boxes,scores")
        assert InputSpec.from_json(metadata["input_spec"]) == published_input(RECT, BORDER)


def test_runner_finds_the_boxes_of_the_detector(weight, reports, runner):
    """The file stores border and rounding of the input, so an image is placed where the detector
    puts it.
    """
    photo = (
        np.random.RandomState(0)
        .uniform(0, 255, (11, 17, 3))
        .repeat(9, 0)
        .repeat(9, 1)
        .astype(np.uint8)
    )
    other = runner.OnnxDetector(reports[False].files["onnx"], conf_thres=0.3)
    images = other.input_spec.prepare(photo)[0][None]
    best = np.sort(other.session.run(["scores"], {"images": images})[0].max(2).ravel())[-60:-20]
    place = np.diff(best).argmax()  # no score near the threshold
    threshold = float(best[place : place + 2].mean())
    other.options = replace(other.options, conf_thres=threshold)
    found, rows = Detector(weight, conf_thres=threshold).predict(photo), other.predict(photo)
    assert len(rows) == len(found) > 1
    np.testing.assert_allclose(rows[:, :4], found.boxes, rtol=0, atol=0.01)
    np.testing.assert_allclose(rows[:, 4], found.scores, rtol=0, atol=1e-4)
    assert rows[:, 5].tolist() == found.labels.tolist()

"""Exported files of YOLOX: layout, metadata, batch and shape. tests/test_cli.py tests another
family through the command.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import original_name
from seeded import seeded_tensor

from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.engine.build import load_model
from mindyolo_ext.engine.export import example_input, export
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.registry import create_model
from mindyolo_ext.models.yolox.variants import YOLOX_INPUTS

SIZE, ROWS = (64, 96), 8 * 12 + 4 * 6 + 2 * 3  # predictions of strides 8, 16 and 32


@pytest.fixture(scope="module")
def weight(tmp_path_factory) -> Path:
    """Seeded weights of yolox_nano with 3 classes, made for pixels of 0..1."""
    model = create_model("yolox_nano", 3)
    values = {
        name: seeded_tensor(original_name(name), array.shape, 0, 1.4)
        for name, array in parameter_values(model).items()
    }
    path = tmp_path_factory.mktemp("export") / "nano.ckpt"
    save_checkpoint(
        path,
        values,
        CheckpointMetadata(
            "yolox_nano",
            3,
            ["a", "b", "c"],
            YOLOX_INPUTS["mindyolo"](SIZE),
            dict(model.architecture),
        ),
    )
    return path


def test_decoded_and_raw_files_tell_the_same(weight, tmp_path):
    """Decoding the raw rows as in deploy/README.md gives the boxes and scores of the other file."""
    import onnxruntime

    sessions = {
        raw: onnxruntime.InferenceSession(
            str(
                export(
                    weight, ["onnx"], output=tmp_path / f"raw_{raw}", batch_size=2, raw=raw
                ).files["onnx"]
            ),
            providers=["CPUExecutionProvider"],
        )
        for raw in (False, True)
    }
    spec = load_model(weight)[0].input_spec
    images = example_input(2, spec)[::-1].copy()
    boxes, scores = sessions[False].run(["boxes", "scores"], {"images": images})
    (rows,) = sessions[True].run(["output0"], {"images": images})
    assert (
        boxes.shape == (2, ROWS, 4) and scores.shape == (2, ROWS, 3) and rows.shape == (2, ROWS, 8)
    )
    cells = [
        (x, y, stride)
        for stride in (8, 16, 32)
        for y in range(64 // stride)
        for x in range(96 // stride)
    ]
    cell, stride = np.array(cells)[:, :2], np.array(cells)[:, 2:]
    center, half = (rows[..., :2] + cell) * stride, np.exp(rows[..., 2:4]) * stride / 2
    np.testing.assert_allclose(
        boxes, np.concatenate((center - half, center + half), 2), rtol=1e-4, atol=1e-3
    )
    np.testing.assert_allclose(scores, rows[..., 4:5] * rows[..., 5:], rtol=0, atol=1e-5)
    assert np.ptp(scores) > 0.01 and np.abs(boxes[0] - boxes[1]).max() > 0.1
    for raw, session in sessions.items():
        metadata = session.get_modelmeta().custom_metadata_map
        assert metadata["outputs"] == ("raw" if raw else "boxes,scores")
        assert InputSpec.from_json(metadata["input_spec"]) == spec and spec.rounding == "down"
        assert json.loads(metadata["class_names"]) == ["a", "b", "c"]

"""Evaluation: published weights reach the reference AP, and several ranks neither lose nor repeat
an image.
"""

import json
import sys

import numpy as np
import pytest
from launching import ROOT, mpirun, run

from mindyolo_ext.cli import main
from mindyolo_ext.data.shapes import make_shapes_dataset

CONFIG = ROOT / "configs" / "yolo_fastestv2" / "yolo-fastestv2.yaml"
YOLOX = ROOT / "configs" / "yolox" / "yolox-nano.yaml"
TOLERANCE = 0.001  # of every metric of the reference file


@pytest.mark.parametrize(
    ("config", "file", "entry"),
    [
        (
            CONFIG,
            "yolo_fastestv2/coco2017-0.241078ap-model.pth",
            "yolo_fastestv2_coco2017-0.241078ap",
        ),
        pytest.param(
            YOLOX,
            "yolox/yolox_nano_0.1.1rc0_bnident.pth",
            "yolox_nano_0.1.1rc0_bnident",
            marks=pytest.mark.all_cases,
        ),
    ],
)
def test_published_weights_give_the_reference_values(golden, shared, tmp_path, config, file, entry):
    path = golden.root / "map_coco_val128.json"
    weight = shared / "weights" / file
    data = shared / "data" / "coco_val128"
    if not (path.is_file() and weight.is_file() and data.is_dir()):
        pytest.skip("needs the published weights, coco_val128 and map_coco_val128.json")
    reference = json.loads(path.read_text(encoding="utf-8"))[entry]
    converted = tmp_path / "converted.ckpt"
    assert main(["convert", str(weight), str(converted)]) == 0
    found = evaluate(config, converted, data)
    assert len(reference["coco"]) == 12
    for metric, value in reference["coco"].items():
        assert found.coco.stats[metric] == pytest.approx(value, abs=TOLERANCE), metric
    assert sum(len(d) for d in found.detections) == reference["detections"]
    own = reference.get("own_metric", {})
    assert (found.darknet is not None) == bool(own)
    if own:
        assert found.darknet.ap == pytest.approx(own["AP"], abs=TOLERANCE)
        for metric in ("precision", "recall", "f1"):
            assert getattr(found.darknet_at_report, metric) == pytest.approx(
                own[metric], abs=TOLERANCE
            ), metric


@pytest.mark.all_cases
def test_mixed_precision_keeps_the_published_ap(golden, shared, tmp_path):
    """Yolo-FastestV2's, within 0.3 points."""
    path = golden.root / "map_coco_val128.json"
    weight = shared / "weights/yolo_fastestv2/coco2017-0.241078ap-model.pth"
    data = shared / "data" / "coco_val128"
    if not (path.is_file() and weight.is_file() and data.is_dir()):
        pytest.skip("needs the published weights, coco_val128 and map_coco_val128.json")
    reference = json.loads(path.read_text(encoding="utf-8"))["yolo_fastestv2_coco2017-0.241078ap"]
    converted = tmp_path / "converted.ckpt"
    assert main(["convert", str(weight), str(converted)]) == 0
    found = evaluate(CONFIG, converted, data, level="O2").coco.stats
    assert found["AP"] == pytest.approx(reference["coco"]["AP"], abs=0.003)
    assert found["AP50"] == pytest.approx(reference["coco"]["AP50"], abs=0.006)
    assert found["AP"] != pytest.approx(reference["coco"]["AP"], abs=1e-7), "nothing was rounded"


def evaluate(config_file, weight, data_root, level="O0"):
    from mindyolo_ext.backend import BACKEND, precision
    from mindyolo_ext.config import load_config
    from mindyolo_ext.engine.build import load_model, split_dataset
    from mindyolo_ext.engine.evaluate import evaluate as run_evaluation
    from mindyolo_ext.engine.predictor import Predictor

    config = load_config(config_file, [f"data.root={data_root}"])
    model, _ = load_model(weight, config)
    precision.apply(model, level, "float16" if BACKEND == "mindspore" else "bfloat16")
    return run_evaluation(Predictor(model), split_dataset(config, "val"), config.eval)


@pytest.mark.all_cases
def test_two_ranks_give_the_detections_of_one(tmp_path):
    """Seven images in batches of 2: the last global batch is not full, and one rank ends without an
    image.
    """
    from mindyolo_ext.backend.parameters import parameter_values
    from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
    from mindyolo_ext.models.registry import create_model

    make_shapes_dataset(
        tmp_path / "shapes", train_images=0, val_images=7, size=(64, 64), seed=2, progress=False
    )
    model = create_model("yolo_fastestv2", num_classes=3)
    metadata = CheckpointMetadata(
        "yolo_fastestv2", 3, input_spec=model.input_spec, architecture=model.architecture
    )
    save_checkpoint(tmp_path / "w.ckpt", parameter_values(model), metadata)
    arguments = [
        str(ROOT / "test.py"),
        "--config",
        CONFIG,
        "--weight",
        tmp_path / "w.ckpt",
        "--data_root",
        tmp_path / "shapes",
        "--img_size",
        "64",
        "--per_batch_size",
        "2",
        "--set",
        "data.val.images=images/val",
        "--set",
        "data.val.annotations=annotations/val.json",
    ]
    run([sys.executable, *arguments, "--save_dir", tmp_path / "one"])
    run(
        [
            *mpirun(2),
            sys.executable,
            *arguments,
            "--is_parallel",
            "True",
            "--save_dir",
            tmp_path / "two",
        ]
    )
    one, two = (
        json.loads((tmp_path / name / "detections.json").read_text()) for name in ("one", "two")
    )
    assert len(one) == len(two) > 50 and len({r["image_id"] for r in two}) == 7
    for a, b in zip(one, two):
        assert (a["image_id"], a["category_id"]) == (b["image_id"], b["category_id"])
        np.testing.assert_allclose(
            [*b["bbox"], b["score"]], [*a["bbox"], a["score"]], rtol=1e-4, atol=1e-3
        )
    assert (tmp_path / "two" / "metrics.txt").read_text().splitlines()[0]

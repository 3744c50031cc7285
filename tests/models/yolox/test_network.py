"""YOLOX's networks against arrays of the original program; tolerances are in
tests/golden/README.md.
"""

import json

import numpy as np
import pytest
from helpers import load_weights, original_name
from networks import ModelAndDeploy, number_of, outputs_of

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.mode import eager
from mindyolo_ext.evaluation.nms import NMSOptions, nms
from mindyolo_ext.models.registry import create_model

FAMILY = "yolox"
QUICK_VARIANTS = ("yolox_nano", "yolox_tiny")
GRAPH_VARIANTS = ("yolox_nano",)
pytestmark = pytest.mark.graph(when="smallest")
LEVELS = ("p3", "p4", "p5")


class Everything(ModelAndDeploy):
    """Raw heads, decoded rows, deploy form with its rows and both predictions in one graph."""

    names = ("heads", "decoded", "deploy", "deploy_decoded", "predicted", "deploy_predicted")

    def construct(self, images):
        heads = self.model(images)
        return (
            heads,
            self.model.decode(heads),
            self.deploy(images),
            self.deploy.decoded(images),
            self.model.predict(images),
            self.deploy.predict(images),
        )


@pytest.fixture(scope="module")
def outputs(golden_case):
    """All outputs of the seeded network on the case's images, with the case's arrays."""
    arrays = golden_case.arrays()
    batch, channels, height, width = arrays["eval_raw_p3"].shape
    model = create_model(golden_case.variant, channels - 5)
    load_weights(model, golden_case.weights())
    found = outputs_of(Everything(model), golden_case.images(batch, 8 * height, 8 * width))
    return {**found, "arrays": arrays}


# 2e-4: see "SiLU" in golden/README.md; injected faults start at 3e-3
@pytest.mark.parametrize("level", range(3))
def test_raw_heads_equal_the_original(outputs, level):
    got = np.concatenate(outputs["heads"][3 * level : 3 * level + 3], 1)
    np.testing.assert_allclose(
        got, outputs["arrays"][f"eval_raw_{LEVELS[level]}"], rtol=0, atol=2e-4
    )


def test_decoded_rows_equal_the_original(outputs):
    np.testing.assert_allclose(
        outputs["decoded"], outputs["arrays"]["eval_decoded"], rtol=1e-5, atol=2e-3
    )
    np.testing.assert_allclose(
        outputs["decoded"][..., 4:], outputs["arrays"]["eval_decoded"][..., 4:], rtol=0, atol=5e-5
    )


def test_deploy_form_equals_the_original(outputs):
    got, wanted = outputs["deploy_decoded"][:, ::4], outputs["arrays"]["deploy_decoded"]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-3)
    np.testing.assert_allclose(got[..., 4:], wanted[..., 4:], rtol=0, atol=5e-5)


def test_deploy_rows_are_the_heads_with_probabilities(outputs):
    heads = outputs["heads"]
    rows = np.concatenate(
        [
            np.concatenate(heads[i : i + 3], 1).reshape(len(heads[0]), heads[2].shape[1] + 5, -1)
            for i in (0, 3, 6)
        ],
        2,
    ).transpose(0, 2, 1)
    np.testing.assert_allclose(outputs["deploy"][..., :4], rows[..., :4], rtol=0, atol=2e-4)
    np.testing.assert_allclose(
        outputs["deploy"][..., 4:], 1 / (1 + np.exp(-rows[..., 4:])), rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("form", ["predicted", "deploy_predicted"])
def test_predict_gives_corners_and_products(outputs, form):
    boxes, scores = outputs[form]
    decoded = outputs["decoded"]
    centers, halves = decoded[:, :, :2], decoded[:, :, 2:4] / 2
    np.testing.assert_allclose(
        boxes, np.concatenate((centers - halves, centers + halves), 2), rtol=1e-5, atol=2e-3
    )
    np.testing.assert_allclose(scores, decoded[:, :, 4:5] * decoded[:, :, 5:], rtol=0, atol=2e-5)


def test_detections_equal_the_original(outputs):
    """Compared as sets: scores of neighbors differ by less than the rounding."""
    arrays = outputs["arrays"]
    for image, (boxes, scores) in enumerate(zip(*outputs["predicted"], strict=True)):
        found = nms(
            boxes,
            scores,
            NMSOptions(
                conf_thres=float(arrays["post_conf_thr"]),
                iou_thres=float(arrays["post_iou_thr"]),
                max_detections=10_000,
            ),
        )
        wanted = arrays["post_dets"][arrays["post_dets"][:, 0] == image][:, 1:]
        assert len(found) == len(wanted) > 0
        for row in wanted:
            distance = np.abs(found[:, :4] - row[:4]).max(1) + 1e3 * (found[:, 5] != row[5])
            assert distance.min() < 5e-3
            assert abs(found[distance.argmin(), 4] - row[4]) < 5e-5


@pytest.mark.parametrize(
    "conf,iou,agnostic,name",
    [
        (0.001, 0.65, False, "dets_conf001_iou65"),
        (0.3, 0.45, False, "dets_conf30_iou45"),
        (0.001, 0.65, True, "dets_conf001_iou65_agnostic"),
    ],
)
def test_postprocessing_equals_the_original(golden, conf, iou, agnostic, name):
    arrays = golden.arrays("yolox/postprocess_case.npz")
    wanted_all = arrays[name]
    for image, decoded in enumerate(arrays["in_decoded"]):
        center, half = decoded[:, :2], decoded[:, 2:4] / 2
        found = nms(
            np.concatenate((center - half, center + half), 1),
            decoded[:, 4:5] * decoded[:, 5:],
            NMSOptions(
                conf_thres=conf, iou_thres=iou, class_agnostic=agnostic, max_detections=10_000
            ),
        )
        wanted = wanted_all[wanted_all[:, 0] == image][:, 1:]
        assert found.shape == wanted.shape and len(found) > 10
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def test_parameters_and_statistics_follow_the_original(golden_case):
    folder = golden_case.variant_folder
    keys = json.loads((folder / "keys.json").read_text())
    meta = json.loads((folder / "meta.json").read_text())
    wanted = {
        name: tuple(shape) for name, shape, _ in keys if not name.endswith("num_batches_tracked")
    }
    model = create_model(golden_case.variant)
    assert {
        original_name(name): tuple(p.shape) for name, p in model.parameters_and_names()
    } == wanted
    assert all(name == p.name for name, p in model.parameters_and_names())
    assert number_of(model.trainable_params()) == meta["params"]
    assert number_of(model.to_deploy().get_parameters()) == meta["params_deploy"]
    assert list(model.input_spec.size) == meta["test_size"]
    norms = [cell for _, cell in model.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    assert norms and {(cell.eps, round(cell.momentum, 6)) for cell in norms} == {
        (meta["bn_eps"], meta["bn_momentum"])
    }  # the cell keeps PyTorch's form of the momentum


def test_initial_weights():
    """Kernels are uniform as in PyTorch, and objects and classes have a low probability before the
    first step.
    """
    model = create_model("yolox_tiny", 3)
    kernel = model.backbone.C3_p4.conv1.conv.weight.asnumpy()
    bound = 1 / np.sqrt(np.prod(kernel.shape[1:]))
    assert (
        0.99 * bound < np.abs(kernel).max() <= bound
        and abs(kernel.std() - bound / np.sqrt(3)) < 0.02 * bound
    )
    for level in range(3):
        for predictor in (model.head.cls_preds[level], model.head.obj_preds[level]):
            np.testing.assert_allclose(1 / (1 + np.exp(-predictor.bias.asnumpy())), 0.01, rtol=1e-5)
        bias = model.head.reg_preds[level].bias.asnumpy()
        assert 0 < np.abs(bias).max() <= 1 / np.sqrt(96)


def test_focus_takes_the_columns_first():
    """Upper left, lower left, upper right, lower right pixel, each with its three colors."""
    focus = create_model("yolox_nano").backbone.backbone.stem
    seen = []

    class Record(nn.Cell):
        def construct(self, x):
            seen.append(x)
            return x

    focus.conv = Record()
    image = np.arange(3 * 4 * 6, dtype=np.float32).reshape(1, 3, 4, 6)
    with eager():
        focus(Tensor(image))
    parts = [
        image[:, :, ::2, ::2],
        image[:, :, 1::2, ::2],
        image[:, :, ::2, 1::2],
        image[:, :, 1::2, 1::2],
    ]
    np.testing.assert_array_equal(seen[0].asnumpy(), np.concatenate(parts, 1))


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        create_model("yolox_s", num_classes=0)

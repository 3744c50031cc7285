"""The simple YOLO's networks against arrays of the original program; tolerances are in
tests/golden/README.md.
"""

import json
import math

import numpy as np
import pytest
from helpers import DEFAULT_GOLDEN, golden_cases, original_name, relative_l2
from models.simple_yolo.case import LEVELS, as_stored, meta_of, new_network, seeded_network, thinned
from networks import Everything, number_of, outputs_of

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.evaluation.nms import NMSOptions, nms
from mindyolo_ext.models.registry import create_model
from mindyolo_ext.models.simple_yolo.network import ACTIVATIONS, ASSIGNMENTS

FAMILY = "simple_yolo"
VARIANTS = (
    "resnet18_025",
    "resnet18_050",
    "resnet18_075",
    "resnet18_075_single_grid",
    "resnet18_075_all_grid",
    "resnet18_100",
    "resnet34_075",
    "resnet50_075",
    "darknet_025",
    "darknet_050",
    "darknet_075",
    "darknet_100",
)
QUICK_VARIANTS = (
    "resnet18_025",
    "resnet18_075_all_grid",
    "resnet18_075_single_grid",
    "darknet_025",
)
GRAPH_VARIANTS = ("resnet18_025",)
pytestmark = pytest.mark.graph(when="smallest")
# Trainable numbers of the published table, which was counted with two classes
PUBLISHED = {
    ("resnet18", 0.25): 0.87,
    ("resnet18", 0.5): 3.46,
    ("resnet18", 0.75): 7.76,
    ("resnet18", 1.0): 13.78,
    ("resnet34", 0.75): 13.45,
    ("resnet50", 0.75): 36.49,
    ("darknet", 0.25): 3.20,
    ("darknet", 0.5): 12.76,
    ("darknet", 0.75): 28.68,
    ("darknet", 1.0): 50.94,
}


@pytest.fixture(scope="module")
def outputs(golden_case):
    """All outputs of the seeded network on the case's images, with the case's arrays."""
    model = seeded_network(golden_case)
    found = outputs_of(
        Everything(model), golden_case.images(*np.array(meta_of(golden_case)["input"])[[0, 2, 3]])
    )
    maps = {form: as_stored(found[form]) for form in ("heads", "deploy")}
    return {**found, **maps, "arrays": golden_case.arrays()}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("form", ["heads", "deploy"])
def test_raw_heads_equal_the_original(outputs, form, level):
    wanted = outputs["arrays"][f"eval_l{level}"]
    got = thinned(outputs[form][level], wanted)
    assert relative_l2(got, wanted) < 1e-5
    np.testing.assert_allclose(
        got, wanted, rtol=0, atol=1e-4 if np.abs(wanted).max() < 10 else 1e-3
    )


def test_decoded_rows_equal_the_original(outputs):
    wanted = outputs["arrays"]["eval_decoded"]
    got = thinned(outputs["decoded"], wanted)
    assert relative_l2(got, wanted) < 1e-5
    np.testing.assert_allclose(got[..., 1:5], wanted[..., 1:5], rtol=1e-5, atol=0.05)
    np.testing.assert_allclose(
        np.delete(got, (1, 2, 3, 4), 2), np.delete(wanted, (1, 2, 3, 4), 2), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("form", ["predicted", "deploy_predicted"])
def test_predict_gives_corners_inside_the_input_and_products(golden_case, outputs, form):
    boxes, scores = outputs[form]
    decoded, side = outputs["decoded"], meta_of(golden_case)["input"][2]
    centers, halves = decoded[..., 1:3], decoded[..., 3:5] / 2
    wanted = np.clip(np.concatenate((centers - halves, centers + halves), 2), 0, side)
    np.testing.assert_allclose(boxes, wanted, rtol=1e-5, atol=0.05)
    np.testing.assert_allclose(scores, decoded[..., :1] * decoded[..., 5:], rtol=0, atol=1e-5)


def test_detections_equal_the_original(outputs):
    """Compared as sets: scores of neighbors differ by less than the rounding, and boxes clipped to
    nothing may be equal.
    """
    arrays = outputs["arrays"]
    for image, (boxes, scores) in enumerate(zip(*outputs["predicted"], strict=True)):
        found = nms(
            boxes,
            scores,
            NMSOptions(
                conf_thres=float(arrays["post_conf_thres"]),
                iou_thres=float(arrays["post_iou_thres"]),
                max_detections=100,
            ),
        )
        wanted = arrays["post_dets"][arrays["post_dets"][:, 0] == image][:, 1:]
        assert len(found) == len(wanted) > 0
        for row in wanted:
            close = np.abs(found - row) < (0.05, 0.05, 0.05, 0.05, 1e-5, 0.5)
            assert close.all(1).any(), row


def test_every_stored_variant_is_there(golden):
    """Cases are found by their files; a lost file would remove its tests without notice."""
    if golden.root != DEFAULT_GOLDEN:
        pytest.skip("only the default folder must be complete")
    assert {case.variant for case in golden_cases(golden.root, FAMILY)} == set(VARIANTS)


def test_the_default_cases_hold_what_the_tests_read(golden_case):
    """If a case of the default folder lost an array, its tests would only be skipped."""
    if not golden_case.default:
        pytest.skip("only the default folder must be complete")
    arrays = golden_case.arrays()
    assert set(arrays) >= {
        *(f"eval_l{i}" for i in LEVELS),
        "eval_decoded",
        "post_dets",
        "post_conf_thres",
    }
    assert len(arrays["post_dets"]) > 20 and len(arrays["eval_decoded"]) == 2


def test_names_and_numbers_of_the_original(golden_case):
    meta = meta_of(golden_case)
    keys = json.loads((golden_case.variant_folder / "keys.json").read_text())
    wanted = {
        name: tuple(shape) for name, shape, _ in keys if not name.endswith("num_batches_tracked")
    }
    model = new_network(golden_case)
    assert {
        original_name(name): tuple(p.shape) for name, p in model.parameters_and_names()
    } == wanted
    assert all(name == p.name for name, p in model.parameters_and_names())
    assert number_of(model.trainable_params()) == meta["params"]
    norms = [cell for _, cell in model.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    assert norms and {(cell.eps, round(cell.momentum, 6)) for cell in norms} == {
        (meta["bn_eps"], meta["bn_momentum"])
    }  # the cell keeps PyTorch's form of the momentum
    deploy = model.to_deploy()
    assert not any(isinstance(cell, nn.BatchNorm2d) for _, cell in deploy.cells_and_names())


@pytest.mark.parametrize("backbone, sparsity", PUBLISHED)
def test_the_published_numbers_were_counted_with_two_classes(backbone, sparsity):
    model = create_model(f"simple_yolo_{backbone}", 2, channel_sparsity=sparsity)
    millions = number_of(model.trainable_params()) / 1e6
    assert millions == pytest.approx(PUBLISHED[backbone, sparsity], abs=5.1e-3)


def test_resnet101_has_the_parameters_of_the_original():
    model = create_model("simple_yolo_resnet101", 20)
    assert number_of(model.trainable_params()) == 47_328_432


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_centres_reach_as_far_as_the_assignment_says(assignment):
    """Logits of plus and minus infinity, in the cells to the left of the box's own."""
    model = create_model(
        "simple_yolo_resnet18",
        3,
        channel_sparsity=0.0625,
        assignment=assignment,
        input_size=(64, 96),
    )
    rows = model.priors(64, 96)

    def reach(cells):
        return {"single_grid": (0, 1), "nearby_grid": (-1, 2), "all_grid": (-cells, cells)}[
            assignment
        ]

    for sign, end in ((-1, 0), (1, 1)):
        logits = np.full((1, 4, len(rows.x)), sign * 100.0, np.float32)
        x, y, width, height = (v.asnumpy()[0] for v in model.boxes_of(Tensor(logits), (64, 96)))
        for level, stride in enumerate(model.strides):
            of = rows.level == level
            column, row = rows.x[of] / stride - 0.5, rows.y[of] / stride - 0.5
            np.testing.assert_allclose(x[of] / stride, column + reach(96 // stride)[end], atol=1e-4)
            np.testing.assert_allclose(y[of] / stride, row + reach(64 // stride)[end], atol=1e-4)
        np.testing.assert_allclose(width, sign * 400 * rows.width, rtol=1e-6)  # linear, below 0 too
        np.testing.assert_allclose(height, sign * 400 * rows.height, rtol=1e-6)


def test_one_class_is_scored_by_its_objectness():
    model = create_model(
        "simple_yolo_resnet18", 1, channel_sparsity=0.0625, input_size=(64, 64)
    ).set_train(False)
    images = Tensor(np.random.RandomState(0).normal(0, 1, (1, 3, 64, 64)).astype(np.float32))
    _, scores = model.predict(images)
    decoded = model.decode(model(images)).asnumpy()
    assert scores.shape == (1, 3 * (64 + 16 + 4), 1)
    np.testing.assert_allclose(scores.asnumpy()[..., 0], decoded[..., 0], atol=1e-6)


@pytest.mark.parametrize("act", [name for name in ACTIVATIONS if name != "relu"])
def test_other_activations(act):
    """Each against its formula, and a whole network that uses it everywhere."""
    formulas = {
        "relu6": lambda x: np.clip(x, 0, 6),
        "leakyrelu": lambda x: np.where(x > 0, x, 0.01 * x),
        "prelu": lambda x: np.where(x > 0, x, 0.25 * x),
        "celu": lambda x: np.where(x > 0, x, np.expm1(x)),
        "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
        "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
        "hardtanh": lambda x: np.clip(x, -1, 1),
        "none": lambda x: x,
        "tanh": np.tanh,
        "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))),
        "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    }
    x = np.linspace(-8, 8, 97).astype(np.float32).reshape(1, 1, 1, 97)
    np.testing.assert_allclose(
        ACTIVATIONS[act]()(Tensor(x)).asnumpy(),
        formulas[act](x.astype(np.float64)),
        atol=2e-4 if act == "tanh" else 2e-5,
    )  # MindSpore's tanh on a CPU
    model = create_model(
        "simple_yolo_resnet18", 2, channel_sparsity=0.0625, act=act, input_size=(32, 32)
    )
    kinds = {
        type(cell) for _, cell in model.cells_and_names() if type(cell) is type(ACTIVATIONS[act]())
    }
    assert kinds and not any(isinstance(cell, nn.ReLU) for _, cell in model.cells_and_names())
    assert np.isfinite(
        model.set_train(False)(Tensor(np.ones((1, 3, 32, 32), np.float32)))[0].asnumpy()
    ).all()


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({"channel_sparsity": 1.25}, "at most 1 for a ResNet and 4 for a darknet, got 1.25"),
        ({"channel_sparsity": 0}, "above 0"),
        ({"channel_sparsity": 0.3}, "leaves 153 channels at stride 32, wanted a multiple of 4"),
        ({"assignment": "every_grid"}, "assignment must be one of .* got 'every_grid'"),
        ({"act": "swish"}, "got 'swish'"),
        ({"anchors": [[1, 2]] * 4}, "the same number for each of 3 levels"),
        ({"num_classes": 0}, "at least 1, got 0"),
    ],
)
def test_wrong_keywords(keywords, message):
    with pytest.raises(ValueError, match=message):
        create_model("simple_yolo_resnet18", **keywords)

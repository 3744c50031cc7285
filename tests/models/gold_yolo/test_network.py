"""Gold-YOLO's networks against arrays of the original program; tolerances are in
tests/golden/README.md.
"""

import json

import numpy as np
import pytest
from helpers import original_name
from models.gold_yolo.case import (
    BATCH,
    SIDE,
    form_of,
    meta_of,
    scale_of,
    seeded_model,
    stored,
    training_step,
)
from networks import ModelAndDeploy, number_of, outputs_of

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.evaluation.nms import NMSOptions, nms
from mindyolo_ext.models.registry import create_model

FAMILY = "gold_yolo"
QUICK_VARIANTS = (
    "gold_yolo_n",
    "gold_yolo_n/plain",
    "gold_yolo_n/distill",
    "gold_yolo_s",
)
GRAPH_VARIANTS = ("gold_yolo_n",)
pytestmark = pytest.mark.graph(when="smallest")
LEVELS = ("p3", "p4", "p5")
CONSTANTS = {"detect.proj", "detect.proj_conv.weight"}
TORCH_NORMS = ("neck.high_IFM.", "neck.Inject_")  # with PyTorch's own constants
# norms that the original's deploy form keeps
UNFOLDED = (*TORCH_NORMS, "neck.low_IFM.0.", "neck.low_IFM.4.")
ROW_STEP, RECT_ROW_STEP = 7, 11


class Everything(ModelAndDeploy):
    """Neck, raw heads, decoded rows, deploy form and both predictions in one graph."""

    names = ("neck", "heads", "decoded", "deploy", "predicted", "deploy_predicted")

    def construct(self, images):
        neck, heads = self.model.neck_and_heads(images)
        return (
            neck,
            heads,
            self.model.decode(heads),
            self.deploy(images),
            self.model.predict(images),
            self.deploy.predict(images),
        )


@pytest.fixture(scope="module")
def network(golden_case):
    return Everything(seeded_model(golden_case))


@pytest.fixture(scope="module")
def outputs(golden_case, network):
    """All outputs of the seeded network on the case's images, with the case's arrays."""
    arrays = golden_case.arrays()
    if "eval_boxes" not in arrays:
        pytest.skip("this folder holds training arrays only")
    return {
        **outputs_of(network, golden_case.images(BATCH, SIDE, SIDE)),
        "arrays": arrays,
    }


def check_rows(rows: np.ndarray, arrays: dict[str, np.ndarray], kind: str, step: int) -> None:
    """Compare the boxes of all rows and every ``step``-th complete row with ``<kind>_boxes`` and
    ``<kind>_pred``.
    """
    np.testing.assert_allclose(rows[..., :4], arrays[f"{kind}_boxes"], rtol=0, atol=3e-3)
    np.testing.assert_allclose(
        rows[:, ::step, 4:], arrays[f"{kind}_pred"][..., 4:], rtol=0, atol=1e-5
    )


def test_the_default_cases_hold_what_the_tests_read(golden_case):
    """If a case of the default folder lost an array, its tests would only be skipped."""
    wanted = {
        "eval_boxes",
        "eval_pred",
        "eval_score_sum",
        "deploy_boxes",
        "deploy_pred",
        "rect_boxes",
        "rect_pred",
        "rect_score_sum",
    }
    if training_step(golden_case) == "fuse_ab":
        wanted |= {"post_detections"} | {
            f"eval_{kind}_{level}" for level in LEVELS for kind in ("cls", "reg", "neck")
        } - {f"eval_neck_{x}" for x in LEVELS}
        wanted |= {f"eval_neck_{level}_{kind}" for level in LEVELS for kind in ("mean", "std")}
    if form_of(golden_case) == "distill":
        wanted |= {f"eval_lrtb_{level}" for level in LEVELS}
    if training_step(golden_case) != "distill" or form_of(golden_case) == "distill":
        assert set(golden_case.arrays()) >= wanted


@pytest.mark.parametrize("kind, place", [("cls", 0), ("reg", 1), ("lrtb", 2)])
def test_raw_heads_equal_the_original(outputs, kind, place):
    per_level = len(outputs["heads"]) // len(LEVELS)
    for level, name in enumerate(LEVELS):
        # of s, m and l the first image only
        wanted = stored(outputs["arrays"], f"eval_{kind}_{name}")
        got = outputs["heads"][per_level * level + place][: len(wanted)]
        np.testing.assert_allclose(got, wanted, rtol=0, atol=5e-5)


def test_neck_equals_the_original(outputs):
    for name, feature in zip(LEVELS, outputs["neck"], strict=True):
        np.testing.assert_allclose(
            feature.mean((2, 3)),
            stored(outputs["arrays"], f"eval_neck_{name}_mean"),
            rtol=0,
            atol=5e-5,
        )
        np.testing.assert_allclose(
            feature.std((2, 3), ddof=1),
            outputs["arrays"][f"eval_neck_{name}_std"],
            rtol=0,
            atol=5e-5,
        )


def test_decoded_rows_equal_the_original(outputs):
    check_rows(outputs["decoded"], outputs["arrays"], "eval", ROW_STEP)
    np.testing.assert_allclose(
        outputs["decoded"][..., 5:].sum(2), outputs["arrays"]["eval_score_sum"], rtol=0, atol=1e-4
    )


def test_deploy_form_equals_the_original(outputs):
    check_rows(outputs["deploy"], outputs["arrays"], "deploy", ROW_STEP)


@pytest.mark.graph(when="all_cases")
def test_sizes_that_do_not_divide_evenly(golden_case, network):
    """160 x 224: the coarsest map is 5 x 7, and the bins of the average pooling overlap."""
    arrays = golden_case.arrays()
    wanted = stored(arrays, "rect_boxes")
    decoded, deploy = (x.asnumpy() for x in network(Tensor(golden_case.images(1, 160, 224)))[2:4])
    assert decoded.shape[1] == wanted.shape[1] == 735
    for rows in (decoded, deploy):
        check_rows(rows, arrays, "rect", RECT_ROW_STEP)
        np.testing.assert_allclose(
            rows[..., 5:].sum(2), arrays["rect_score_sum"], rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("form", ["predicted", "deploy_predicted"])
def test_predict_gives_corners_and_probabilities(outputs, form):
    boxes, scores = outputs[form]
    decoded = outputs["decoded"]
    centers, halves = decoded[:, :, :2], decoded[:, :, 2:4] / 2
    np.testing.assert_allclose(
        boxes, np.concatenate((centers - halves, centers + halves), 2), rtol=0, atol=3e-3
    )
    np.testing.assert_allclose(scores, decoded[:, :, 5:], rtol=0, atol=1e-5)


def test_detections_equal_the_original(outputs, golden_case):
    """Compared as sets: scores of neighbors differ by less than the rounding."""
    rows = stored(outputs["arrays"], "post_detections")
    beside = golden_case.path.parent / "post.json"
    own = json.loads(beside.read_text()) if beside.is_file() and not golden_case.default else {}
    options = own.get(golden_case.path.stem, own) or meta_of(golden_case)["post"]
    for image, (boxes, scores) in enumerate(zip(*outputs["predicted"], strict=True)):
        found = nms(
            boxes,
            scores,
            NMSOptions(
                conf_thres=options["conf_thres"],
                iou_thres=options["iou_thres"],
                multi_label=True,
                max_detections=300,
                max_candidates=30000,
            ),
        )
        wanted = rows[rows[:, 0] == image][:, 1:]
        assert len(found) == len(wanted) > 0
        for row in wanted:
            distance = np.abs(found[:, :4] - row[:4]).max(1) + 1e3 * (found[:, 5] != row[5])
            assert distance.min() < 5e-3
            assert abs(found[distance.argmin(), 4] - row[4]) < 1e-5


def test_parameters_and_statistics_follow_the_original(golden_case):
    meta = meta_of(golden_case)
    keys = json.loads((golden_case.variant_folder / "keys.json").read_text())
    wanted = {
        name: tuple(shape) for name, shape, _ in keys if not name.endswith("num_batches_tracked")
    }
    model = create_model(scale_of(golden_case), form=form_of(golden_case))
    own = {original_name(name): tuple(p.shape) for name, p in model.parameters_and_names()}
    assert set(wanted) - set(own) == CONSTANTS and own == {
        n: s for n, s in wanted.items() if n not in CONSTANTS
    }
    assert all(name == p.name for name, p in model.parameters_and_names())
    assert number_of(model.trainable_params()) == meta["params"]
    norms = {
        name: cell for name, cell in model.cells_and_names() if isinstance(cell, nn.BatchNorm2d)
    }
    for name, cell in norms.items():  # the cell keeps PyTorch's form of the momentum
        constants = (1e-5, 0.1) if name.startswith(TORCH_NORMS) else (1e-3, 0.03)
        assert (cell.eps, round(cell.momentum, 6)) == constants, name
    # Here all norms are folded; those that the original keeps have scale and shift where this has
    # a bias
    kept = number_of([c.gamma for name, c in norms.items() if name.startswith(UNFOLDED)])
    assert number_of(model.to_deploy().get_parameters()) == meta["params_deploy"] - kept


@pytest.mark.parametrize(
    "name, millions",
    [("gold_yolo_n", 5.6), ("gold_yolo_s", 21.5), ("gold_yolo_m", 41.3), ("gold_yolo_l", 75.1)],
)
def test_published_parameter_counts(name, millions):
    """Counted as in the original, in its deploy form."""
    model = create_model(name, form="distill" if name[-1] in "ns" else "plain")
    norms = {
        n: c
        for n, c in model.cells_and_names()
        if isinstance(c, nn.BatchNorm2d) and n.startswith(UNFOLDED)
    }
    count = number_of(
        [*model.to_deploy().get_parameters(), *(norm.gamma for norm in norms.values())]
    )
    assert round(count / 1e6, 1) == millions


def test_initial_weights():
    """Kernels are uniform as in PyTorch, normal in the injections; predictors are zero, with a low
    class probability.
    """
    model = create_model("gold_yolo_n", 3, form="fuse_ab")
    kernel = model.neck.Rep_n5.conv1.rbr_dense.conv.weight.asnumpy()
    bound = 1 / np.sqrt(np.prod(kernel.shape[1:]))
    assert (
        0.99 * bound < np.abs(kernel).max() <= bound
        and abs(kernel.std() - bound / np.sqrt(3)) < 0.02 * bound
    )
    kernel = model.neck.Inject_n5.global_act.conv.weight.asnumpy()
    assert abs(kernel.std() - np.sqrt(2 / len(kernel))) < 0.03 * kernel.std()
    assert np.abs(kernel).max() > 2.5 * kernel.std()  # not uniform
    for predictors, bias in (
        (model.detect.cls_preds_af, -np.log(99)),
        (model.detect.cls_preds_ab, -np.log(99)),
        (model.detect.reg_preds_af, 1),
        (model.detect.reg_preds_ab, 1),
    ):
        for predictor in predictors:
            assert not predictor.weight.asnumpy().any()
            np.testing.assert_allclose(predictor.bias.asnumpy(), bias, rtol=1e-6)
    for block in model.neck.high_IFM.transformer_blocks:
        assert (
            not block.attn.proj[1].bn.gamma.asnumpy().any()
            and block.mlp.fc2.bn.gamma.asnumpy().all()
        )


def test_fresh_boxes_reach_eight_cells_to_each_side():
    """Before the first step, all bins are equally likely."""
    model = Everything(create_model("gold_yolo_n", 3))
    boxes, scores = (x.asnumpy() for x in model(Tensor(np.zeros((1, 3, 64, 64), np.float32)))[4])
    np.testing.assert_allclose(boxes[0, 0], [4 - 64, 4 - 64, 4 + 64, 4 + 64], atol=1e-3)
    np.testing.assert_allclose(boxes[0, -1], [48 - 256, 48 - 256, 48 + 256, 48 + 256], atol=1e-3)
    np.testing.assert_allclose(scores, 0.01, atol=1e-6)


def test_unknown_forms_and_no_classes_are_refused():
    with pytest.raises(ValueError, match="form must be one of .*'distill'.*, got 'fuse'"):
        create_model("gold_yolo_n", form="fuse")
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        create_model("gold_yolo_s", num_classes=0)

"""Yolo-FastestV2's loss against arrays of the original program; tolerances are in
tests/golden/README.md.
"""

import numpy as np
import pytest
from gradients import Gradients, LossAndHeads, nesterov_totals, norms_and_sums, original_order
from helpers import load_weights, padded_targets, relative_l2

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.gradients import value_and_grad
from mindyolo_ext.losses.assign.anchor_ratio import Assignment
from mindyolo_ext.models.registry import create_model, create_trainable

FAMILY = "yolo_fastestv2"
GRAPH_VARIANTS = ("yolo_fastestv2",)
pytestmark = pytest.mark.graph(when="smallest")
HEADS = ("reg_s16", "obj_s16", "cls_s16", "reg_s32", "obj_s32", "cls_s32")
CASES = ("empty", "border", "unmatched", "crowd")


class HeadsToLoss(nn.Cell):
    """Only the loss, as a function of the six heads."""

    def __init__(self, trainable: nn.Cell):
        super().__init__(auto_prefix=False)
        self.trainable = trainable

    def construct(self, reg16, obj16, cls16, reg32, obj32, cls32, targets, mask):
        return self.trainable.loss((reg16, obj16, cls16, reg32, obj32, cls32), targets, mask)


class Runs:
    """One case's network with compiled steps in training and evaluation mode."""

    def __init__(self, case):
        self.case, self.arrays = case, case.arrays()
        self.batch, _, height, width = self.arrays["eval_reg_s16"].shape
        self.grid, classes = (height, width), self.arrays["eval_cls_s16"].shape[1]
        self.model = create_model("yolo_fastestv2", classes)
        self.trainable = create_trainable("yolo_fastestv2_loss", self.model)
        self.parameters = self.model.trainable_params()
        targets, mask = padded_targets(case.boxes(self.batch, 6, classes), self.batch, 8)
        self.inputs = [
            Tensor(x) for x in (case.images(self.batch, 16 * height, 16 * width), targets, mask)
        ]
        self.steps = {mode: Gradients(LossAndHeads(self.trainable)) for mode in (True, False)}
        self.order = original_order(case, self.model)

    def reset(self) -> None:
        load_weights(self.model, self.case.weights())

    def step(self, training: bool):
        """Total, terms, heads and gradients as arrays."""
        (total, terms, heads), gradients = self.steps[training].set_train(training)(*self.inputs)
        return (
            float(total.asnumpy()),
            terms.asnumpy(),
            dict(zip(HEADS, (h.asnumpy() for h in heads), strict=True)),
            [g.asnumpy() for g in gradients],
        )


@pytest.fixture(scope="module")
def runs(golden_case):
    return Runs(golden_case)


@pytest.fixture(scope="module")
def training(runs):
    """Results of the first training step, with the running statistics after it."""
    runs.reset()
    result = runs.step(True)
    norms = {n: c for n, c in runs.model.cells_and_names() if isinstance(c, nn.BatchNorm2d)}
    ends = {"first": norms["backbone.first_conv.1"], "last": norms["fpn.cls_head_3.block.9"]}
    statistics = {
        f"{kind}_{end}": getattr(norm, f"moving_{long}").asnumpy().copy()
        for end, norm in ends.items()
        for kind, long in (("mean", "mean"), ("var", "variance"))
    }
    return result, statistics


@pytest.fixture(scope="module")
def evaluation(runs):
    runs.reset()
    return runs.step(False)


def assert_losses(arrays, prefix, total, terms, tolerance):
    for name, got in (("total", total), ("box", terms[0]), ("obj", terms[1]), ("cls", terms[2])):
        np.testing.assert_allclose(got, arrays[f"{prefix}_{name}"], rtol=tolerance, err_msg=name)


def test_loss_in_evaluation_mode(runs, evaluation):
    assert_losses(runs.arrays, "evalloss", evaluation[0], evaluation[1], 1e-5)


def test_gradients_in_evaluation_mode(runs, evaluation):
    norms, sums = norms_and_sums(evaluation[3], runs.order)
    np.testing.assert_allclose(norms, runs.arrays["evalgrad_l2"], rtol=2e-3)
    assert relative_l2(sums, runs.arrays["evalgrad_sum"]) < 1e-3


def test_heads_in_training_mode(runs, training):
    if "train_reg_s16" not in runs.arrays:
        pytest.skip("the case has no heads in training mode")
    for head in HEADS:
        got, wanted = training[0][2][head], runs.arrays[f"train_{head}"]
        np.testing.assert_allclose(got, wanted, rtol=0, atol=5e-3, err_msg=head)
        assert relative_l2(got, wanted) < 5e-4, head


def test_loss_in_training_mode(runs, training):
    assert_losses(runs.arrays, "loss", training[0][0], training[0][1], 1e-4)


def test_gradients_in_training_mode(runs, training):
    norms, sums = norms_and_sums(training[0][3], runs.order)
    wanted = runs.arrays["grad_l2"]
    assert relative_l2(norms, wanted) < 2e-2
    large = wanted > 1e-3  # below it: rounding around an exact zero
    # see "ReLU signs" in golden/README.md
    np.testing.assert_allclose(norms[large], wanted[large], rtol=5e-2)
    assert relative_l2(sums, runs.arrays["grad_sum"]) < 1e-1


@pytest.mark.parametrize("name", ["mean_first", "var_first", "mean_last", "var_last"])
def test_running_statistics_after_a_step(runs, training, name):
    if f"bn_running_{name}" not in runs.arrays:
        pytest.skip("the case has no running statistics")
    np.testing.assert_allclose(
        training[1][name], runs.arrays[f"bn_running_{name}"], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "name,rate,tolerance", [("traj_loss", 1e-3, 4e-2), ("traj_small_loss", 1e-6, 2e-3)]
)
def test_five_steps_of_nesterov_sgd(runs, name, rate, tolerance):
    runs.reset()

    def step():
        total, _, _, gradients = runs.step(True)
        return total, gradients

    totals = nesterov_totals(step, runs.parameters, rate=rate, steps=len(runs.arrays[name]))
    np.testing.assert_allclose(totals[0], runs.arrays["loss_total"], rtol=1e-4)
    np.testing.assert_allclose(totals[1:], runs.arrays[name][1:], rtol=tolerance)


def rows_of(found: Assignment) -> dict[str, np.ndarray]:
    """The matches as the original lists them: image, anchor, gy, gx; box; class; index of the
    anchor.
    """
    found = Assignment(*(part.asnumpy() for part in found))
    copy, anchor, box = np.nonzero(found.matched)
    index = (found.image[box], anchor, found.cell_y[copy, box], found.cell_x[copy, box])
    boxes = (
        found.offset_x[copy, box],
        found.offset_y[copy, box],
        found.width[box],
        found.height[box],
    )
    return {"index": np.stack(index, 1), "box": np.stack(boxes, 1), "class": found.label[box]}


def assert_assignment(arrays, prefix, rows):
    np.testing.assert_array_equal(rows["index"], arrays[f"{prefix}_index"])
    np.testing.assert_array_equal(rows["class"], arrays[f"{prefix}_class"])
    np.testing.assert_allclose(rows["box"], arrays[f"{prefix}_box"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", [0, 1])
def test_assignment(runs, level):
    stride, prefix = runs.model.strides[level], f"assign_s{runs.model.strides[level]}"
    height, width = (side // (level + 1) for side in runs.grid)
    rows = rows_of(Assignment(*runs.trainable.assigners[level](*runs.inputs[1:], height, width)))
    assert_assignment(runs.arrays, prefix, rows)
    anchors = np.array(runs.model.anchors).reshape(2, -1, 2)[level] / stride
    np.testing.assert_allclose(
        anchors[rows["index"][:, 1]], runs.arrays[f"{prefix}_anchor"], rtol=0, atol=1e-5
    )


@pytest.fixture(scope="module")
def synthetic():
    """The loss and its gradients on the six synthetic heads of loss_cases.npz, for any targets of
    25 boxes.
    """
    trainable = create_trainable("yolo_fastestv2_loss", create_model("yolo_fastestv2"))
    random = np.random.RandomState(21)
    heads = [
        random.standard_normal((2, channels, side, side)).astype(np.float32)
        for side in (12, 6)
        for channels in (12, 3, 80)
    ]
    function = value_and_grad(HeadsToLoss(trainable), (0, 1, 2, 3, 4, 5), None, has_aux=True)

    def run(targets, mask, replaced=None):
        inputs = [Tensor(h) for h in (replaced or heads)]
        (total, terms), gradients = function(*inputs, Tensor(targets), Tensor(mask))
        return float(total.asnumpy()), terms.asnumpy(), [g.asnumpy() for g in gradients]

    run.trainable, run.heads = trainable, heads
    return run


@pytest.mark.parametrize("name", CASES)
def test_loss_cases(golden, synthetic, name):
    arrays = golden.arrays("yolo_fastestv2/loss_cases.npz")
    targets, mask = padded_targets(arrays[f"{name}_targets"], 2, 25)
    total, terms, gradients = synthetic(targets, mask)
    np.testing.assert_allclose([*terms, total], arrays[f"{name}_loss"], rtol=1e-5)
    norms = [np.linalg.norm(g.astype(np.float64)) for g in gradients]
    np.testing.assert_allclose(norms, arrays[f"{name}_grad_l2"], rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("level,side", [(0, 12), (1, 6)])
def test_assignment_of_loss_cases(golden, synthetic, name, level, side):
    arrays = golden.arrays("yolo_fastestv2/loss_cases.npz")
    targets, mask = (Tensor(x) for x in padded_targets(arrays[f"{name}_targets"], 2, 25))
    rows = rows_of(Assignment(*synthetic.trainable.assigners[level](targets, mask, side, side)))
    image_order = np.argsort(arrays[f"{name}_targets"][:, 0], kind="stable")
    assert (image_order == np.arange(len(image_order))).all(), (
        "the rows are sorted by image, as padding keeps them"
    )
    assert_assignment(arrays, f"{name}_assign_s{16 * (level + 1)}", rows)


def box(*values: float) -> tuple[np.ndarray, np.ndarray]:
    """Targets and mask of two images with 25 places, one box in the first."""
    return padded_targets(np.array([[0, *values]], np.float32), 2, 25)


def test_without_boxes_only_the_objectness_remains(synthetic):
    total, terms, gradients = synthetic(
        np.zeros((2, 25, 5), np.float32), np.zeros((2, 25), np.float32)
    )
    assert terms[0] == terms[2] == 0 and total == terms[1] > 0
    for gradient, is_object in zip(gradients, (False, True, False) * 2, strict=True):
        assert bool(np.abs(gradient).max() > 0) == is_object


def test_padding_and_order_change_nothing(golden, synthetic):
    arrays = golden.arrays("yolo_fastestv2/loss_cases.npz")
    targets, mask = padded_targets(arrays["border_targets"], 2, 25)
    wanted = synthetic(targets, mask)
    filled = np.where(mask[:, :, None] > 0, targets, np.float32(0.37))
    order = np.random.RandomState(5).permutation(25)
    got = synthetic(filled[:, order], mask[:, order])
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-6)
    for one, other in zip(got[2], wanted[2], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_one_box(synthetic):
    """By hand: a box with the size of anchor 2 at stride 16, in cell (5, 5), centered there, with
    perfect logits.
    """
    heads = [
        np.full_like(h, -20.0) if h.shape[1] == 3 else np.zeros_like(h) for h in synthetic.heads
    ]
    width, height = synthetic.trainable.model.anchors[1]
    total, terms, _ = synthetic(
        *box(7, 5.5 / 12, 5.5 / 12, width / 192, height / 192), replaced=heads
    )
    # Zero logits decode to the middle of the cell and to the anchor itself. Center 5.5 has no near
    # neighbor; at stride 32 the center 2.75 has, but no anchor of that size.
    np.testing.assert_allclose(terms[0], 0, atol=1e-4)
    np.testing.assert_allclose(terms[1], 64 * 20 / (2 * 3 * 144), rtol=1e-4)
    np.testing.assert_allclose(terms[2], 32 * np.log(80) / 80, rtol=1e-5)
    np.testing.assert_allclose(total, terms.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        (0, 1.5, 1.2, 0.3, 0.3),
        (0, -0.4, 0.5, 0.2, 0.27),
        (79, 0.5, 0.5, 0, 0),
        (3, 0, 0, 1, 1),
        (3, 1, 1, 0.2, 0.3),
    ],
)
def test_odd_boxes_stay_finite(synthetic, values):
    """Boxes outside the image, without area, as large as the image, in the corner."""
    total, terms, gradients = synthetic(*box(*values))
    assert np.isfinite(total) and np.isfinite(terms).all()
    assert all(np.isfinite(g).all() for g in gradients)


def test_extreme_logits_stay_finite_where_nothing_matches(synthetic):
    heads = [np.full_like(h, -200.0) for h in synthetic.heads]
    total, _, gradients = synthetic(*box(0, 0.5, 0.5, 0.01, 0.01), replaced=heads)
    assert np.isfinite(total) and all(np.isfinite(g).all() for g in gradients)


def test_one_class_has_no_class_term():
    trainable = create_trainable(
        "yolo_fastestv2_loss", create_model("yolo_fastestv2", num_classes=1)
    )
    heads = [
        Tensor(np.zeros((1, channels, side, side), np.float32))
        for side in (4, 2)
        for channels in (12, 3, 1)
    ]
    targets = Tensor(np.array([[[0, 0.5, 0.5, 0.6, 0.8]]], np.float32))
    _, terms = HeadsToLoss(trainable)(*heads, targets, Tensor(np.ones((1, 1), np.float32)))
    assert terms.asnumpy()[2] == 0 and terms.asnumpy()[0] > 0


def test_wrong_settings_are_refused():
    model = create_model("yolo_fastestv2")
    with pytest.raises(ValueError, match="balance needs 2 factors"):
        create_trainable("yolo_fastestv2_loss", model, balance=(1.0,))
    with pytest.raises(ValueError, match="ratio_threshold must be above 1, got 1"):
        create_trainable("yolo_fastestv2_loss", model, ratio_threshold=1)
    model.family = "other"
    with pytest.raises(ValueError, match="got family 'other'"):
        create_trainable("yolo_fastestv2_loss", model)
    with pytest.raises(ValueError, match="unknown loss 'none'"):
        create_trainable("none", model)

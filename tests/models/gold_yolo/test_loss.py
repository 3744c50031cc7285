"""Gold-YOLO's losses through the whole network against arrays of the original program.

Tolerances are in tests/golden/README.md. One graph gives all arrays in training mode: the totals of
the two assigners (or the distillation with and without features) are weighted inputs, and so is
stochastic depth.
"""

import numpy as np
import pytest
from gradients import Gradients, nesterov_totals, norms_and_sums, original_order
from helpers import load_weights, padded_targets
from models.gold_yolo.case import (
    BATCH,
    BOXES,
    CLASSES,
    SIDE,
    meta_of,
    seeded_model,
    seeded_teacher,
    stored,
    training_step,
)
from modes import as_graph, is_graph
from networks import number_of

from mindyolo_ext.backend import Tensor, nn, ops
from mindyolo_ext.backend.distributed import freeze_batch_norm
from mindyolo_ext.contracts import StepClock
from mindyolo_ext.models.registry import create_trainable

FAMILY = "gold_yolo"
QUICK_VARIANTS = ("gold_yolo_n", "gold_yolo_n/plain", "gold_yolo_n/distill")
GRAPH_VARIANTS = ("gold_yolo_n",)
pytestmark = pytest.mark.graph(when="smallest")
EPOCHS = 300
FIRST, SECOND = (1.0, 0.0), (0.0, 1.0)  # shares: TAL alone, ATSS alone
BOTH = (1.0, 1.0)


class BothAssigners(nn.Cell):
    """Totals with either assigner, with the intermediate results that the case stores."""

    def __init__(self, model: nn.Cell, iou: str):
        super().__init__(auto_prefix=False)
        self.model = model
        self.tal = create_trainable("gold_yolo_loss", model, assigner="tal", iou=iou)
        self.atss = create_trainable("gold_yolo_loss", model, assigner="atss", iou=iou)
        self.with_anchors = model.form == "fuse_ab"

    def construct(self, images, targets, mask, keep, shares):
        heads = self.model(images, keep)
        first, first_terms = self.tal.loss(heads, targets, mask)
        second, second_terms = self.atss.loss(heads, targets, mask)
        outputs = self.model.flat(heads)
        if self.with_anchors:
            outputs = outputs + self.model.flat_ab(heads)
        return first * shares[0] + second * shares[1], first_terms, second_terms, outputs, heads


class Distillation(nn.Cell):
    """Total of the student, with a separate weight for the features' term."""

    def __init__(self, model: nn.Cell, iou: str, teacher: nn.Cell, weights: dict[str, float]):
        super().__init__(auto_prefix=False)
        self.model, self.teacher = model, teacher
        self.trainable = create_trainable(
            "gold_yolo_distill_loss",
            model,
            teacher=teacher,
            iou=iou,
            features=True,
            distill_class=weights["class"],
            distill_dfl=weights["dfl"],
        )

    def construct(self, images, targets, mask, keep, shares):
        ours, heads = self.model.neck_and_heads(images, keep)
        theirs, teacher_heads = self.teacher.neck_and_heads(images)
        _, terms = self.trainable.loss(heads, targets, mask, teacher_heads, (ours, theirs))
        total = ops.sum(terms[:5]) + terms[5] * shares[1]
        return total, terms, terms, self.model.flat(heads) + self.teacher.flat(teacher_heads), heads


class Assigned(nn.Cell):
    """Assignment of one branch as the original stores it."""

    def __init__(self, trainable: nn.Cell):
        super().__init__(auto_prefix=False)
        self.trainable = trainable

    def construct(self, heads, targets, mask):
        return (
            *self.trainable.assign(heads, targets, mask),
            ops.stack(self.trainable.wanted(heads, targets, mask), 2),
        )


class AssignedToAnchors(nn.Cell):
    """The same of the anchor branch."""

    def __init__(self, trainable: nn.Cell):
        super().__init__(auto_prefix=False)
        self.trainable = trainable

    def construct(self, heads, targets, mask):
        model, wanted = self.trainable.model, self.trainable.wanted(heads, targets, mask)
        classes, boxes = model.flat_ab(heads)
        x, y, half_width, half_height = (
            boxes[:, 0],
            boxes[:, 1],
            boxes[:, 2] * 0.5,
            boxes[:, 3] * 0.5,
        )
        distances = ops.stack((half_width - x, half_height - y, half_width + x, half_height + y), 1)
        found = self.trainable.anchor_branch.assign(
            classes, distances, (*model.points_ab(heads), ()), wanted, mask
        )
        return (*found, ops.stack(wanted, 2))


class Step:
    """The results of one run of the compiled step."""

    def __init__(self, result):
        (total, first, second, outputs, heads), gradients = result
        self.total, self.terms, self.second_terms = (
            float(total.asnumpy()),
            first.asnumpy(),
            second.asnumpy(),
        )
        self.outputs, self.heads = [x.asnumpy() for x in outputs], heads
        self.gradients = [g.asnumpy() for g in gradients]
        self.statistics, self.norms_and_sums = {}, ()


class Runs:
    """One case's network and its compiled step; results by statistics, shares, epoch and
    stochastic depth.
    """

    def __init__(self, case, all_cases):
        self.all_cases = all_cases
        self.case, self.arrays, self.kind, self.meta = (
            case,
            case.arrays(),
            training_step(case),
            meta_of(case),
        )
        self.inputs = [
            Tensor(x)
            for x in (
                case.images(BATCH, SIDE, SIDE),
                *padded_targets(case.boxes(BATCH, BOXES, CLASSES), BATCH, 8),
            )
        ]
        self.networks = {}
        self.found = {}

    def network(self, frozen: bool):
        """The compiled step with the statistics of the batch, or with stored ones."""
        if frozen not in self.networks:
            model = seeded_model(self.case)
            iou, teacher = (
                self.meta["loss_iou_type"],
                seeded_teacher(self.case) if self.kind == "distill" else None,
            )
            for cell in (
                (model, teacher) if frozen and teacher is not None else (model,) if frozen else ()
            ):
                freeze_batch_norm(cell)
            whole = (
                BothAssigners(model, iou)
                if teacher is None
                else Distillation(model, iou, teacher, self.meta["head_cfg"]["distill_weight"])
            )
            self.networks[frozen] = whole, Gradients(whole).set_train(True)
        return self.networks[frozen]

    def step(
        self, *, frozen: bool = False, shares=FIRST, epoch: int = 0, keep: np.ndarray | None = None
    ) -> Step:
        whole, gradients = self.network(frozen)
        if self.kind == "distill":
            whole.trainable.begin_step(StepClock(0, epoch, EPOCHS))
        calls = len(whole.model.drop_rates)
        keep = np.ones((calls, BATCH), np.float32) if keep is None else keep
        return Step(gradients(*self.inputs, Tensor(keep), Tensor(np.array(shares, np.float32))))

    def mode(self, frozen: bool):
        """Each step is a graph of its own; the quick suite compiles the one with the narrow
        tolerances. Weights have to be set in the mode in which they are used.
        """
        return as_graph(is_graph() and (frozen or self.all_cases))

    def first(self, **keywords) -> Step:
        """``step`` from the seeded weights, once for the same keywords."""
        key = str(sorted((name, str(value)) for name, value in keywords.items()))
        if key not in self.found:
            with self.mode(keywords.get("frozen", False)):
                model = self.network(keywords.get("frozen", False))[0].model
                load_weights(model, self.case.weights())
                step = self.found[key] = self.step(**keywords)
            step.statistics = {
                n: p.asnumpy().copy() for n, p in model.parameters_and_names() if "moving_" in n
            }
            step.norms_and_sums = norms_and_sums(step.gradients, original_order(self.case, model))
            step.gradients = []  # of the largest scale 300 MB
        return self.found[key]

    def usual(self, frozen: bool = False) -> Step:
        """The step whose gradients the case stores."""
        return self.first(frozen=frozen, epoch=100 if self.kind == "distill" else 0)


@pytest.fixture(scope="module")
def runs(golden_case, all_cases):
    found = Runs(golden_case, all_cases)
    yield found
    found.networks.clear()
    found.found.clear()


def items_of(terms: np.ndarray) -> np.ndarray:
    """Our terms as the original's IoU, DFL and class."""
    if len(terms) == 5:  # both branches
        return np.array([terms[0] + terms[3], terms[1], terms[2] + terms[4]])
    return terms


def check_loss(
    runs: Runs, step_terms: np.ndarray, name: str, tolerances: tuple[float, float]
) -> None:
    """Compare total and items, also of each branch; ``tolerances`` are of the anchor-free branch
    and of the rest.
    """
    free, rest = tolerances
    two = len(step_terms) == 5
    checks = [(name, items_of(step_terms), rest if two else free)]
    if two:
        checks += [
            (f"{name}_af", step_terms[:3], free),
            (f"{name}_ab", np.array([step_terms[3], 0, step_terms[4]]), rest),
        ]
    for prefix, items, tolerance in checks:
        np.testing.assert_allclose(
            items.sum(), stored(runs.arrays, f"{prefix}_total")[0], rtol=tolerance
        )
        np.testing.assert_allclose(
            items, runs.arrays[f"{prefix}_items"], rtol=tolerance, atol=1e-6, err_msg=prefix
        )


def test_the_default_cases_hold_what_the_tests_read(golden_case):
    """If a case of the default folder lost an array, its tests would only be skipped."""
    wanted = {
        "traj_loss",
        "traj_bneval_loss",
        "grad_l2",
        "grad_sum",
        "grad_bneval_l2",
        "grad_bneval_sum",
        "bn_running_first_mean",
        "bn_running_last_var",
        "bn_running_sync_mean",
        "loss_bneval_total",
    }
    if training_step(golden_case) == "distill":
        wanted |= {
            f"loss_{name}_{part}"
            for name in ("distill0", "distill100", "distill_feat", "bneval")
            for part in ("total", "items", "d_cls", "d_dfl")
        } | {"teacher_cls_sum", "assign_distill_boxes"}
    else:
        wanted |= {f"loss_{name}_{part}" for name in ("tal", "atss") for part in ("total", "items")}
        wanted |= {
            f"assign_{name}_{part}"
            for name in ("tal", "atss")
            for part in ("fg", "label", "score", "boxes")
        }
        wanted |= {"train_cls", "train_reg_sum", "grad_atss_l2", "grad_atss_sum"}
    if training_step(golden_case) == "fuse_ab":
        wanted |= {
            "train_cls_ab",
            "train_reg_ab",
            "assign_ab_boxes",
            "droppath_cls",
            "loss_tal_ab_items",
        }
    assert set(golden_case.arrays()) >= wanted


@pytest.mark.parametrize(
    "name, place, step",
    [
        ("train_cls", 0, 7),
        ("train_reg", 1, 7),
        ("train_lrtb", 2, 1),
        ("train_cls_ab", 2, 11),
        ("train_reg_ab", 3, 1),
        ("teacher_cls", -2, 11),
        ("teacher_reg", -1, 11),
    ],
)
def test_heads_in_training_mode(runs, name, place, step):
    wanted = stored(runs.arrays, name)
    got = runs.usual().outputs[place].transpose(0, 2, 1)
    tolerance = 3e-3 if "cls" in name else 2e-2
    np.testing.assert_allclose(
        got[:, ::step], wanted, rtol=2e-3 if name == "train_reg_ab" else 0, atol=tolerance
    )
    if f"{name}_sum" in runs.arrays:
        np.testing.assert_allclose(got.sum(2), runs.arrays[f"{name}_sum"], rtol=1e-3, atol=5e-2)


@pytest.mark.parametrize(
    "end, norm",
    [
        ("first", "backbone.stem.rbr_dense.bn"),
        ("last", "detect.reg_convs.2.bn"),
        ("sync", "neck.Inject_p4.local_embedding.bn"),
    ],
)
def test_running_statistics_after_one_step(runs, end, norm):
    found = runs.usual().statistics
    norm = norm if f"{norm}.moving_mean" in found else "backbone.stem.block.bn"
    for kind, name in (("mean", "moving_mean"), ("var", "moving_variance")):
        np.testing.assert_allclose(
            found[f"{norm}.{name}"],
            runs.arrays[f"bn_running_{end}_{kind}"],
            rtol=1e-3 if end == "last" else 1e-4,
            atol=1e-5,
        )


def test_stochastic_depth(runs):
    """For calls k and images b, a path is kept if k + b is even."""
    wanted = stored(runs.arrays, "droppath_cls")
    rates = np.array(runs.network(False)[0].model.drop_rates)[:, None]
    kept = (np.add.outer(np.arange(len(rates)), np.arange(BATCH)) % 2 == 0) / (1 - rates)
    found = runs.first(keep=kept.astype(np.float32))
    np.testing.assert_allclose(
        found.outputs[0].transpose(0, 2, 1)[:, ::11], wanted, rtol=0, atol=3e-3
    )
    got = found.outputs[1].transpose(0, 2, 1)
    np.testing.assert_allclose(got[:, ::11], runs.arrays["droppath_reg"], rtol=0, atol=2e-2)
    np.testing.assert_allclose(got.sum(2), runs.arrays["droppath_reg_sum"], rtol=1e-3, atol=5e-2)
    assert np.abs(got - runs.usual().outputs[1].transpose(0, 2, 1)).max() > 0.1


def test_base_losses(runs):
    if runs.kind == "distill":
        pytest.skip("a student's case")
    check_loss(runs, runs.usual().terms, "loss_tal", (1e-3, 5e-3))
    check_loss(runs, runs.usual().second_terms, "loss_atss", (1e-3, 5e-3))
    check_loss(runs, runs.usual(frozen=True).terms, "loss_bneval", (5e-5, 5e-5))


@pytest.mark.parametrize(
    "name, epoch, frozen, tolerance",
    [
        ("loss_distill0", 0, False, 2e-3),
        ("loss_distill100", 100, False, 2e-3),
        ("loss_distill_feat", 100, False, 2e-3),
        ("loss_bneval", 100, True, 2e-4),
    ],
)
def test_distillation(runs, name, epoch, frozen, tolerance):
    if runs.kind != "distill":
        pytest.skip("a case without teacher")
    wanted = runs.arrays
    features = name == "loss_distill_feat"
    found = (
        runs.first(frozen=frozen, epoch=epoch, shares=BOTH)
        if features
        else runs.first(frozen=frozen, epoch=epoch)
    )
    iou, dfl, classes, distill_dfl, distill_class, feature = found.terms
    share = 1 + (0.01 - 1) * (1 - np.cos(np.pi * epoch / EPOCHS)) / 2
    weights = runs.meta["head_cfg"]["distill_weight"]
    np.testing.assert_allclose(
        distill_class / (share * weights["class"]), wanted[f"{name}_d_cls"][0], rtol=5e-3
    )
    np.testing.assert_allclose(
        distill_dfl / (share * 0.5 * weights["dfl"]), wanted[f"{name}_d_dfl"][0], rtol=5e-3
    )
    items = [iou, dfl + distill_dfl, classes + distill_class, feature if features else 0]
    np.testing.assert_allclose(items, wanted[f"{name}_items"], rtol=tolerance, atol=1e-6)
    np.testing.assert_allclose(found.total, wanted[f"{name}_total"][0], rtol=tolerance)


@pytest.mark.graph(when="all_cases")
@pytest.mark.parametrize("name", ["tal", "atss", "ab", "distill"])
def test_assignment_equals_the_original(runs, name):
    wanted = {
        part: stored(runs.arrays, f"assign_{name}_{part}")
        for part in ("fg", "label", "score", "boxes")
    }
    whole = runs.network(False)[0]
    trainable = getattr(
        whole, "atss" if name == "atss" else "tal" if runs.kind != "distill" else "trainable"
    )
    cell = AssignedToAnchors(trainable) if name == "ab" else Assigned(trainable)
    matched, index, score, boxes = (x.asnumpy() for x in cell(runs.usual().heads, *runs.inputs[1:]))
    own = np.take_along_axis(boxes, index[..., None], 1)
    np.testing.assert_array_equal(matched, wanted["fg"])
    np.testing.assert_array_equal(np.where(matched > 0, own[..., 0], -1), wanted["label"])
    np.testing.assert_allclose(
        own[..., 1:] * matched[..., None], wanted["boxes"] * wanted["fg"][..., None], atol=1e-4
    )
    np.testing.assert_allclose(score, wanted["score"], rtol=0, atol=2e-2 if name == "ab" else 1e-3)
    assert 0 < matched.sum() < matched.size


@pytest.mark.parametrize(
    "name, frozen, shares",
    [("grad", False, FIRST), ("grad_atss", False, SECOND), ("grad_bneval", True, FIRST)],
)
def test_gradients(runs, name, frozen, shares):
    wanted_l2, wanted_sum = stored(runs.arrays, f"{name}_l2"), runs.arrays[f"{name}_sum"]
    step = runs.usual(frozen) if shares == FIRST else runs.first(frozen=frozen, shares=shares)
    model = runs.network(frozen)[0].model
    parameters, order = model.trainable_params(), original_order(runs.case, model)
    norms, sums = step.norms_and_sums
    roots = np.sqrt([number_of([parameters[i]]) for i in order])
    clear = wanted_l2 > 1e-4 * wanted_l2.max()
    if not frozen:  # alpha's gradient is a large sum that cancels
        clear &= [parameters[i].shape != (1,) for i in order]
    # Frozen: 1e-3 and 1e-4 hold except at a kink, see "Kinks" in golden/README.md
    np.testing.assert_allclose(norms[clear], wanted_l2[clear], rtol=2e-3 if frozen else 0.1)
    share = np.abs(sums - wanted_sum)[clear] / (wanted_l2 * roots)[clear]
    assert share.max() < (3e-4 if frozen else 2.5e-2)
    if frozen:
        assert np.median(np.abs(norms[clear] / wanted_l2[clear] - 1)) < 2e-5
    assert clear.mean() > 0.5


def test_trajectory(runs):
    """Five updates with frozen norms."""
    check_trajectory(runs, "traj_bneval_loss", True, 3e-4 if runs.kind == "distill" else 1e-4)


@pytest.mark.all_cases
def test_trajectory_with_statistics_of_the_batch(runs):
    """Five updates; seeded networks are chaotic there, so this run only has to stay close."""
    check_trajectory(runs, "traj_loss", False, 0.6)


def check_trajectory(runs, name, frozen, tolerance):
    """Compare the losses of five updates."""
    rate = runs.meta["traj_bneval_lr" if frozen else "traj_lr"]
    epoch = 100 if runs.kind == "distill" else 0
    model = runs.network(frozen)[0].model

    def one():
        step = runs.step(frozen=frozen, epoch=epoch)
        return step.total, step.gradients

    with runs.mode(frozen):
        load_weights(model, runs.case.weights())
        totals = nesterov_totals(one, model.trainable_params(), rate=rate, steps=5)
    # With other seeds, a match may change from the third step on, see "Kinks" in golden/README.md
    sharp = 5 if runs.case.default else 2
    wanted = runs.arrays[name]
    np.testing.assert_allclose(totals[:sharp], wanted[:sharp], rtol=tolerance)
    np.testing.assert_allclose(totals[sharp:], wanted[sharp:], rtol=max(tolerance, 5e-3))
    np.testing.assert_allclose(totals[0], wanted[0], rtol=5e-3)

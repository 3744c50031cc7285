"""Gold-YOLO's losses and assigners on given predictions, against arrays of the original program and
by definition.
"""

from functools import lru_cache

import numpy as np
import pytest
from helpers import padded_targets

from mindyolo_ext.backend import Tensor, nn, ops
from mindyolo_ext.backend.gradients import grad, value_and_grad
from mindyolo_ext.contracts import StepClock
from mindyolo_ext.losses.terms import divergence, varifocal
from mindyolo_ext.models.gold_yolo.loss import corners_in_pixels
from mindyolo_ext.models.registry import create_trainable

pytestmark = pytest.mark.graph(when="all_cases")
FILE = "gold_yolo/loss_only_seed0.npz"
SIDE, BOXES, CLASSES = 96, 7, 20  # of the stored case; two rows of padding
RTOL, RTOL_DISTILL, RTOL_GRADIENT = 1e-5, 2e-4, 1e-4


class Predictions(nn.Cell):
    """Stands in for a model: its heads are the flat predictions themselves."""

    family, reg_max, strides = "gold_yolo", 16, (8, 16, 32)

    def __init__(
        self, form: str, *, num_classes: int = CLASSES, side: int = SIDE, drop_rates: tuple = ()
    ):
        super().__init__()
        self.form, self.num_classes, self.drop_rates = form, num_classes, drop_rates
        rows = []
        for stride in self.strides:
            y, x = np.mgrid[0 : side // stride, 0 : side // stride].reshape(2, -1)
            rows.append(np.stack((x + 0.5, y + 0.5, np.full(x.shape, stride))).astype(np.float32))
        self.sizes = tuple(row.shape[1] for row in rows)
        self.points = tuple(Tensor(part) for part in np.concatenate(rows, 1))
        self.points_ab = tuple(
            Tensor(part) for part in np.concatenate([np.tile(row, 3) for row in rows], 1)
        )

    def construct(self, images, keep=None):
        return images if keep is None else images * ops.sum(keep)


class FlatLoss(nn.Cell):
    """Total and terms as a function of flat predictions, and the assignment behind them."""

    def __init__(self, trainable: nn.Cell, kind: str, side: float = SIDE):
        super().__init__(auto_prefix=False)
        self.trainable, self.kind, self.side = trainable, kind, float(side)
        self.grid = (*trainable.model.points, trainable.model.sizes)
        self.anchor_points = trainable.model.points_ab

    def construct(self, flat, other, targets, mask):
        wanted = corners_in_pixels(targets, mask, self.side, self.side)
        if self.kind == "ab":
            terms = self.trainable.anchor_terms(flat, self.anchor_points, wanted, mask)
        elif self.kind == "distill":
            terms = self.trainable.distill_terms(flat, other, self.grid, wanted, mask)
        else:
            terms = self.trainable.anchor_free_terms(flat, self.grid, wanted, mask)
        return ops.sum(terms), terms


class FlatAssignment(FlatLoss):
    """matched, index and score of a branch."""

    def construct(self, flat, targets, mask):
        # the assigner reads the mask
        wanted = corners_in_pixels(targets, mask * 0.0 + 1.0, self.side, self.side)
        if self.kind == "ab":
            x, y, w, h = ops.unbind(flat[1], 1)
            distances = ops.stack((w / 2 - x, h / 2 - y, w / 2 + x, h / 2 + y), 1)
            return self.trainable.anchor_branch.assign(
                flat[0], distances, (*self.anchor_points, ()), wanted, mask
            )
        distances = self.trainable.decode(flat[1])[0]
        return self.trainable.branch.assign(flat[0], distances, self.grid, wanted, mask)


class FlatDFL(nn.Cell):
    """The DFL term before weight and normalizer, and its gradient."""

    def __init__(self, trainable):
        super().__init__(auto_prefix=False)
        self.trainable = trainable
        self.function = value_and_grad(self.value, 0)

    def value(self, reg, target, score):
        return self.trainable.dfl_sum(reg, self.trainable.decode(reg)[1], target, score)

    def construct(self, reg, target, score):
        return self.function(reg, target, score)


class GradientsOf(nn.Cell):
    """Value and gradients with respect to two or three flat predictions."""

    def __init__(self, loss: nn.Cell, parts: int, other: tuple):
        super().__init__(auto_prefix=False)
        self.loss, self.parts, self.other = loss, parts, other
        self.function = value_and_grad(self.value, tuple(range(parts)), None, has_aux=True)

    def value(self, *inputs):
        return self.loss(inputs[: self.parts], self.other, *inputs[self.parts :])

    def construct(self, *inputs):
        return self.function(*inputs)


def channel_first(*arrays):
    return tuple(Tensor(np.ascontiguousarray(a.transpose(0, 2, 1))) for a in arrays)


class Case:
    """The stored predictions with padded targets."""

    def __init__(self, arrays):
        self.arrays = arrays
        self.targets, self.mask = padded_targets(arrays["in_targets"], 3, BOXES)
        self.plain = channel_first(arrays["in_cls"], arrays["in_reg"])
        self.distances = channel_first(arrays["in_cls"], arrays["in_lrtb"])
        self.distill = channel_first(arrays["in_cls"], arrays["in_reg"], arrays["in_lrtb"])
        self.anchors = channel_first(arrays["in_cls_ab"], arrays["in_reg_ab"])
        self.teacher = channel_first(arrays["in_teacher_cls"], arrays["in_teacher_reg"])
        self.compiled = {}

    def run(self, trainable, kind, flat, *, other=(), targets=None, mask=None):
        """Total, terms and the gradients with respect to predictions, in the stored layout."""
        key = trainable, kind, len(flat), flat[1].shape
        if key not in self.compiled:
            self.compiled[key] = GradientsOf(FlatLoss(trainable, kind), len(flat), other)
        cell = self.compiled[key]
        (total, terms), gradients = cell(*flat, *self.boxes(targets, mask))
        return (
            float(total.asnumpy()),
            terms.asnumpy(),
            [g.asnumpy().transpose(0, 2, 1) for g in gradients],
        )

    def assigned(self, trainable, kind, flat, *, targets=None, mask=None):
        key = trainable, kind
        if key not in self.compiled:
            self.compiled[key] = FlatAssignment(trainable, kind)
        return [x.asnumpy() for x in self.compiled[key](flat, *self.boxes(targets, mask))]

    def boxes(self, targets=None, mask=None):
        return (
            Tensor(self.targets if targets is None else targets),
            Tensor(self.mask if mask is None else mask),
        )


@pytest.fixture(scope="module")
def case(golden):
    return Case(golden.arrays(FILE))


@lru_cache
def base_loss(form, assigner, iou):
    return create_trainable("gold_yolo_loss", Predictions(form), assigner=assigner, iou=iou)


def plain_loss(assigner="tal", iou="giou"):
    return base_loss("plain", assigner, iou)


def anchor_loss(iou="giou"):
    return base_loss("fuse_ab", "tal", iou)


@lru_cache
def distill_loss(form, iou="giou", features=False):
    """The loss of the stored ``distill_ns`` and ``distill`` entries: the second has weights 2 and
    1.
    """
    return create_trainable(
        "gold_yolo_distill_loss",
        Predictions(form),
        teacher=Predictions("fuse_ab"),
        distill_class=1.0 if form == "distill" else 2.0,
        iou=iou,
        features=features,
    )


def close(got, wanted, rtol=RTOL):
    np.testing.assert_allclose(np.ravel(got), np.ravel(wanted), rtol=rtol, atol=1e-6)


def close_gradient(got, wanted):
    """Each entry within 1e-4 of itself and 1e-6 of the largest."""
    np.testing.assert_allclose(got, wanted, rtol=RTOL_GRADIENT, atol=1e-6 * np.abs(wanted).max())


# ---- stored numbers of the original --------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["tal_giou", "tal_siou", "tal_ciou", "tal_diou", "atss_giou", "atss_siou"]
)
def test_base_loss(case, name):
    assigner, iou = name.split("_")
    total, terms, gradients = case.run(plain_loss(assigner=assigner, iou=iou), "plain", case.plain)
    close(total, case.arrays[f"{name}_total"])
    close(terms, case.arrays[f"{name}_items"])
    for kind, got in zip(("dcls", "dreg"), gradients, strict=True):
        if f"{name}_{kind}" in case.arrays:
            close_gradient(got, case.arrays[f"{name}_{kind}"])


@pytest.mark.parametrize("iou", ["giou", "siou"])
def test_anchor_branch(case, iou):
    trainable = anchor_loss(iou=iou)
    total, terms, gradients = case.run(trainable, "ab", case.anchors)
    close(total, case.arrays[f"ab_{iou}_total"])
    close(terms, case.arrays[f"ab_{iou}_items"][[0, 2]])
    close_gradient(gradients[1], case.arrays[f"ab_{iou}_dreg"])
    if iou == "giou":
        close_gradient(gradients[0], case.arrays["ab_giou_dcls"])


def test_distances_without_bins(case):
    total, terms, gradients = case.run(plain_loss(iou="siou"), "plain", case.distances)
    close(total, case.arrays["nodfl_siou_total"])
    close(terms, case.arrays["nodfl_siou_items"])
    close_gradient(gradients[1], case.arrays["nodfl_siou_dlrtb"])


# The quick suite compiles step 2's loss here, not with a network
@pytest.mark.all_cases
@pytest.mark.parametrize(
    "form, iou",
    [
        pytest.param("distill", "giou", marks=pytest.mark.graph),
        ("distill", "siou"),
        ("plain", "giou"),
        ("plain", "siou"),
    ],
)
def test_distillation_over_the_epochs(case, form, iou):
    trainable = distill_loss(form, iou)
    flat = case.distill if form == "distill" else case.plain
    cell = GradientsOf(FlatLoss(trainable, "distill"), len(flat), case.teacher)
    for epoch in (0, 100, 299):
        trainable.begin_step(StepClock(iteration=7, epoch=epoch, epochs=300))
        (total, terms), gradients = cell(*flat, *case.boxes())
        name = f"distill_{'ns_' if form == 'distill' else ''}{iou}_e{epoch}"
        close(total.asnumpy(), case.arrays[f"{name}_total"], RTOL_DISTILL)
        iou_term, dfl, class_term, distill_dfl, distill_class = terms.asnumpy()
        items = case.arrays[f"{name}_items"]
        close(iou_term, items[0])
        close((dfl + distill_dfl, class_term + distill_class), items[1:3], RTOL_DISTILL)
        for kind, got in zip(("dcls", "dreg", "dlrtb"), gradients, strict=False):
            if f"{name}_{kind}" in case.arrays:
                close_gradient(got.asnumpy().transpose(0, 2, 1), case.arrays[f"{name}_{kind}"])


@pytest.mark.needs_mindspore
@pytest.mark.graph
def test_a_new_weight_of_the_distillation_compiles_nothing(case):
    trainable = distill_loss("plain")
    cell = FlatLoss(trainable, "distill")
    phases = []
    for epoch in range(3):
        trainable.begin_step(StepClock(iteration=epoch, epoch=epoch, epochs=3))
        cell(case.plain, case.teacher, *case.boxes())
        phases.append(len(cell.compile_cache))
    assert phases == [1, 1, 1]


@pytest.mark.graph
def test_distillation_of_features(case):
    class Features(nn.Cell):
        def __init__(self):
            super().__init__(auto_prefix=False)
            self.trainable = distill_loss("plain", "giou", True)

        def construct(self, ours, theirs):
            return self.trainable.feature_term(ours, theirs)

    cell = Features()
    cell.trainable.begin_step(StepClock(iteration=0, epoch=100, epochs=300))
    ours, theirs = (
        tuple(Tensor(case.arrays[f"in_feat_{who}{i}"]) for i in range(3)) for who in "st"
    )
    items = case.arrays["distill_feat_giou_e100_items"]
    close(cell(ours, theirs).asnumpy(), items[3], RTOL_DISTILL)
    total, terms, _ = case.run(cell.trainable, "distill", case.plain, other=case.teacher)
    close(terms[2] + terms[4], items[2], RTOL_DISTILL)
    close(total + items[3], case.arrays["distill_feat_giou_e100_total"], RTOL_DISTILL)
    assert cell.trainable.term_names[-1] == "feature"


@pytest.mark.parametrize("kind", ["tal", "atss", "ab"])
def test_assignment(case, kind):
    trainable = anchor_loss() if kind == "ab" else plain_loss(assigner=kind)
    matched, index, score = case.assigned(
        trainable, kind, case.anchors if kind == "ab" else case.plain
    )
    wanted = {
        part: case.arrays[f"assign_{kind}_{part}"] for part in ("fg", "label", "score", "boxes")
    }
    np.testing.assert_array_equal(matched, wanted["fg"])
    own = np.take_along_axis(case.targets, index[:, :, None], 1)
    np.testing.assert_array_equal(np.where(matched > 0, own[..., 0], -1), wanted["label"])
    corners = (
        np.concatenate((own[..., 1:3] - own[..., 3:] / 2, own[..., 1:3] + own[..., 3:] / 2), 2)
        * SIDE
    )
    np.testing.assert_allclose(
        corners * matched[:, :, None], wanted["boxes"] * wanted["fg"][:, :, None], atol=1e-4
    )
    np.testing.assert_allclose(score, wanted["score"], rtol=1e-4, atol=1e-6)
    assert matched[1].sum() == 0 and matched.sum() > 20


@pytest.mark.parametrize("kind", ["tal", "atss", "ab", "distill"])
def test_a_batch_without_boxes(case, kind):
    trainable = {"tal": plain_loss, "ab": anchor_loss}.get(
        kind, lambda: plain_loss(assigner="atss")
    )()
    flat, other = case.anchors if kind == "ab" else case.plain, ()
    if kind == "distill":
        trainable, other = (
            create_trainable(
                "gold_yolo_distill_loss", Predictions("plain"), teacher=Predictions("plain")
            ),
            case.teacher,
        )
        trainable.begin_step(StepClock(iteration=0, epoch=100, epochs=300))
    empty = np.zeros_like(case.targets), np.zeros_like(case.mask)
    total, terms, gradients = case.run(
        trainable,
        "ab" if kind == "ab" else "distill" if other else "plain",
        flat,
        other=other,
        targets=empty[0],
        mask=empty[1],
    )
    close(total, case.arrays[f"empty_{kind}_total"], RTOL_DISTILL if other else RTOL)
    nonzero = {
        name
        for name, term in zip(
            trainable.term_names[-2:] if kind == "ab" else trainable.term_names, terms, strict=False
        )
        if term
    }
    assert nonzero == {"class_ab"} if kind == "ab" else nonzero <= {"class", "distill_class"}
    assert all(np.isfinite(g).all() for g in gradients) and np.abs(gradients[1]).max() == 0


def test_a_batch_without_boxes_in_the_distill_form(case):
    """The original raises an error here."""
    trainable = distill_loss("distill")
    total, terms, gradients = case.run(
        trainable,
        "distill",
        case.distill,
        other=case.teacher,
        targets=np.zeros_like(case.targets),
        mask=np.zeros_like(case.mask),
    )
    close(terms[2], case.arrays["empty_tal_total"])
    assert terms[0] == terms[1] == terms[3] == 0 and np.isfinite(total)
    assert np.abs(gradients[1]).max() == np.abs(gradients[2]).max() == 0


@pytest.mark.parametrize("assigner, kind", [("tal", "plain"), ("atss", "plain"), ("tal", "ab")])
def test_images_are_assigned_in_chunks(case, assigner, kind):
    """As many at once as fit, with a result that is equal to the last bit."""
    loss = anchor_loss() if kind == "ab" else plain_loss(assigner)
    flat = case.anchors if kind == "ab" else case.plain
    chunked = create_trainable(
        "gold_yolo_loss", Predictions("fuse_ab" if kind == "ab" else "plain"), assigner=assigner
    )
    for branch in filter(None, (chunked.branch, chunked.anchor_branch)):
        branch.most_pairs = 2 * case.mask.shape[1] * flat[0].shape[2]
    batch = case.mask.shape[0]
    assert batch == 3, "otherwise all chunks have one size"
    wanted, found = (case.assigned(each, kind, flat) for each in (loss, chunked))
    assert wanted[0].sum() > 0
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(one, other)


# ---- by definition -------------------------------------------------------------------------------


def corners_of(targets):
    """(M, 5) -> (M, 4) in pixels."""
    return (
        np.concatenate(
            (targets[:, 1:3] - targets[:, 3:] / 2, targets[:, 1:3] + targets[:, 3:] / 2), 1
        )
        * SIDE
    )


def overlaps(boxes, others):
    """(M, 4), (A, 4) -> (M, A)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0, None), 2)
    area, other = (np.prod(np.clip(b[:, 2:] - b[:, :2], 0, None), 1) for b in (boxes, others))
    return inter / (area[:, None] + other[None] - inter + 1e-9)


def settled(taken, iou):
    """Candidates (M, A) bool and overlaps -> index of the box or -1."""
    winner = np.where(taken.any(0), taken.argmax(0), -1)
    return np.where(taken.sum(0) > 1, iou.argmax(0), winner)


def task_aligned(scores, predicted, points, label, boxes, topk):
    """The assignment of one image as defined, box by box: winner (A,) and score (A,)."""
    iou = overlaps(boxes, predicted)
    metric = scores[label] * iou**6
    inside = np.array([(points > b[:2]).all(1) & (points < b[2:]).all(1) for b in boxes])
    taken = np.zeros_like(inside)
    for m in range(len(boxes)):
        taken[m, np.argsort(-metric[m] * inside[m], kind="stable")[:topk]] = True
    winner, score = settled(taken & inside, iou), np.zeros(len(points))
    for m in range(len(boxes)):
        own = winner == m
        if own.any():
            score[own] = metric[m, own] * iou[m, own].max() / (metric[m, own].max() + 1e-9)
    return winner, score


def adaptive(predicted, points, stride, boxes, topk=9):
    """The same for ATSS."""
    squares = np.concatenate((points - 2.5 * stride[:, None], points + 2.5 * stride[:, None]), 1)
    iou, taken = overlaps(boxes, squares), np.zeros((len(boxes), len(points)), bool)
    for m, box in enumerate(boxes):
        distance = np.linalg.norm(points - (box[:2] + box[2:]) / 2, axis=1)
        levels = [np.flatnonzero(stride == s) for s in (8, 16, 32)]
        candidates = np.concatenate(
            [level[np.argsort(distance[level], kind="stable")[:topk]] for level in levels]
        )
        over = iou[m, candidates] > iou[m, candidates].mean() + iou[m, candidates].std(ddof=1)
        inside = (points[candidates] > box[:2]).all(1) & (points[candidates] < box[2:]).all(1)
        taken[m, candidates[over & inside]] = True
    winner = settled(taken, iou)
    score = np.where(winner >= 0, overlaps(boxes, predicted)[winner, np.arange(len(points))], 0)
    return winner, score


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["tal", "atss"])
def test_random_scenes_equal_the_definition(case, kind, seed):
    """Crowds and boxes across the border; some predictions go to a box that had not chosen them."""
    random = np.random.RandomState(seed)
    trainable = plain_loss(assigner=kind)
    x, y, stride = (part.asnumpy().astype(np.float64) for part in trainable.model.points)
    points, count = np.stack((x, y), 1) * stride[:, None], 12
    targets = np.concatenate(
        [
            random.randint(0, CLASSES, (3, count, 1)),
            random.uniform(0, 1, (3, count, 2)),
            random.uniform(0.05, 0.8, (3, count, 2)),
        ],
        2,
    ).astype(np.float32)
    mask = (np.arange(count) < np.array([[12], [5], [1]])).astype(np.float32)
    scores = random.beta(1, 5, (3, CLASSES, len(x))).astype(np.float32)
    distances = random.uniform(0.3, 6, (3, 4, len(x))).astype(np.float32)
    flat = Tensor(scores), Tensor(distances)
    matched, index, score = case.assigned(trainable, kind, flat, targets=targets, mask=mask)
    for image in range(3):
        boxes = corners_of(targets[image, mask[image] > 0].astype(np.float64))
        left, top, right, bottom = distances[image].astype(np.float64)
        predicted = np.stack((x - left, y - top, x + right, y + bottom), 1) * stride[:, None]
        if kind == "tal":
            label = targets[image, : len(boxes), 0].astype(int)
            wanted, wanted_score = task_aligned(
                scores[image].astype(np.float64), predicted, points, label, boxes, 13
            )
        else:
            wanted, wanted_score = adaptive(predicted, points, stride, boxes)
        np.testing.assert_array_equal(np.where(matched[image] > 0, index[image], -1), wanted)
        np.testing.assert_allclose(score[image], wanted_score, rtol=1e-4, atol=1e-6)
        assert (wanted >= 0).any()


def test_a_conflict_goes_to_a_box_that_did_not_take_the_prediction(case):
    """Two boxes of class 0 choose the only prediction that knows their class; a third one overlaps
    it most.
    """
    trainable = plain_loss()
    count = case.distances[0].shape[2]
    x, y, stride = (part.asnumpy() for part in trainable.model.points)
    spot = int(np.flatnonzero((stride == 8) & (x == 5.5) & (y == 5.5))[0])  # at 44, 44
    scores, distances = (
        np.full((1, CLASSES, count), 1e-3, np.float32),
        np.full((1, 4, count), 0.01, np.float32),
    )
    # box 28, 28, 60, 60
    scores[0, 0, spot], scores[0, 1, spot], distances[0, :, spot] = 0.9, 0.0, 2.0
    boxes = np.array([[0, 44, 44, 40, 40], [0, 44, 44, 26, 26], [1, 45, 45, 32, 32]], np.float32)
    targets = boxes[None] / np.array([1, SIDE, SIDE, SIDE, SIDE], np.float32)
    matched, index, score = case.assigned(
        trainable,
        "tal",
        (Tensor(scores), Tensor(distances)),
        targets=targets,
        mask=np.ones((1, 3), np.float32),
    )
    assert matched[0, spot] == 1 and index[0, spot] == 2 and score[0, spot] == 0


def test_padding_and_order_change_nothing(case):
    trainable = anchor_loss()
    filled = np.where(case.mask[:, :, None] > 0, case.targets, np.float32(0.37))
    order = np.random.RandomState(3).permutation(BOXES)
    for kind, flat in (("plain", case.plain), ("ab", case.anchors)):
        _, wanted, gradients = case.run(trainable, kind, flat)
        _, terms, other = case.run(
            trainable, kind, flat, targets=filled[:, order], mask=case.mask[:, order]
        )
        np.testing.assert_allclose(terms, wanted, rtol=1e-6)
        for got, before in zip(other, gradients, strict=True):
            np.testing.assert_allclose(got, before, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "values",
    [
        (0, 0.5, 0.5, 0.0, 0.0),
        (3, 0, 0, 1, 1),
        (3, 1, 1, 1e-4, 1e-4),
        (2, 0.5, 0.5, 2.0, 2.0),
        (2, 3.0, 3.0, 0.1, 0.1),
    ],
)
@pytest.mark.parametrize("assigner", ["tal", "atss"])
def test_odd_boxes_stay_finite(case, values, assigner):
    """Boxes without area, in the corner, tiny, larger than the image, far outside."""
    targets, mask = np.zeros_like(case.targets), np.zeros_like(case.mask)
    targets[:, 0], mask[:, 0] = values, 1
    total, _, gradients = case.run(
        plain_loss(assigner, "siou"), "plain", case.plain, targets=targets, mask=mask
    )
    assert np.isfinite(total) and all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("iou", ["siou", "giou", "ciou", "diou"])
def test_degenerate_distances_stay_finite(case, iou):
    """Boxes of no size and with swapped corners, and probabilities of exactly 0 and 1."""
    random = np.random.RandomState(2)
    scores = random.choice(np.array([0.0, 0.5, 1.0], np.float32), case.distances[0].shape)
    distances = random.choice(np.array([-1.0, 0.0, 1.0], np.float32), case.distances[1].shape)
    for sides in (np.zeros_like(distances), distances):
        total, _, gradients = case.run(
            plain_loss("tal", iou), "plain", (Tensor(scores), Tensor(sides))
        )
        assert np.isfinite(total) and all(np.isfinite(g).all() for g in gradients)


def test_bins_by_definition():
    """Target distances on a bin, between two, and beyond both ends, which are clipped to 0 and
    15.99.
    """
    random = np.random.RandomState(4)
    reg = random.normal(0, 2, (1, 68, 5)).astype(np.float32)
    target = np.tile(np.array([3.0, 7.25, -1.0, 15.999, 20.0], np.float32), (1, 4, 1))
    score = np.array([[1.0, 0.5, 1.0, 0.25, 2.0]], np.float32)
    value, gradient = FlatDFL(plain_loss())(Tensor(reg), Tensor(target), Tensor(score))
    logits = reg.reshape(4, 17, 5).astype(np.float64)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    weights = np.zeros((17, 5))
    for column, pairs in enumerate(
        (
            [(3, 1)],
            [(7, 0.75), (8, 0.25)],
            [(0, 1)],
            [(15, 0.01), (16, 0.99)],
            [(15, 0.01), (16, 0.99)],
        )
    ):
        for row, weight in pairs:
            weights[row, column] = weight
    np.testing.assert_allclose(
        value.asnumpy(), (-weights * np.log(softmax) * score).sum() / 4, rtol=1e-5
    )
    wanted = ((softmax - weights) * score / 4).reshape(1, 68, 5)
    np.testing.assert_allclose(gradient.asnumpy(), wanted, rtol=1e-4, atol=2e-6)


def test_padded_rows_of_any_content_take_nothing(case):
    filled = np.where(case.mask[:, :, None] > 0, case.targets, np.float32(0.4))
    for kind, flat in (("tal", case.plain), ("atss", case.plain)):
        trainable = plain_loss(assigner=kind)
        for got, wanted in zip(
            case.assigned(trainable, kind, flat, targets=filled),
            case.assigned(trainable, kind, flat),
            strict=True,
        ):
            np.testing.assert_array_equal(got, wanted)


def test_without_scores_nothing_is_divided(case):
    """Matches whose target scores are all 0: the class term is the plain sum over negatives."""
    scores = np.full(case.plain[0].shape, 0.25, np.float32)
    for image, label in enumerate((18, 14, 1)):
        scores[image, [label, 0, 7, 11, 14]] = 0.0
    total, terms, _ = case.run(plain_loss(), "plain", (Tensor(scores), case.plain[1]))
    p = scores.astype(np.float64)
    np.testing.assert_allclose(terms[2], (-0.75 * p * p * np.log(1 - p)).sum(), rtol=1e-5)
    assert terms[0] == terms[1] == 0


def test_class_term_by_definition():
    """Also for probabilities of exactly 0 or 1: logarithms are clipped at -100."""
    random = np.random.RandomState(0)
    p = random.uniform(0, 1, (2, 3, 40)).astype(np.float32)
    p.reshape(-1)[::7], p.reshape(-1)[::11] = 0.0, 1.0
    label = random.randint(0, 3, (2, 40)).astype(np.float32)
    matched = (random.uniform(size=(2, 40)) < 0.5).astype(np.float32)
    score = random.uniform(0, 1, (2, 40)).astype(np.float32) * matched

    class Term(nn.Cell):
        def construct(self, *inputs):
            return varifocal(*inputs)

    class Gradient(nn.Cell):
        def __init__(self):
            super().__init__()
            self.function = grad(Term(), 0)

        def construct(self, *inputs):
            return self.function(*inputs)

    inputs = [Tensor(a) for a in (p, label, matched, score)]
    wanted = (label[:, None] == np.arange(3)[None, :, None]) * matched[:, None]
    target, q = wanted * score[:, None], p.astype(np.float64)
    with np.errstate(divide="ignore"):
        entropy = -(
            target * np.maximum(np.log(q), -100) + (1 - target) * np.maximum(np.log(1 - q), -100)
        )
    np.testing.assert_allclose(
        Term()(*inputs).asnumpy(),
        (entropy * (0.75 * q * q * (1 - wanted) + target)).sum(),
        rtol=1e-6,
    )
    gradient = Gradient()(*inputs).asnumpy()
    sure = (q > 0.01) & (q < 0.99)
    by_hand = 1.5 * q * (1 - wanted) * entropy + (0.75 * q * q * (1 - wanted) + target) * (
        q - target
    ) / np.where(sure, q * (1 - q), 1)
    np.testing.assert_allclose(gradient[sure], by_hand[sure], rtol=1e-4, atol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("spread", [0.02, 3.0])
def test_divergence_by_definition(spread):
    """The usual formula is accurate in float64; the gradient is the difference of softmaxes."""
    random = np.random.RandomState(1)
    ours, theirs = (random.normal(0, spread, (2, 30, 5)).astype(np.float32) for _ in range(2))

    def softmax(x):
        e = np.exp(x.astype(np.float64))
        return e / e.sum(1, keepdims=True)

    class Sum(nn.Cell):
        def construct(self, student, teacher):
            return ops.sum(divergence(student, teacher, 1))

    class Both(nn.Cell):
        def __init__(self):
            super().__init__()
            self.function = value_and_grad(Sum(), (0, 1))

        def construct(self, student, teacher):
            return self.function(student, teacher)

    value, (gradient, to_teacher) = Both()(Tensor(ours), Tensor(theirs))
    s, t = softmax(ours), softmax(theirs)
    np.testing.assert_allclose(value.asnumpy(), (t * (np.log(t) - np.log(s))).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient.asnumpy(), s - t, rtol=1e-4, atol=1e-8)
    assert np.abs(to_teacher.asnumpy()).max() == 0


# ---- ranks, drop-path, settings ------------------------------------------------------------------


class TwoRanks(nn.Cell):
    """A sum over two ranks with the same values."""

    def construct(self, x):
        return ops.stop_gradient(x) * 2.0


@pytest.mark.parametrize("normaliser", ["global", "rank"])
def test_shares_of_two_equal_ranks(case, monkeypatch, normaliser):
    """``global``: halves, which add up to the loss of one rank. ``rank``: the original's sum of
    both losses.
    """
    from types import SimpleNamespace

    from mindyolo_ext.models.gold_yolo import loss as gold_yolo

    one = create_trainable(
        "gold_yolo_distill_loss", Predictions("plain"), teacher=Predictions("plain"), features=True
    )
    monkeypatch.setattr(gold_yolo, "world", lambda: SimpleNamespace(size=2))
    monkeypatch.setattr(gold_yolo, "GlobalSum", TwoRanks)
    two = create_trainable(
        "gold_yolo_distill_loss",
        Predictions("plain"),
        teacher=Predictions("plain"),
        features=True,
        normaliser=normaliser,
    )
    alone, share = (
        FlatLoss(t, "distill")(case.plain, case.teacher, *case.boxes())[1].asnumpy()
        for t in (one, two)
    )
    part = 0.5 if normaliser == "global" else 1.0
    np.testing.assert_allclose(share, alone * np.array([part, part, part, part, 1.0]), rtol=1e-6)
    assert two.feature_parts == 1 / part


class Kept(nn.Cell):
    """The factors that the trainable would pass to its model."""

    def __init__(self, trainable):
        super().__init__(auto_prefix=False)
        self.trainable = trainable

    def construct(self, images):
        return self.trainable.drop_path_factors(images)


@pytest.mark.graph
def test_drop_path_factors():
    rates = (0.05, 0.05, 0.5)
    trainable = create_trainable("gold_yolo_loss", Predictions("plain", drop_rates=rates))
    cell, images = Kept(trainable), Tensor(np.zeros((300, 1), np.float32))
    np.testing.assert_array_equal(cell(images).asnumpy(), np.ones((3, 300)))
    drawn = []
    for clock in (
        StepClock(5, 0, 3, seed=1, rank=0),
        StepClock(5, 2, 3, seed=1, rank=0),
        StepClock(6, 0, 3, seed=1),
        StepClock(5, 0, 3, seed=2),
        StepClock(5, 0, 3, seed=1, rank=1),
    ):
        trainable.begin_step(clock)
        drawn.append(cell(images).asnumpy())
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert all((drawn[0] != other).any() for other in drawn[2:])
    assert len(getattr(cell, "compile_cache", [cell])) == 1, "on MindSpore a second graph"
    for factors, rate in zip(np.stack(drawn[1:]).transpose(1, 0, 2), rates, strict=True):
        kept = factors > 0
        np.testing.assert_allclose(factors[kept], 1 / (1 - rate), rtol=1e-6)
        assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / kept.size)
    uniform = np.random.default_rng((1, 5, 0)).random((3, 512), dtype=np.float32)
    np.testing.assert_array_equal(
        drawn[0] > 0, (uniform >= np.array(rates, np.float32)[:, None])[:, :300]
    )


def test_drop_path_can_be_switched_off_and_has_a_largest_batch():
    for rates, wanted in (((0.1,), False), ((), True)):
        trainable = create_trainable(
            "gold_yolo_loss", Predictions("plain", drop_rates=rates), drop_path=wanted
        )
        trainable.begin_step(StepClock(0, 0, 1))
        assert not [p.name for p in trainable.get_parameters()]
    trainable = create_trainable("gold_yolo_loss", Predictions("plain", drop_rates=(0.1,)))
    with pytest.raises(ValueError, match="at most 512 images per rank with drop_path, got 513"):
        trainable.drop_path_factors(Tensor(np.zeros((513, 1), np.float32)))


def test_parameters_of_the_trainable_are_not_the_models():
    class Weighted(Predictions):
        def __init__(self, form, drop_rates=()):
            super().__init__(form, drop_rates=drop_rates)
            self.layer = nn.Dense(2, 2)

    student, teacher = Weighted("distill", drop_rates=(0.1,)), Weighted("fuse_ab")
    trainable = create_trainable("gold_yolo_distill_loss", student, teacher=teacher)
    create_trainable("gold_yolo_distill_loss", student, teacher=teacher)  # a later stage
    assert [p.name for p in trainable.trainable_params()] == ["layer.weight", "layer.bias"]
    assert sorted(p.name for p in trainable.get_parameters() if not p.requires_grad) == [
        "teacher.layer.bias",
        "teacher.layer.weight",
        "trainable.distill_weight",
        "trainable.drop_path",
    ]
    assert [name for name, _ in student.parameters_and_names()] == ["layer.weight", "layer.bias"]


def test_terms_have_names(case):
    assert anchor_loss().term_names == ("iou", "dfl", "class", "iou_ab", "class_ab")
    for trainable, kind, other in (
        (plain_loss(), "plain", ()),
        (distill_loss("plain"), "distill", case.teacher),
    ):
        total, terms, _ = case.run(trainable, kind, case.plain, other=other)
        assert len(terms) == len(trainable.term_names)
        np.testing.assert_allclose(total, terms.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("form", "keywords", "message"),
    [
        ("distill", {}, "form must be one of"),
        ("plain", {"assigner": "simota"}, "assigner must be one of"),
        ("plain", {"iou": "iou"}, "iou must be one of"),
        ("plain", {"normaliser": "none"}, "normaliser must be one of"),
    ],
)
def test_wrong_settings_of_the_base_loss_are_refused(form, keywords, message):
    with pytest.raises(ValueError, match=message):
        create_trainable("gold_yolo_loss", Predictions(form), **keywords)


@pytest.mark.parametrize(
    ("form", "teacher", "keywords", "message"),
    [
        ("fuse_ab", Predictions("plain"), {}, "form must be one of"),
        (
            "plain",
            Predictions("plain", num_classes=3),
            {},
            "num_classes must be the student's 20, got 3",
        ),
        ("plain", Predictions("plain"), {"temperature": 0}, "temperature must be above 0"),
    ],
)
def test_wrong_settings_of_the_distillation_are_refused(form, teacher, keywords, message):
    with pytest.raises(ValueError, match=message):
        create_trainable("gold_yolo_distill_loss", Predictions(form), teacher=teacher, **keywords)


def test_another_family_is_refused():
    model = Predictions("plain")
    model.family = "yolox"
    with pytest.raises(ValueError, match="wanted a gold_yolo model"):
        create_trainable("gold_yolo_loss", model)
    with pytest.raises(ValueError, match="wanted a gold_yolo model"):
        create_trainable("gold_yolo_distill_loss", Predictions("plain"), teacher=model)

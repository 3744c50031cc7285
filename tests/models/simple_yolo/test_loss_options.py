"""Options of the simple YOLO's loss and assigners on made-up heads, by the original and by its
description, operator by operator: every option would be a graph of its own.
"""

import numpy as np
import pytest
from helpers import padded_targets

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.gradients import value_and_grad
from mindyolo_ext.contracts import StepClock
from mindyolo_ext.losses.assign.grid import PRIME, AnchorBoxAssigner, CellAssigner, falling_order
from mindyolo_ext.models.registry import create_model, create_trainable
from mindyolo_ext.models.simple_yolo.network import ASSIGNMENTS, COCO_ANCHORS

CASES = "simple_yolo/loss_options.npz"
NO_ORDER = Tensor(np.array([1, 0], np.int32))
OPTIONS = {
    "constant": {"confidence_target": "constant"},
    "gamma0": {"focal_gamma": 0.0},
    "lambda": {"box_weight": 0.5, "object_weight": 2.0, "level_weights": (4.0, 1.0, 0.25)},
    "thres0.3": {"match_iou_thres": 0.3},
    "class1": {},
    "empty": {},
}


def stored_names() -> list[str]:
    kinds = [f"{a}-{k}" for a in ASSIGNMENTS for k in ("iou", "giou", "diou", "ciou", "siou")]
    return [*kinds, *(f"nearby_grid-ciou-{option}" for option in OPTIONS)]


def made_up_heads(classes: int) -> list[np.ndarray]:
    """The heads of the stored cases, (2, 3 * (5 + classes), s, s)."""
    random, heads = np.random.RandomState(77), []
    for side in (24, 12, 6):
        values = random.standard_normal((2, 3, side, side, 25))
        values[..., 3:5] = np.abs(values[..., 3:5]) * 0.4
        values = values[..., : 5 + classes].astype(np.float32)
        heads.append(values.transpose(0, 1, 4, 2, 3).reshape(2, -1, side, side))
    return heads


def loss_of(assignment: str, classes: int = 20, **options):
    model = create_model(
        "simple_yolo_resnet18",
        classes,
        channel_sparsity=0.0625,
        assignment=assignment,
        input_size=(192, 192),
    )
    return create_trainable("simple_yolo_loss", model, **options)


def total_and_gradients(loss, heads, targets, mask):
    function = value_and_grad(
        lambda *h: loss.loss(h, Tensor(targets), Tensor(mask)), (0, 1, 2), has_aux=True
    )
    (total, terms), gradients = function(*[Tensor(h) for h in heads])
    return float(total.asnumpy()), terms.asnumpy(), [g.asnumpy() for g in gradients]


@pytest.mark.parametrize("name", stored_names())
def test_options_equal_the_original(golden, name):
    arrays = golden.arrays(CASES)
    place = [str(n) for n in arrays["names"]].index(name)
    assignment, box_loss, *rest = name.split("-")
    options = {"box_loss": box_loss, **OPTIONS[rest[0]]} if rest else {"box_loss": box_loss}
    classes = 1 if "class1" in rest else 20
    targets, mask = padded_targets(
        arrays["targets"] if "empty" not in rest else arrays["targets"][:0], 2, 8
    )
    if classes == 1:
        targets[..., 0] = 0
    loss = loss_of(assignment, classes, **options)
    total, terms, gradients = total_and_gradients(loss, made_up_heads(classes), targets, mask)
    conf, iou, kinds = arrays["conf_iou_class"][place]
    np.testing.assert_allclose(total, arrays["total"][place], rtol=1e-5)
    np.testing.assert_allclose(
        terms, [loss.box_weight * iou, loss.object_weight * conf, kinds], rtol=1e-5
    )
    norms = [np.linalg.norm(g.astype(np.float64)) for g in gradients]
    np.testing.assert_allclose(norms, arrays["pred_grad_l2"][place], rtol=1e-5)


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_assignment_at_512_equals_the_original(golden, assignment):
    arrays = golden.arrays("simple_yolo/assignment_512.npz")
    rows = arrays["targets"]
    batch = int(rows[:, 0].max()) + 1
    targets, mask = padded_targets(rows, batch, 64)
    for level, stride in enumerate((8, 16, 32)):
        cells, anchors = 512 // stride, COCO_ANCHORS[3 * level : 3 * level + 3]
        if assignment == "all_grid":
            assigner = AnchorBoxAssigner(anchors, stride, threshold=0.0625, conflict="best")
        else:
            nearby = assignment == "nearby_grid"
            assigner = CellAssigner(
                anchors,
                stride,
                threshold=0.0625,
                nearby=nearby,
                conflict="sorted" if nearby else "last",
            )
        found = assigner(Tensor(targets), Tensor(mask), NO_ORDER, (cells, cells), 20)
        matched, index, classes = (x.asnumpy() for x in found)
        shape = (batch, 3, cells, cells)
        places = np.argwhere(matched.reshape(shape) > 0)
        np.testing.assert_array_equal(places, arrays[f"{assignment}_l{level}_index"])
        box = targets[places[:, 0], index.reshape(shape)[tuple(places.T)]]
        np.testing.assert_array_equal(box, rows[arrays[f"{assignment}_l{level}_gt"], 1:])
        wanted = np.unpackbits(arrays[f"{assignment}_l{level}_multihot"], axis=1)[:, :20]
        kinds = classes.reshape(batch, 20, *shape[1:]).transpose(0, 2, 3, 4, 1)
        np.testing.assert_array_equal(kinds[tuple(places.T)], wanted)
        assert kinds.sum() == wanted.sum()


# ---- crowded images against plain loops ----------------------------------------------------------


def crowd(seed: int, batch: int = 3, boxes: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of few sizes in few places, so that many compete for the same cells with equal IoU,
    some on the borders.
    """
    random = np.random.RandomState(seed)
    targets, mask = np.zeros((batch, boxes, 5), np.float32), np.zeros((batch, boxes), np.float32)
    for image, count in enumerate(random.randint(boxes // 2, boxes + 1, batch)):
        places = random.choice([0.0, 0.02, 0.3, 0.34, 0.38, 0.7, 0.99], (count, 2))
        sizes = random.choice([0.05, 0.12, 0.3, 0.6], (count, 2))
        targets[image, :count] = np.column_stack((random.randint(0, 5, count), places, sizes))
        mask[image, :count] = 1
    return targets, mask


def wishes(targets, mask, anchors, stride, cells, threshold, nearby):
    """All candidates in the original's order: IoU, image, anchor, row, column, box."""
    found = []
    side = np.float32(cells * stride)
    for image in range(len(mask)):
        for box in range(int(mask[image].sum())):
            _, x, y, width, height = targets[image, box]
            for number, (anchor_width, anchor_height) in enumerate(
                np.asarray(anchors, np.float32) / side
            ):
                inter = min(width, anchor_width) * min(height, anchor_height)
                iou = inter / (
                    width * height + anchor_width * anchor_height - inter + np.float32(1e-6)
                )
                if iou < threshold:
                    continue
                for down in (-1, 0, 1) if nearby else (0,):
                    for right in (-1, 0, 1) if nearby else (0,):
                        row = min(max(int(y * np.float32(cells)) + down, 0), cells - 1)
                        column = min(max(int(x * np.float32(cells)) + right, 0), cells - 1)
                        found.append((iou, image, number, row, column, box))
    return found


def plain_cells(targets, mask, anchors, stride, cells, *, threshold, nearby, conflict):
    """matched, box and set of classes per cell, computed with plain loops over the candidates."""
    found = wishes(targets, mask, anchors, stride, cells, threshold, nearby)
    if conflict == "sorted":
        found = sorted(found, key=lambda wish: -wish[0])
        found = [wish for i, wish in enumerate(found) if i == 0 or wish[1:5] != found[i - 1][1:5]]
    owner, classes = {}, {}
    for iou, *place, box in found:
        place = tuple(place)
        label = int(targets[place[0], box, 0])
        if conflict == "best":
            if place not in owner or iou > owner[place][0] or (iou == owner[place][0] and False):
                owner[place] = (iou, box)
                classes[place] = {label}
        else:
            owner[place] = (iou, box)
            classes.setdefault(place, set()).add(label)
    return {place: box for place, (_, box) in owner.items()}, classes


@pytest.mark.parametrize("nearby", [False, True])
@pytest.mark.parametrize("conflict", ["last", "sorted", "best"])
def test_crowded_cells_equal_plain_loops(nearby, conflict):
    contested = 0
    for seed in range(3):
        targets, mask = crowd(seed)
        for level, stride in enumerate((8, 16, 32)):
            cells, anchors = 128 // stride, COCO_ANCHORS[3 * level : 3 * level + 3]
            assigner = CellAssigner(
                anchors, stride, threshold=0.1, nearby=nearby, conflict=conflict
            )
            matched, index, classes = (
                x.asnumpy()
                for x in assigner(Tensor(targets), Tensor(mask), NO_ORDER, (cells, cells), 5)
            )
            owner, kinds = plain_cells(
                targets,
                mask,
                anchors,
                stride,
                cells,
                threshold=np.float32(0.1),
                nearby=nearby,
                conflict=conflict,
            )
            shape = (len(mask), 3, cells, cells)
            places = {tuple(p) for p in np.argwhere(matched.reshape(shape) > 0)}
            assert places == set(owner)
            got = index.reshape(shape)
            boxes = {place: int(got[place]) for place in places}
            if conflict == "best":  # of equal overlaps either may be the first in a plain loop
                same = {
                    p
                    for p in places
                    if np.array_equal(targets[p[0], boxes[p]][3:], targets[p[0], owner[p]][3:])
                }
                assert same == places
            else:
                assert boxes == owner
            flags = classes.reshape(len(mask), 5, *shape[1:])
            for place in places:
                ones = set(np.flatnonzero(flags[(place[0], slice(None), *place[1:])]))
                assert ones == (
                    kinds[place]
                    if conflict != "best"
                    else {int(targets[place[0], boxes[place], 0])}
                )
            contested += sum(len(k) > 1 for k in kinds.values())
    assert contested > 20 or conflict == "best"


def test_the_sort_is_stable():
    values = np.random.RandomState(0).choice([0.1, 0.5, 0.7], 500).astype(np.float32)
    valid = (np.random.RandomState(1).uniform(size=500) > 0.3).astype(np.int32)
    got = falling_order(Tensor(values), Tensor(valid)).asnumpy()
    wanted = np.argsort(-np.where(valid, values, -1), kind="stable")
    np.testing.assert_array_equal(got, wanted)
    with pytest.raises(ValueError, match="must not exceed 46340, got 46341; lower data.max_boxes"):
        falling_order(Tensor(np.zeros(46341, np.float32)), Tensor(np.zeros(46341, np.int32)))


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_the_described_filter_gives_the_box_of_the_largest_overlap(assignment):
    """Two boxes with one center: the fitting one comes first, so the last one would be wrong."""
    targets = np.array(
        [[[3, 0.52, 0.52, 16 / 192, 30 / 192], [5, 0.52, 0.52, 40 / 192, 60 / 192]]], np.float32
    )
    mask = np.ones((1, 2), np.float32)
    size = (192, 192)
    best = loss_of(assignment, filter_rule="best", match_iou_thres=0.1)
    original = loss_of(assignment, match_iou_thres=0.1)
    off = loss_of(assignment, filter_by_max_iou=False, match_iou_thres=0.1)
    cell = 1 * 24 * 24 + int(0.52 * 24) * 24 + int(0.52 * 24)  # stride 8, anchor (16, 30)
    found = {}
    for name, loss in (("best", best), ("original", original), ("off", off)):
        matched, index, classes = (
            x.asnumpy()[0] for x in loss.assign(size, Tensor(targets), Tensor(mask))
        )
        assert matched[cell] == 1
        found[name] = (int(index[cell]), set(np.flatnonzero(classes[:, cell])))
    assert found["best"] == (0, {3})
    assert found["off"] == (1, {3, 5})
    wanted = (0, {3}) if assignment == "all_grid" else (1, {3, 5})
    assert found["original"] == wanted


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_a_drawn_order_is_another_one_each_step_and_the_same_for_the_same_seed(assignment):
    targets, mask = crowd(5, batch=2, boxes=20)
    targets[..., 1:3] = 0.5
    targets[..., 3:] = 0.1
    loss = loss_of(assignment, filter_by_max_iou=False, tie_rule="random")

    def owners(seed, iteration):
        loss.begin_step(StepClock(iteration=iteration, epoch=0, epochs=2, seed=seed, rank=0))
        matched, index, _ = (
            x.asnumpy() for x in loss.assign((192, 192), Tensor(targets), Tensor(mask))
        )
        return [set(index[image][matched[image] > 0].tolist()) for image in range(2)]

    drawn = [owners(0, i) for i in range(8)]
    assert owners(0, 3) == drawn[3] and drawn[:3] != [owners(1, i) for i in range(3)]
    for image in range(2):  # all boxes are equal, so one of them owns all cells
        assert all(len(d[image]) == 1 for d in drawn)
        winners = {next(iter(d[image])) for d in drawn}
        assert len(winners) > 3 and max(winners) < mask[image].sum()
    assert PRIME > 2 * 20


# ---- where the original gives NaN or crashes -----------------------------------------------------


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_levels_without_a_match_count_nothing(assignment):
    """One box that fits only stride 32. The original's loss is then NaN, or it crashes."""
    targets = np.zeros((2, 4, 5), np.float32)
    targets[0, 0] = (2, 0.5, 0.5, 0.95, 0.95)
    mask = np.zeros((2, 4), np.float32)
    mask[0, 0] = 1
    loss = loss_of(assignment, match_iou_thres=0.3)
    heads = made_up_heads(20)
    levels = loss.level_terms([Tensor(h) for h in heads], Tensor(targets), Tensor(mask)).asnumpy()
    assert (
        (levels[[0, 2], 0] == 0).all() and (levels[[0, 2], 2] > 0).all() and (levels[1] > 0).all()
    )
    total, _, gradients = total_and_gradients(loss, heads, targets, mask)
    assert np.isfinite(total) and all(np.isfinite(g).all() for g in gradients)


def test_weight_of_the_background():
    targets, mask = crowd(1, batch=2, boxes=8)
    heads = made_up_heads(20)
    plain, more = (
        total_and_gradients(loss_of("nearby_grid", noobj_weight=w), heads, targets, mask)
        for w in (0, 0.5)
    )
    assert more[1][1] > 1.2 * plain[1][1]
    np.testing.assert_allclose(more[1][[0, 2]], plain[1][[0, 2]], rtol=1e-6)
    constant = {
        "confidence_target": "constant",
        "focal_gamma": 0.0,
        "level_weights": (1.0, 0.0, 0.0),
    }
    got = [
        total_and_gradients(
            loss_of("nearby_grid", noobj_weight=w, **constant), heads, targets, mask
        )[1][1]
        for w in (0, 0.5)
    ]
    logits = heads[0].reshape(2, 3, 25, -1)[:, :, 0].astype(np.float64)
    matched = (
        loss_of("nearby_grid")
        .assign((192, 192), Tensor(targets), Tensor(mask))[0]
        .asnumpy()[:, : 3 * 576]
    )
    entropy = np.log1p(np.exp(logits)) - logits * matched.reshape(logits.shape)
    wanted = [entropy.mean(), (entropy * (1 + 0.5 * (1 - matched.reshape(logits.shape)))).mean()]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_boxes_on_the_border_have_a_cell():
    targets = np.array([[[1, 1.0, 1.0, 0.1, 0.1], [2, 0.0, 0.0, 0.1, 0.1]]], np.float32)
    for assignment in ("single_grid", "nearby_grid"):
        matched, index, _ = (
            x.asnumpy()[0]
            for x in loss_of(assignment).assign(
                (192, 192), Tensor(targets), Tensor(np.ones((1, 2), np.float32))
            )
        )
        first, last = (matched[: 3 * 576].reshape(3, 24, 24)[:, i, i] for i in (0, -1))
        assert first.any() and last.any()
        assert set(index[: 3 * 576].reshape(3, 24, 24)[:, -1, -1][last > 0]) == {0}


class Replaced(nn.Cell):
    """Replaces the sum over ranks: records its input, or returns a given value."""

    def __init__(self, told=None):
        super().__init__()
        self.told, self.given = told, None

    def construct(self, values):
        self.given = values
        return values if self.told is None else self.told


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_shares_of_the_ranks_add_up(assignment):
    """Two halves of a batch, each with the counts of the whole batch, as on two ranks."""
    targets, mask = crowd(3, batch=2, boxes=12)
    heads = made_up_heads(20)
    loss = loss_of(assignment, filter_rule="best")
    loss.global_sum = whole = Replaced()
    total, terms, gradients = total_and_gradients(loss, heads, targets, mask)
    shares = []
    for rank in (0, 1):
        loss.global_sum = Replaced(whole.given)
        shares.append(
            total_and_gradients(
                loss,
                [h[rank : rank + 1] for h in heads],
                targets[rank : rank + 1],
                mask[rank : rank + 1],
            )
        )
    np.testing.assert_allclose(shares[0][0] + shares[1][0], total, rtol=1e-5)
    np.testing.assert_allclose(shares[0][1] + shares[1][1], terms, rtol=1e-5)
    for level, gradient in enumerate(gradients):
        joined = np.concatenate([share[2][level] for share in shares])
        np.testing.assert_allclose(joined, gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"filter_rule": "worst"}, "filter_rule must be one of"),
        ({"tie_rule": "sorted"}, "tie_rule must be one of"),
        ({"box_loss": "eiou"}, "box_loss must be one of"),
        ({"confidence_target": "one"}, "confidence_target must be"),
        ({"level_weights": (1, 1)}, "level_weights needs 3 factors"),
        ({"match_iou_thres": 1.5}, "match_iou_thres in 0..1"),
        ({"focal_gamma": -1.0}, "at least 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        loss_of("nearby_grid", **options)


def test_a_model_of_another_family():
    with pytest.raises(ValueError, match="wanted a simple_yolo model, got family 'yolo_fastestv2'"):
        create_trainable("simple_yolo_loss", create_model("yolo_fastestv2"))

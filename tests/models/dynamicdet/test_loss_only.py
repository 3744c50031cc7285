"""DynamicDet's losses on given maps, against arrays of the original program and by definition."""

from functools import lru_cache

import numpy as np
import pytest
from helpers import padded_targets
from models.dynamicdet.rows import MatchedRows, rows_by_level

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.gradients import value_and_grad
from mindyolo_ext.backend.launch import World
from mindyolo_ext.backend.parameters import parameter_groups
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep
from mindyolo_ext.contracts import StepClock
from mindyolo_ext.losses.assign.dynamic_k import EXCLUDED, cheapest
from mindyolo_ext.losses.assign.ota import OTAAssigner
from mindyolo_ext.losses.iou import ciou
from mindyolo_ext.models.dynamicdet import loss as dynamicdet
from mindyolo_ext.models.registry import create_trainable

pytestmark = pytest.mark.graph(when="all_cases")
FILE = "dynamicdet/loss_only.npz"
BATCH, BOXES = 3, 18  # of the stored cases; two rows of padding at least
LEVELS = {
    3: [
        (12, 16),
        (19, 36),
        (40, 28),
        (36, 75),
        (76, 55),
        (72, 146),
        (142, 110),
        (192, 243),
        (459, 401),
    ],
    4: [
        (19, 27),
        (44, 40),
        (38, 94),
        (96, 68),
        (86, 152),
        (180, 137),
        (140, 301),
        (303, 264),
        (238, 542),
        (436, 615),
        (739, 380),
        (925, 792),
    ],
}
GAINS = {3: {}, 4: {"box": 0.0375, "objectness": 2.1, "classes": 0.225}}
RTOL, RTOL_GRADIENT = 1e-5, 1e-4


class Predictions(nn.Cell):
    """Stands in for a model: it predicts what it is given."""

    family, has_router = "dynamicdet", True

    def __init__(self, levels=3, num_classes=80):
        super().__init__()
        self.strides, self.anchors = (8, 16, 32, 64)[:levels], LEVELS[levels]
        self.num_classes = num_classes
        self.router = nn.Dense(2, 1)
        self.backbone = nn.Dense(2, 2)

    def construct(self, *maps):
        return maps


class Case:
    """One stored case; its maps are drawn again from the seed."""

    def __init__(self, arrays, name):
        self.arrays = arrays.below(f"{name}_")
        self.levels, self.classes, self.size, std = {
            "p5_mixed": (3, 80, 96, 0.7),
            "p5_many": (3, 80, 96, 0.3),
            "p5_empty": (3, 80, 96, 0.7),
            "p6_mixed": (4, 3, 192, 0.7),
            "one_class": (3, 1, 96, 0.7),
        }[name]
        random, self.maps = np.random.RandomState(int(self.arrays["in_seed"])), []
        for level in 2 * list(range(self.levels)):
            side = self.size // (8 * 2**level)
            drawn = random.standard_normal((BATCH, 3, 5 + self.classes, side, side)) * std
            drawn[:, :, 4:] -= 2
            self.maps.append(drawn.reshape(BATCH, -1, side, side).astype(np.float32))
        np.testing.assert_allclose(
            [m.astype(np.float64).sum() for m in self.maps], self.arrays["in_check"], rtol=1e-5
        )
        self.targets, self.mask = padded_targets(self.arrays["in_boxes"], BATCH, BOXES)
        self.inputs = (
            Tensor(self.targets),
            Tensor(self.mask),
            *(Tensor(level) for level in self.maps),
        )
        self.sizes = [level.shape[2:] for level in self.maps[: self.levels]]


class StepOne(nn.Cell):
    """Total, terms, matched rows and matches from the maps, and the gradients of the maps."""

    def __init__(self, trainable):
        super().__init__(auto_prefix=False)
        self.trainable, self.found = trainable, MatchedRows(trainable)
        places = tuple(range(2, 2 + 2 * trainable.levels))
        self.function = value_and_grad(self.value, places, None, has_aux=True)

    def value(self, targets, mask, *maps):
        total, terms = self.trainable.loss(maps, targets, mask)
        return total, terms, self.found(targets, mask, *maps)

    def construct(self, targets, mask, *maps):
        return self.function(targets, mask, *maps)


class Terms(nn.Cell):
    """Only the terms."""

    def __init__(self, trainable):
        super().__init__(auto_prefix=False)
        self.trainable = trainable

    def construct(self, targets, mask, *maps):
        return self.trainable.loss(maps, targets, mask)[1]


class StepTwo(nn.Cell):
    """Total and terms of the router's loss; gradients of the easiness and of the first map."""

    def __init__(self, trainable):
        super().__init__(auto_prefix=False)
        self.trainable = trainable
        self.function = value_and_grad(self.value, (0, 3), None, has_aux=True)

    def value(self, easiness, targets, mask, *maps):
        return self.trainable.loss((*maps, easiness), targets, mask)

    def construct(self, easiness, targets, mask, *maps):
        return self.function(easiness, targets, mask, *maps)


@pytest.fixture(scope="module")
def cases(golden):
    arrays = golden.arrays(FILE)
    return {
        name: Case(arrays, name)
        for name in ("p5_mixed", "p5_many", "p5_empty", "p6_mixed", "one_class")
    }


@lru_cache
def step_one(levels, classes):
    return StepOne(
        create_trainable("dynamicdet_loss", Predictions(levels, classes), **GAINS[levels])
    )


def close(got, wanted, rtol=RTOL):
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=1e-6)


# ---- stored numbers of the original --------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["p5_mixed", "p5_many", "p5_empty", "p6_mixed", "one_class"],
)
def test_step_one(cases, name):
    """Losses, matched rows in the original's order and gradients of the maps."""
    case = cases[name]
    (total, terms, found), gradients = step_one(case.levels, case.classes)(*case.inputs)
    close(total.asnumpy(), case.arrays["total"])
    close(terms.asnumpy(), case.arrays["items"][:3])
    rows = rows_by_level([part.asnumpy() for part in found], case.targets, case.sizes)
    for detector, own in zip(("first", "second"), rows, strict=True):
        for level, got in enumerate(own):
            np.testing.assert_array_equal(
                np.delete(got, 4, 1), case.arrays[f"assign_{detector}_l{level}"]
            )
    gradients = [g.asnumpy().astype(np.float64) for g in gradients]
    close([np.linalg.norm(g) for g in gradients], case.arrays["grad_l2"], RTOL_GRADIENT)
    sampled = np.concatenate([g.reshape(-1)[::97] for g in gradients])
    np.testing.assert_allclose(
        sampled,
        case.arrays["grad_s97"],
        rtol=RTOL_GRADIENT,
        atol=1e-5 * np.abs(case.arrays["grad_s97"]).max(),
    )


def test_the_stored_cases_hold_what_is_hard(cases):
    """A prediction that is matched twice, centers on borders of cells, an image without boxes."""
    arrays = cases["p5_mixed"].arrays
    cells = arrays["assign_second_l0"][:, :4]
    assert len(np.unique(cells, axis=0)) < len(cells)
    boxes = arrays["in_boxes"]
    assert set(boxes[:, 0]) == {0, 2}
    on_border = boxes[:, 2] * 12 % 0.5 == 0
    assert on_border.sum() > 4


@pytest.mark.all_cases
@pytest.mark.parametrize(
    "smoothing, heads",
    [
        pytest.param(0.0, "second", marks=pytest.mark.graph),
        (0.0, "first"),
        (0.1, "second"),
        (0.1, "first"),
    ],
)
def test_every_candidate_matched(cases, heads, smoothing):
    """The loss of the original's validation."""
    cell = Terms(
        create_trainable(
            "dynamicdet_loss", Predictions(), assigner="all", heads=heads, label_smoothing=smoothing
        )
    )
    for name in ("p5_mixed", "p5_many", "p5_empty"):
        stored = cases[name].arrays[f"{'smooth' if smoothing else 'plain'}_{heads}_items"]
        close(cell(*cases[name].inputs).asnumpy(), stored[:3])


@pytest.fixture(scope="module")
def step_two():
    return StepTwo(create_trainable("dynamicdet_router_loss", Predictions(), history=64))


def restart(trainable):
    """Forget all differences."""
    for parameter in (trainable.history, trainable.count, trainable.tracked_difference):
        parameter.set_data(Tensor(np.zeros(parameter.shape, parameter.asnumpy().dtype)))


@pytest.mark.all_cases
@pytest.mark.graph  # the quick suite compiles step 2's loss here, not with a network
def test_step_two_image_by_image(cases, step_two):
    """Differences, median, loss and gradient; the first gradient is rounding."""
    restart(step_two.trainable)
    case = cases["p5_many"]
    for image, (difference, easy, hard, adaptive, slope) in enumerate(case.arrays["router_items"]):
        inputs = [x[image : image + 1] for x in case.inputs]
        step_two.trainable.begin_step(StepClock(iteration=image, epoch=0, epochs=1))
        (total, terms), (gradient, of_map) = step_two(Tensor(np.array([easy], np.float32)), *inputs)
        np.testing.assert_allclose(
            terms.asnumpy(), [difference, easy, hard, adaptive], rtol=RTOL, atol=1e-5
        )
        close(total.asnumpy(), adaptive)
        np.testing.assert_allclose(gradient.asnumpy(), [slope], rtol=RTOL, atol=2e-6)
        assert not of_map.asnumpy().any()
        np.testing.assert_allclose(
            np.median(step_two.trainable.history.asnumpy()[: image + 1]),
            case.arrays["router_median"][image],
            rtol=RTOL,
            atol=1e-6,
        )
    assert step_two.trainable.count.asnumpy() == BATCH


# ---- by definition -------------------------------------------------------------------------------


class Together(nn.Cell):
    """Stands in for ``GlobalSum``: ``function`` returns the sum over the ranks."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def construct(self, x):
        return self.function(x)


class EagerTrack:
    """``track`` of a router loss with made-up settings, outside graphs."""

    def __init__(
        self, monkeypatch, *, all_up_to=10, every=4, history=40, rank=0, ranks=1, tells_images=False
    ):
        self.tells_images = tells_images
        monkeypatch.setattr(dynamicdet, "MEDIAN_OF_ALL", all_up_to)
        monkeypatch.setattr(dynamicdet, "MEDIAN_EVERY", every)
        monkeypatch.setattr(dynamicdet, "world", lambda: World(rank, ranks, "msrun"))
        self.trainable = create_trainable("dynamicdet_router_loss", Predictions(), history=history)
        self.iteration = 0

    def __call__(self, values):
        images = len(values) if self.tells_images else 0
        self.trainable.begin_step(StepClock(self.iteration, epoch=0, epochs=1, images=images))
        self.iteration += 1
        return float(self.trainable.track(Tensor(np.array(values, np.float32))).asnumpy()[0])


@pytest.mark.graph(when="never")
@pytest.mark.parametrize("tells_images", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_median_of_all_and_then_of_full_blocks(monkeypatch, batch, tells_images):
    """The median of all differences up to 10, later of the first 10, 12, 16, ..., from the next
    step on.
    """
    track = EagerTrack(monkeypatch, tells_images=tells_images)
    values = np.random.RandomState(0).standard_normal(30).astype(np.float32)
    for begin in range(0, 30, batch):
        known = begin + batch
        if begin < 10:
            wanted = np.median(values[: min(known, 10)])
        else:
            wanted = np.median(values[: max(begin // 4 * 4, 10)])
        assert track(values[begin:known]) == pytest.approx(wanted, abs=1e-7), begin
    np.testing.assert_array_equal(track.trainable.history.asnumpy()[:30], values)
    assert track.trainable.count.asnumpy() == 30


@pytest.mark.graph(when="never")
def test_the_count_is_read_once_by_a_clock_that_tells_images(monkeypatch):
    """As after a resume: the history contains differences from before the first step."""
    reads, track = [], EagerTrack(monkeypatch, tells_images=True)
    track([1.0, 4.0])
    track.trainable.counted = None
    plain = type(track.trainable.count).asnumpy
    monkeypatch.setattr(
        type(track.trainable.count),
        "asnumpy",
        lambda self: (reads.append(1) if self is track.trainable.count else None, plain(self))[1],
    )
    assert [track([value]) for value in (6.0, 8.0, 9.0)] == [4.0, 5.0, 6.0]
    assert len(reads) == 1


@pytest.mark.graph(when="never")
@pytest.mark.parametrize("tells_images", [False, True])
def test_a_full_history_is_told(monkeypatch, tells_images):
    track = EagerTrack(monkeypatch, history=4, tells_images=tells_images)
    for value in (3.0, 1.0, 2.0, 5.0):
        track([value])
    with pytest.raises(
        ValueError, match="4 images is full before iteration 4; set train.loss.history"
    ):
        track([0.0])


@pytest.mark.graph(when="never")
def test_all_ranks_share_one_history(monkeypatch):
    """Each rank adds its own row and those of the others."""
    first, second = ((5.0, 1.0), (2.0, 9.0))
    for rank, (own, other) in enumerate(((first, second), (second, first))):
        track = EagerTrack(monkeypatch, rank=rank, ranks=2)
        extra = np.zeros((2, 2), np.float32)
        extra[1 - rank] = other
        track.trainable.global_sum = Together(lambda x, extra=extra: x + Tensor(extra))
        assert track(own) == pytest.approx(3.5)
        np.testing.assert_array_equal(track.trainable.history.asnumpy()[:5], [5, 1, 2, 9, 0])


@pytest.mark.graph(when="never")
def test_shares_of_two_ranks_add_up(cases):
    """Image 0 on one rank, images 1 and 2 on the other, with the counts of both, give the total
    of all.
    """
    case = cases["p5_many"]
    trainable = create_trainable("dynamicdet_loss", Predictions())
    counts = [
        len(case.arrays[f"assign_{detector}_l{level}"])
        for detector in ("first", "second")
        for level in range(3)
    ]
    everywhere = Tensor(np.array([*counts, BATCH], np.float32))
    local = []
    trainable.global_sum = Together(lambda x: (local.append(x.asnumpy()), everywhere)[1])
    shares = []
    for part in (slice(0, 1), slice(1, 3)):
        targets, mask, *maps = (x[part] for x in case.inputs)
        shares.append(trainable.loss(maps, targets, mask))
    np.testing.assert_array_equal(sum(local), everywhere.asnumpy())
    close(sum(total.asnumpy() for total, _ in shares), case.arrays["total"])
    close(sum(terms.asnumpy() for _, terms in shares), case.arrays["items"][:3])


def test_the_state_of_a_training_holds_the_history():
    model = Predictions()
    trainable = create_trainable("dynamicdet_router_loss", model, history=5)
    step = TrainStep(trainable, parameter_groups(trainable), OptimizerOptions())
    trainable.history.set_data(Tensor(np.arange(5, dtype=np.float32)))
    trainable.count.set_data(Tensor(np.array([3], np.int32)))
    trainable.tracked_difference.set_data(Tensor(np.array([0.5], np.float32)))
    state = step.state()
    other = create_trainable("dynamicdet_router_loss", Predictions(), history=5)
    TrainStep(other, parameter_groups(other), OptimizerOptions()).load_state(state)
    np.testing.assert_array_equal(other.history.asnumpy(), np.arange(5))
    assert other.count.asnumpy() == 3 and other.tracked_difference.asnumpy() == 0.5
    assert not [name for name, _ in model.parameters_and_names() if name.startswith("loss.")]


def test_only_the_router_is_trained():
    class WithNorm(Predictions):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(2)

    model = WithNorm()
    trainable = create_trainable("dynamicdet_router_loss", model)
    assert {p.name for group in parameter_groups(trainable) for p in group.parameters} == {
        "router.weight",
        "router.bias",
    }
    assert model.norm.use_batch_statistics is False


class MatchesOf(nn.Cell):
    """``matches`` on given maps, and the rows behind it."""

    def __init__(self, trainable, maps):
        super().__init__(auto_prefix=False)
        self.trainable, self.found = trainable, MatchedRows(trainable)
        self.trainable.model = GivenMaps(maps)

    def construct(self, images, targets, mask):
        return self.trainable.matches(images, targets, mask), self.found(
            targets, mask, *self.trainable.model(images)
        )


class GivenMaps(nn.Cell):
    """Ignores the images."""

    strides = (8, 16, 32)

    def __init__(self, maps):
        super().__init__()
        self.maps = tuple(Tensor(level) for level in maps)

    def construct(self, _):
        return self.maps


@pytest.mark.graph(when="never")
def test_matches_are_the_rows_of_the_second_detector(cases):
    case = cases["p5_mixed"]
    cell = MatchesOf(create_trainable("dynamicdet_loss", Predictions()), case.maps)
    matches, _ = cell(Tensor(np.zeros(1, np.float32)), *case.inputs[:2])
    matches = matches.asnumpy()
    wanted, first = np.zeros(matches.shape, np.float32), 0
    for level, (height, width) in enumerate(case.sizes):
        for image, anchor, y, x, *target in case.arrays[f"assign_second_l{level}"]:
            equal = (case.targets[int(image)] == np.array(target, np.float32)).all(1) & (
                case.mask[int(image)] > 0
            )
            wanted[int(image), equal.argmax(), first + int((anchor * height + y) * width + x)] = 1
        first += 3 * height * width
    assert matches.shape == (BATCH, BOXES, first) and wanted.sum() > 10
    np.testing.assert_array_equal(matches, wanted)


def test_a_height_added_to_ciou():
    """Two boxes, the second flat, so that the added height is visible."""
    first, second, eps = np.array([0.0, 0, 2, 2]), np.array([1.0, 1, 3, 1.01]), 1e-2
    sizes = [box[2:] - box[:2] for box in (first, second)]
    heights = [size[1] + eps for size in sizes]
    overlap = 0.01 / (2 * heights[0] + 2 * heights[1] - 0.01 + eps)
    aspect = (
        4 / np.pi**2 * (np.arctan(2 / (heights[1] + eps)) - np.arctan(2 / (heights[0] + eps))) ** 2
    )
    distance = (1 + 0.005**2) / (9 + 4 + eps)
    wanted = overlap - distance - aspect**2 / (aspect - overlap + 1 + eps)
    boxes = [tuple(Tensor(np.array([side], np.float32)) for side in box) for box in (first, second)]
    np.testing.assert_allclose(ciou(*boxes, eps, added_height=eps).asnumpy(), wanted, rtol=1e-5)
    assert abs(ciou(*boxes, eps).asnumpy() - wanted) > 3e-4


def selection_by_definition(cost, number):
    """One image: costs (M, C), candidates per box (M,) -> index of the box or -1."""
    taken = np.zeros(cost.shape, bool)
    for box, count in enumerate(number):
        order = np.argsort(cost[box], kind="stable")[:count]
        taken[box, order[cost[box, order] < 0.5 * EXCLUDED]] = True
    winner = np.where(taken.any(0), taken.argmax(0), -1)
    return np.where(taken.sum(0) > 1, cost.argmin(0), winner)


@pytest.mark.graph(when="never")
@pytest.mark.parametrize("candidates", [4, 60])
def test_cheapest_with_equal_costs(candidates):
    """Few different costs, some pairs excluded: the first of equal costs is taken."""
    random = np.random.RandomState(0)
    cost = random.randint(0, 6, (5, 7, candidates)).astype(np.float32)
    cost[:, :, random.rand(candidates) < 0.3] += EXCLUDED
    cost[0] += EXCLUDED
    number = random.randint(1, 11, (5, 7)).astype(np.int32)
    matched, box = (
        part.asnumpy() for part in cheapest(Tensor(cost), Tensor(number), first_of_equal=True)
    )
    wanted = np.stack([selection_by_definition(c, n) for c, n in zip(cost, number)])
    np.testing.assert_array_equal(np.where(matched > 0, box, -1), wanted)
    assert not matched[0].any() and matched[1:].any()


@pytest.mark.graph(when="never")
def test_certain_predictions_cost_something_finite():
    """Where probabilities round to 1 and 0, the original has infinities."""
    boxes = tuple(Tensor(np.full((1, 4), side, np.float32)) for side in (0, 0, 8, 8))
    objectness = Tensor(np.array([[40, 40, -100, 0]], np.float32))
    classes = Tensor(np.array([[[40, -100, 40, 0], [-40, -100, 40, 0]]], np.float32))
    wanted = tuple(Tensor(np.full((1, 1), value, np.float32)) for value in (0, 0, 0, 8, 8))
    ones = Tensor(np.ones((1, 4), np.float32))
    cost, _ = OTAAssigner().pair_costs((boxes, ones), (objectness, classes), wanted, ones[:, :1])
    cost = cost.asnumpy()[0, 0]
    assert np.isfinite(cost).all()
    assert cost[0] == cost.min() and cost[3] == pytest.approx(2 * np.log(2), rel=1e-5)


@pytest.mark.graph(when="never")
def test_boxes_that_nothing_fits_train_objectness_alone(cases):
    """A box that fits no anchor, an image of padding, and all gradients finite."""
    case = cases["p5_mixed"]
    targets, mask = np.zeros((BATCH, 2, 5), np.float32), np.zeros((BATCH, 2), np.float32)
    targets[0, 0], mask[0, 0] = (3, 0.5, 0.5, 0.9, 0.01), 1
    trainable = create_trainable("dynamicdet_loss", Predictions())
    box, objectness, classes, counts = trainable.sums(
        case.inputs[2:], Tensor(targets), Tensor(mask)
    )
    assert counts.asnumpy().sum() == box.asnumpy().sum() == classes.asnumpy().sum() == 0
    assert objectness.asnumpy().min() > 0


# ---- errors of the builders ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("dynamicdet_loss", {"assigner": "tal"}, "assigner must be one of .*'ota'.* got 'tal'"),
        ("dynamicdet_loss", {"heads": "third"}, "heads must be one of .*got 'third'"),
        ("dynamicdet_loss", {"anchor_threshold": 1.0}, "anchor_threshold must be above 1"),
        ("dynamicdet_loss", {"level_weights": (1.0, 2.0)}, "level_weights needs 3 factors"),
        ("dynamicdet_loss", {"label_smoothing": 1.0}, "label_smoothing must be in 0..1"),
        ("dynamicdet_router_loss", {"history": 0}, "history must be at least 1"),
    ],
)
def test_settings_that_are_refused(name, keywords, message):
    with pytest.raises(ValueError, match=f"{name}: .*{message}|{name}: {message}"):
        create_trainable(name, Predictions(), **keywords)


def test_models_that_are_refused():
    model = Predictions()
    model.has_router = False
    with pytest.raises(ValueError, match="wanted a model with a router"):
        create_trainable("dynamicdet_router_loss", model)
    model.family = "yolox"
    with pytest.raises(ValueError, match="wanted a dynamicdet model, got family 'yolox'"):
        create_trainable("dynamicdet_loss", model)

"""DynamicDet's two training steps against arrays of the original program; tolerances as in
tests/golden/README.md.
"""

import numpy as np
import pytest
from gradients import Gradients, LossAndHeads, nesterov_totals, norms_and_sums
from helpers import padded_targets
from models.dynamicdet.case import (
    BATCH,
    BOXES,
    CLASSES,
    SIDE,
    gradient_order,
    in_original_order,
    load_seeded,
    meta_of,
    original_names,
    seeded_model,
    stored_maps,
)
from models.dynamicdet.rows import CandidateCosts, equal_losses, has_open_choice, rows_by_level
from modes import as_graph
from networks import number_of
from seeded import seeded_boxes, seeded_images

from mindyolo_ext.backend import Tensor, nn, ops
from mindyolo_ext.contracts import StepClock
from mindyolo_ext.models.registry import create_trainable

FAMILY = "dynamicdet"
QUICK_VARIANTS = ("dy_yolov7_w0125",)
GRAPH_VARIANTS = ("dy_yolov7_w0125",)
pytestmark = pytest.mark.graph(when="smallest")
DETECTORS = ("first", "second")
PADDED = 8  # boxes per image of the batches
ITERATIONS = 6  # of step 2, with a batch of one
# Rounding grows with the depth of the seeded networks; X is the noisiest
# of maps on batch statistics: largest and root mean square
RAW = {"dy_yolov7x": (2e-2, 1.5e-3), "usual": (4e-3, 3e-4)}
# of norms, and of sums in units of the norm times the root of the size
GRADIENT = {"dy_yolov7x": (3e-2, 1e-2), "usual": (4e-3, 4e-3)}
STATISTICS = {"dy_yolov7x": 2e-4, "usual": 4e-5}
# of totals, and of the items; and where the original chose others of equal costs
LOSS = {"dy_yolov7x": (3e-5, 1e-4), "usual": (1e-5, 1e-4)}
OTHER_CHOICE = 5e-2
CHAOS = 0.15  # of later losses: a match more or less moves a level's mean


def of(table: dict, case) -> object:
    return table.get(case.variant, table["usual"])


def chosen_alike(case) -> bool:
    """Whether the original is known to have taken the first of equal costs, so that no difference
    is allowed.
    """
    return case.default and case.variant in QUICK_VARIANTS


def gains_of(case) -> dict[str, float]:
    """Keywords of the losses from the case's gains."""
    gains = meta_of(case)["loss_gains"]
    return {"box": gains["box"], "objectness": gains["obj"], "classes": gains["cls"]}


class Losses(nn.Cell):
    """Terms of either detector with both assigners, from raw maps; a tuple of them would be
    compiled anew each time.
    """

    def __init__(self, model: nn.Cell, gains: dict[str, float]):
        super().__init__(auto_prefix=False)
        self.kinds = nn.CellList(
            [
                create_trainable("dynamicdet_loss", model, heads=which, assigner=assigner, **gains)
                for assigner in ("ota", "all")
                for which in DETECTORS
            ],
            auto_prefix=False,
        )

    def construct(self, targets, mask, *heads):
        terms = ()
        for trainable in self.kinds:
            terms = terms + (trainable.loss(heads, targets, mask)[1],)
        return ops.stack(terms, 0)


class Runs:
    """One case's cascade with its compiled step."""

    def __init__(self, case, all_cases):
        self.case, self.arrays, self.all_cases = case, case.arrays(), all_cases
        self.side = 512 if "size512" in case.path.stem else SIDE
        self.model = seeded_model(case, router=False)
        self.strides = self.model.strides
        self.boxes = case.boxes(BATCH, BOXES, CLASSES)
        self.inputs = [
            Tensor(x)
            for x in (
                case.images(BATCH, self.side, self.side),
                *padded_targets(self.boxes, BATCH, PADDED),
            )
        ]
        self.trainable = create_trainable("dynamicdet_loss", self.model, **gains_of(case))
        self.gradients = Gradients(LossAndHeads(self.trainable)).set_train(True)
        self.losses = Losses(self.model, gains_of(case))
        self.first, self.rows = None, None

    def step(self):
        """Total, terms, heads and gradients."""
        (total, terms, heads), gradients = self.gradients(*self.inputs)
        return float(total.asnumpy()), terms.asnumpy(), heads, [g.asnumpy() for g in gradients]

    def first_step(self):
        """Total, terms, heads, gradients' norms and sums, and statistics of the step from the
        seeded weights.
        """
        if self.first is None:
            load_seeded(self.model, self.case)
            total, terms, heads, gradients = self.step()
            order = gradient_order(self.case, self.model)
            statistics = {
                theirs: self.parameters[own].asnumpy().copy()
                for own, theirs in self.names.items()
                if "running_" in theirs
            }
            self.first = total, terms, heads, norms_and_sums(gradients, order), statistics
        return self.first

    def matched(self):
        """Rows of the first step by detector and level; whether equal costs left the original a
        choice.
        """
        if self.rows is None:
            sizes = [(self.side // stride,) * 2 for stride in self.strides]
            heads = self.first_step()[2]
            with as_graph(self.all_cases):  # the graph of the step has these matches in it
                costs = CandidateCosts(self.trainable)(*self.inputs[1:], *heads)
            found = [x.asnumpy() for x in costs]
            self.rows = (
                rows_by_level(found[:4], self.inputs[1].asnumpy(), sizes),
                has_open_choice(*found[4:]),
            )
        return self.rows

    def stored_rows(self) -> list[list[np.ndarray]]:
        """The original's rows, in the form of ``matched``."""
        return [
            [self.arrays[f"assign_{which}_l{level}"] for level in range(len(self.strides))]
            for which in DETECTORS
        ]

    def same_choice(self) -> bool:
        """Whether the original matched the same rows, or its choice among equal costs does not
        change the loss.
        """
        return equal_losses(self.matched()[0], self.stored_rows())

    def loss_tolerance(self) -> tuple[float, float]:
        """Of totals and of items."""
        return of(LOSS, self.case) if self.same_choice() else (OTHER_CHOICE, OTHER_CHOICE)

    @property
    def names(self) -> dict[str, str]:
        return original_names(self.model, self.case)

    @property
    def parameters(self) -> dict:
        return dict(self.model.parameters_and_names())

    def items(self, heads, boxes: np.ndarray) -> dict[str, np.ndarray]:
        """box, object, class and their sum, by assigner and detector."""
        rows = self.losses(
            *(Tensor(x) for x in padded_targets(boxes, BATCH, PADDED)), *heads
        ).asnumpy()
        rows = np.concatenate([rows, rows.sum(1, keepdims=True)], 1)
        return dict(zip(("first", "second", "plain_first", "plain_second"), rows, strict=True))


@pytest.fixture(scope="module")
def runs(golden_case, all_cases):
    return Runs(golden_case, all_cases)


def stored(runs: Runs, name: str) -> np.ndarray:
    if name not in runs.arrays:
        pytest.skip(f"this case has no {name}")
    return runs.arrays[name]


def test_the_default_cases_hold_what_the_tests_read(golden_case):
    """If a case of the default folder lost an array, its tests would only be skipped."""
    if not golden_case.default:
        pytest.skip("a case of another folder may hold less")
    wanted = {f"loss_{kind}{which}_items" for kind in ("", "plain_") for which in DETECTORS} | {
        "grad_l2",
        "grad_sum",
    }
    if "size512" not in golden_case.path.stem:
        wanted |= {"loss_half_items", "loss_empty_items", "traj_loss", "traj_loss_lr1e-5"}
        wanted |= {
            f"step2_{kind}_{name}"
            for kind in ("sgd", "adamw")
            for name in ("items", "loss", "tracked_diff", "grad_l2", "grad_sum", "delta_l2")
        }
        wanted |= {f"step2_loss_{which}_items" for which in DETECTORS} | {
            "valloss_easy",
            "valloss_hard",
        }
    assert set(golden_case.arrays()) >= wanted


@pytest.mark.parametrize("place, which", tuple(enumerate(DETECTORS)))
def test_heads_in_training_mode(runs, place, which):
    levels = len(runs.strides)
    heads = [in_original_order(h.asnumpy()) for h in runs.first_step()[2]][place * levels :][
        :levels
    ]
    most, usual = of(RAW, runs.case)
    for head, (wanted, leap) in zip(
        heads, stored_maps(runs.arrays, f"train_{which}_raw", levels), strict=True
    ):
        distance = np.abs(head.reshape(-1)[::leap] - wanted)
        assert distance.max() < most and np.sqrt((distance**2).mean()) < usual


def test_loss(runs):
    total, terms = runs.first_step()[:2]
    of_total, of_items = runs.loss_tolerance()
    np.testing.assert_allclose(total, stored(runs, "loss_total")[0], rtol=of_total)
    np.testing.assert_allclose([*terms, terms.sum()], runs.arrays["loss_items"], rtol=of_items)


@pytest.mark.graph(when="all_cases")
@pytest.mark.parametrize("kind", ["first", "second", "plain_first", "plain_second"])
def test_loss_of_either_detector_and_assigner(runs, kind):
    items = runs.items(runs.first_step()[2], runs.boxes)
    np.testing.assert_allclose(
        items[kind], stored(runs, f"loss_{kind}_items"), rtol=runs.loss_tolerance()[1]
    )


@pytest.mark.graph(when="all_cases")
@pytest.mark.parametrize("name, images", [("half", 1), ("empty", 0)])
def test_loss_with_images_that_have_no_box(runs, name, images):
    wanted = stored(runs, f"loss_{name}_items")
    items = runs.items(runs.first_step()[2], runs.boxes[runs.boxes[:, 0] < images])
    np.testing.assert_allclose(
        items["first"] + items["second"], wanted, rtol=runs.loss_tolerance()[1], atol=1e-9
    )


def test_assignment_equals_the_original(runs):
    """The same rows in the same order, for both detectors; a few may differ where equal costs leave
    the original a choice.
    """
    ours, open_choice = runs.matched()
    theirs, common, count = runs.stored_rows(), 0, 0
    for mine, other in zip(sum(ours, []), sum(theirs, []), strict=True):
        if chosen_alike(runs.case) or not open_choice:
            np.testing.assert_allclose(mine, other, rtol=0, atol=1e-6)
        distinct = set(map(tuple, other.tolist()))
        common, count = (
            common + len(distinct & set(map(tuple, mine.tolist()))),
            count + len(distinct),
        )
    assert common > 0.9 * count > 0


def test_gradients(runs):
    if not runs.same_choice():
        pytest.skip("the original chose others of equal costs")
    (norms, sums), parameters = runs.first_step()[3], runs.model.trainable_params()
    wanted, order = stored(runs, "grad_l2"), gradient_order(runs.case, runs.model)
    clear = wanted > 1e-6  # of P6 the biases of the links have no gradient
    most, share = of(GRADIENT, runs.case)
    np.testing.assert_allclose(norms[clear], wanted[clear], rtol=most)
    roots = np.sqrt([number_of([parameters[i]]) for i in order])
    assert (np.abs(sums - runs.arrays["grad_sum"])[clear] / (wanted * roots)[clear]).max() < share
    assert np.median(np.abs(norms[clear] / wanted[clear] - 1)) < most / 5 and clear.mean() > 0.95


def test_running_statistics_after_one_step(runs):
    found, names = runs.first_step()[4], [n for n in runs.arrays if n.startswith("bn_running_")]
    if not names:
        pytest.skip("this case has no statistics")
    for name in names:
        kind, module = name.removeprefix("bn_running_").split("_", 1)
        np.testing.assert_allclose(
            found[f"{module}.running_{kind}"],
            runs.arrays[name],
            rtol=0,
            atol=of(STATISTICS, runs.case),
        )


@pytest.mark.parametrize(
    "name, rate, tolerances",
    [
        ("traj_loss_lr1e-5", 1e-5, (1e-5, 1e-4, 1e-3, 1e-2, 1e-2)),
        ("traj_loss", 1e-3, (1e-5, 1e-3, CHAOS, CHAOS, CHAOS)),
    ],
)
def test_trajectory(runs, name, rate, tolerances):
    """Five updates; one match more or less in a level with few of them changes its mean, so later
    losses are only close.
    """
    wanted, same = stored(runs, name), runs.same_choice()
    load_seeded(runs.model, runs.case)

    def one():
        total, _, _, gradients = runs.step()
        return total, gradients

    totals = nesterov_totals(one, runs.model.trainable_params(), rate=rate, steps=5)
    if not same:
        tolerances = (OTHER_CHOICE,) + 4 * (CHAOS,)
    elif runs.case.variant == "dy_yolov7x":
        tolerances = (3e-5,) + 4 * (CHAOS,)
    for got, value, tolerance in zip(totals, wanted, tolerances, strict=True):
        np.testing.assert_allclose(got, value, rtol=tolerance)


# ---- step 2 --------------------------------------------------------------------------------------


class RouterRuns:
    """One case's network in step 2, its iterations with either optimizer, and its losses in
    evaluation mode.
    """

    def __init__(self, case):
        self.case, self.arrays = case, case.arrays()
        if "step2_sgd_items" not in self.arrays:
            pytest.skip("this case has no step 2")
        self.model = seeded_model(case)
        self.trainable = create_trainable(
            "dynamicdet_router_loss", self.model, history=32, **gains_of(case)
        )
        self.gradients = Gradients(LossAndHeads(self.trainable)).set_train(True)
        self.losses = Losses(self.model, gains_of(case))
        self.order = gradient_order(case, self.model, "grad_names_step2.json")
        self.costs = CandidateCosts(self.trainable)
        self.found, self.strict = {}, None

    def has_no_choice(self) -> list[bool]:
        """For each iteration, whether the original's losses follow without a choice among equal
        costs.

        In the quick default case, the choice is known to change nothing.
        """
        if chosen_alike(self.case):
            return [True] * ITERATIONS
        if self.strict is None:
            load_seeded(self.model, self.case)
            heads = Heads(self.model)
            self.strict = []
            for iteration in range(ITERATIONS):
                images, targets, mask = self.batch(iteration)
                found = [x.asnumpy() for x in self.costs(targets, mask, *heads(images)[:-1])]
                self.strict.append(not has_open_choice(*found[4:]))
        return self.strict

    def batch(self, iteration: int) -> list[Tensor]:
        """The one image and its boxes."""
        seed, image = self.case.seed + iteration // 2, iteration % 2
        boxes = seeded_boxes(seed, BATCH, BOXES, CLASSES)
        own = boxes[boxes[:, 0] == image] * np.array([0, 1, 1, 1, 1, 1], np.float32)
        return [
            Tensor(x)
            for x in (
                seeded_images(seed, BATCH, SIDE, SIDE)[image : image + 1],
                *padded_targets(own, 1, PADDED),
            )
        ]

    def run(self, optimiser: str) -> dict[str, np.ndarray]:
        """Six iterations, with the arrays that the case stores of them."""
        if optimiser not in self.found:
            load_seeded(self.model, self.case)
            for parameter in (
                self.trainable.history,
                self.trainable.count,
                self.trainable.tracked_difference,
            ):
                parameter.set_data(Tensor(parameter.asnumpy() * 0))
            trained = [self.model.trainable_params()[i] for i in self.order]
            assert [p.name for p in trained] == [
                f"router.layer{n}.{x}" for n in (1, 2) for x in ("weight", "bias")
            ]
            before = [p.asnumpy().copy() for p in trained]
            update, rows = (Nesterov(1e-3) if optimiser == "sgd" else AdamW()), []
            for iteration in range(ITERATIONS):
                self.trainable.begin_step(StepClock(iteration, 0, 1))
                (total, terms, heads), gradients = self.gradients(*self.batch(iteration))
                gradients = [gradients[i].asnumpy() for i in self.order]
                rows.append(
                    (
                        terms.asnumpy(),
                        float(total.asnumpy()),
                        *norms_and_sums(gradients, range(4)),
                        np.median(self.trainable.history.asnumpy()[: iteration + 1]),
                    )
                )
                for parameter, value in zip(
                    trained, update([p.asnumpy() for p in trained], gradients), strict=True
                ):
                    parameter.set_data(Tensor(value))
            delta = [
                np.linalg.norm((p.asnumpy() - b).astype(np.float64))
                for p, b in zip(trained, before, strict=True)
            ]
            names = ("items", "loss", "grad_l2", "grad_sum", "tracked_diff")
            self.found[optimiser] = {
                **{n: np.array(column) for n, column in zip(names, zip(*rows), strict=True)},
                "delta_l2": np.array(delta),
            }
        return self.found[optimiser]


class Nesterov:
    """SGD with Nesterov momentum 0.9."""

    def __init__(self, rate: float):
        self.rate, self.velocity = rate, None

    def __call__(self, values, gradients):
        old = self.velocity or [np.zeros_like(g) for g in gradients]
        self.velocity = [0.9 * v + g for v, g in zip(old, gradients)]
        return [
            np.float32(w - self.rate * (g + 0.9 * v))
            for w, g, v in zip(values, gradients, self.velocity)
        ]


class AdamW:
    """As in the recipe: the first update has learning rate 0, the others 1e-5; decay on the two
    weights.
    """

    def __init__(self):
        self.first, self.second, self.steps = [0.0] * 4, [0.0] * 4, 0

    def __call__(self, values, gradients):
        self.steps += 1
        rate, result = 0.0 if self.steps == 1 else 1e-5, []
        for i, (weight, gradient) in enumerate(zip(values, gradients)):
            weight = weight * (1 - rate * (0.005 if i % 2 == 0 else 0))
            self.first[i] = 0.937 * self.first[i] + (1 - 0.937) * gradient
            self.second[i] = 0.999 * self.second[i] + (1 - 0.999) * gradient**2
            root = np.sqrt(self.second[i]) / np.sqrt(1 - 0.999**self.steps) + 1e-8
            result.append(
                np.float32(weight - rate / (1 - 0.937**self.steps) * self.first[i] / root)
            )
        return result


@pytest.fixture(scope="module")
def router_runs(golden_case):
    return RouterRuns(golden_case)


@pytest.mark.graph(when="all_cases")
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_router_step(router_runs, optimiser):
    found = router_runs.run(optimiser)
    wanted = {name: router_runs.arrays[f"step2_{optimiser}_{name}"] for name in found}
    same = all(router_runs.has_no_choice())
    for name in ("items", "loss", "tracked_diff"):
        np.testing.assert_allclose(
            found[name],
            wanted[name],
            rtol=2e-5 if same else 1e-3,
            err_msg=name,
            atol=1e-5 if same else 2e-2,
        )
    if not same:
        return  # the gradient is a difference of two nearly equal numbers
    # In the first iteration the difference is the median, and the gradient rounding noise
    np.testing.assert_allclose(found["grad_l2"][1:], wanted["grad_l2"][1:], rtol=2e-4, atol=1e-7)
    distance = np.abs(found["grad_sum"] - wanted["grad_sum"])[1:] - 1e-3 * wanted["grad_l2"][1:]
    assert distance.max() < 1e-7
    np.testing.assert_allclose(found["delta_l2"], wanted["delta_l2"], rtol=1e-3)


@pytest.mark.graph(when="all_cases")
def test_losses_of_step_two_and_of_validation(router_runs):
    """On running statistics: per detector with OTA, and with all candidates on the maps of the
    evaluation.
    """
    case, arrays = router_runs.case, router_runs.arrays

    def items(batch):
        rows = router_runs.losses(*batch[1:], *heads(batch[0])[:-1]).asnumpy()
        return np.concatenate([rows, rows.sum(1, keepdims=True)], 1)

    load_seeded(router_runs.model, case)
    heads = Heads(router_runs.model)
    for iteration in range(ITERATIONS):
        for row, which in zip(items(router_runs.batch(iteration)), DETECTORS):
            np.testing.assert_allclose(
                row,
                arrays[f"step2_loss_{which}_items"][iteration],
                rtol=2e-5 if router_runs.has_no_choice()[iteration] else OTHER_CHOICE,
            )
    both = [
        Tensor(x)
        for x in (
            case.images(BATCH, SIDE, SIDE),
            *padded_targets(case.boxes(BATCH, BOXES, CLASSES), BATCH, PADDED),
        )
    ]
    for row, which in zip(items(both)[2:], ("easy", "hard"), strict=True):
        np.testing.assert_allclose(row, arrays[f"valloss_{which}"], rtol=1e-5)


class Heads(nn.Cell):
    """The model's outputs in evaluation mode."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model
        self.set_train(False)

    def construct(self, images):
        return self.model(images)

"""DynamicDet's learning rates, momentum and micro batches: rows that the original's own code gave
under PyTorch.

The code was taken from ``train_step1.py`` and ``train_step2.py`` (optimizer, scheduler, warm-up,
the rule of updates) and run iteration by iteration without network and images.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.backend import Parameter, Tensor, float32, nn, ops
from mindyolo_ext.backend.parameters import parameter_groups
from mindyolo_ext.backend.train_step import OptimizerOptions, Tally, TrainStep
from mindyolo_ext.config import (
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    config_from_mapping,
    load_config,
)
from mindyolo_ext.data.shapes import make_shapes_dataset
from mindyolo_ext.engine.run_finish import Run
from mindyolo_ext.engine.schedule import Schedule, ema_decay, micro_batches, weight_decay

RECIPES = Path(__file__).resolve().parents[3] / "configs" / "dynamicdet"
COCO = 118287  # images of train2017
# iteration, rate of weights, rate of biases, momentum, micro batches per update, 1 = update, micro
# batches gathered since the last update of this epoch
STEP1 = [  # batch 16, 300 epochs of 7393 iterations
    (0, 0.0, 0.1, 0.8, 1, 1, 1),
    (1, 4.5087695567879525e-07, 0.0999959421073989, 0.8000061770142929, 1, 1, 1),
    (100, 4.508769556787952e-05, 0.09959421073988908, 0.80061770142928, 1, 1, 1),
    (3696, 0.0016664412281888273, 0.08500202894630056, 0.8228302448261869, 1, 1, 1),
    (3697, 0.001666892105144506, 0.08499797105369945, 0.8228364218404798, 2, 0, 1),
    (3698, 0.0016673429821001849, 0.08499391316109835, 0.8228425988547726, 2, 1, 2),
    (7392, 0.0033328824563776545, 0.07000405789260111, 0.845660489652374, 2, 1, 2),
    (7393, 0.0033332510873816013, 0.06999991775404826, 0.8456666666666667, 2, 0, 1),
    (7394, 0.0033337019532124388, 0.06999585985032232, 0.8456728436809595, 2, 1, 2),
    (11089, 0.004999651198156984, 0.05500190558293538, 0.8684969114928537, 2, 0, 1),
    (11091, 0.005000552929818658, 0.05499378977548348, 0.8685092655214393, 3, 1, 3),
    (14785, 0.006666051308932365, 0.040003893411822485, 0.8913271563190406, 3, 0, 1),
    (14786, 0.0066660087170912034, 0.03999934205042453, 0.8913333333333334, 3, 0, 1),
    (18484, 0.008333187145050304, 0.024993090657381783, 0.9141759321881059, 4, 1, 4),
    (18485, 0.008333637977507838, 0.024989032720282522, 0.9141821092023987, 4, 0, 1),
    (22178, 0.009998562243179271, 0.01000307101273605, 0.9369938229857073, 4, 0, 2),
    (22179, 0.009997779521645793, 0.009997779521645793, 0.937, 4, 0, 1),
    (22180, 0.009997779521645793, 0.009997779521645793, 0.937, 4, 1, 2),
    (29571, 0.009997779521645793, 0.009997779521645793, 0.937, 4, 0, 3),
    (29572, 0.009997779521645793, 0.009997779521645793, 0.937, 4, 1, 1),
    (36965, 0.009996052735444863, 0.009996052735444863, 0.937, 4, 0, 1),
    (1108950, 0.005547123028523107, 0.005547123028523107, 0.937, 4, 0, 1),
    (2217899, 0.0010009869243631953, 0.0010009869243631953, 0.937, 4, 0, 3),
]
STEP1_SHORT = [  # batch 12, 20 epochs of 70; 64 / 12 is no whole number
    (0, 0.0, 0.1, 0.8, 1, 1, 1),
    (82, 0.0008154569976796059, 0.09261545699767962, 0.811234, 1, 1, 1),
    (123, 0.0012231854965194088, 0.08892318549651941, 0.816851, 2, 0, 1),
    (164, 0.0016038797090258234, 0.08520387970902583, 0.8224680000000001, 2, 1, 2),
    (369, 0.0032036508101602624, 0.06630365081016026, 0.850553, 3, 1, 3),
    (451, 0.0036734101695275745, 0.05857341016952758, 0.8617870000000001, 3, 0, 1),
    (615, 0.004237704531932667, 0.04273770453193266, 0.884255, 4, 0, 3),
    (656, 0.0040697945407987615, 0.03846979454079877, 0.8898720000000001, 4, 1, 4),
    (700, 0.0038500000000000006, 0.033850000000000005, 0.8959, 4, 1, 1),
    (820, 0.003932756824001549, 0.02193275682400156, 0.91234, 5, 1, 5),
    (902, 0.003706700019832089, 0.01350670001983209, 0.9235740000000001, 5, 0, 2),
    (999, 0.002852111398319188, 0.0029521113983191904, 0.936863, 5, 0, 4),
    (1000, 0.002854966364683872, 0.002854966364683872, 0.937, 5, 1, 5),
    (1001, 0.002854966364683872, 0.002854966364683872, 0.937, 5, 0, 1),
    (1050, 0.002854966364683872, 0.002854966364683872, 0.937, 5, 1, 1),
    (1119, 0.002854966364683872, 0.002854966364683872, 0.937, 5, 0, 4),
    (1120, 0.0023180194846605363, 0.0023180194846605363, 0.937, 5, 1, 1),
    (1230, 0.0018594235253127367, 0.0018594235253127367, 0.937, 5, 1, 5),
    (1399, 0.0012202456766718084, 0.0012202456766718084, 0.937, 5, 0, 4),
]
STEP1_W6 = [  # batch 128, 8 epochs of 924 iterations
    (0, 0.0, 0.1, 0.8, 1, 1, 1),
    (999, 0.0034941640014123742, 0.06745520296245133, 0.8493733766233766, 1, 1, 1),
    (1848, 0.005885618083164127, 0.039218951416497456, 0.8913333333333334, 1, 1, 1),
    (2771, 0.00882524226647608, 0.008861317302551117, 0.9369505772005773, 1, 1, 1),
    (2772, 0.00753073372946036, 0.00753073372946036, 0.937, 1, 1, 1),
    (2773, 0.00753073372946036, 0.00753073372946036, 0.937, 1, 1, 1),
    (3696, 0.00753073372946036, 0.00753073372946036, 0.937, 1, 1, 1),
    (4620, 0.006000000000000001, 0.006000000000000001, 0.937, 1, 1, 1),
    (7391, 0.0031715728752538096, 0.0031715728752538096, 0.937, 1, 1, 1),
]
STEP2 = [  # batch 1, 2 epochs; AdamW has no momentum to warm up
    (0, 0.0, 0.0, None, 1, 1, 1),
    (1, 8.4530853761623e-09, 8.4530853761623e-09, None, 1, 1, 1),
    (9, 7.607776838546069e-08, 7.607776838546069e-08, None, 1, 1, 1),
    (10, 8.453085376162299e-08, 8.453085376162299e-08, None, 2, 1, 1),
    (23, 1.944209636517329e-07, 1.944209636517329e-07, None, 2, 0, 1),
    (24, 2.028740490278952e-07, 2.028740490278952e-07, None, 2, 1, 2),
    (64, 5.409974640743872e-07, 5.409974640743872e-07, None, 4, 1, 4),
    (100, 8.453085376162299e-07, 8.453085376162299e-07, None, 6, 0, 4),
    (500, 4.22654268808115e-06, 4.22654268808115e-06, None, 28, 0, 14),
    (512, 4.327979712595097e-06, 4.327979712595097e-06, None, 28, 0, 8),
    (750, 6.3398140321217245e-06, 6.3398140321217245e-06, None, 41, 0, 102),
    (1000, 8.4530853761623e-06, 8.4530853761623e-06, None, 54, 0, 352),
    (1088, 9.196956889264582e-06, 9.196956889264582e-06, None, 59, 0, 440),
    (1182, 9.991546914623839e-06, 9.991546914623839e-06, None, 64, 0, 534),
    (1183, 1e-05, 1e-05, None, 64, 0, 535),
    (1184, 1e-05, 1e-05, None, 64, 0, 536),
    (118272, 1e-05, 1e-05, None, 64, 1, 64),
    (118286, 1e-05, 1e-05, None, 64, 0, 14),
    (118287, 1e-05, 1e-05, None, 64, 0, 1),
    (118336, 1e-05, 1e-05, None, 64, 1, 50),
    (236573, 1e-05, 1e-05, None, 64, 0, 29),
]
STEP2_SHORT = [  # 3 epochs of 700 images: the warm-up takes 1000 iterations
    (0, 0.0, 0.0, None, 1, 1, 1),
    (10, 1e-07, 1e-07, None, 2, 1, 2),
    (300, 3e-06, 3e-06, None, 20, 1, 15),
    (699, 6.99e-06, 6.99e-06, None, 45, 0, 294),
    (700, 7e-06, 7e-06, None, 45, 0, 1),
    (750, 7.5e-06, 7.5e-06, None, 48, 0, 51),
    (999, 9.990000000000001e-06, 9.990000000000001e-06, None, 64, 0, 300),
    (1000, 1e-05, 1e-05, None, 64, 0, 301),
    (1001, 1e-05, 1e-05, None, 64, 0, 302),
    (1024, 1e-05, 1e-05, None, 64, 1, 325),
    (1399, 1e-05, 1e-05, None, 64, 0, 55),
    (1400, 1e-05, 1e-05, None, 64, 0, 1),
    (1408, 1e-05, 1e-05, None, 64, 1, 9),
    (2099, 1e-05, 1e-05, None, 64, 0, 51),
]
# recipe, images per iteration, iterations per epoch, epochs, warm-up, weight decay, updates of the
# whole run, rows
RUNS = {
    "step1": ("dy-yolov7-step1", 16, 7393, 300, 22179, 5e-4, 559711, STEP1),
    "step1-short": ("dy-yolov7x-step1", 12, 70, 20, 1000, 4.6875e-4, 484, STEP1_SHORT),
    "step1-w6": ("dy-yolov7-w6-step1", 128, 924, 8, 2772, 1e-3, 7392, STEP1_W6),
    "step2": ("dy-yolov7-step2", 1, COCO, 2, 1183, 5e-3, 3753, STEP2),
    "step2-short": ("dy-yolov7-w6-step2", 1, 700, 3, 1000, 5e-3, 75, STEP2_SHORT),
}


@pytest.mark.parametrize("run", RUNS)
def test_recipes_follow_the_original(run: str) -> None:
    recipe, batch, steps, epochs, warmup, decay, updates, rows = RUNS[run]
    settings = load_config(RECIPES / f"{recipe}.yaml").train
    optimizer = settings.optimizer
    schedule = Schedule(
        optimizer,
        settings.schedule,
        steps_per_epoch=steps,
        epochs=epochs,
        global_batch=batch,
        groups=["weight", "bias"],
    )
    assert schedule.warmup == warmup and weight_decay(optimizer, batch) == pytest.approx(
        decay, rel=1e-12
    )
    for iteration, weights, biases, momentum, accumulate, update, _ in rows:
        assert schedule.rates(iteration) == pytest.approx([weights, biases], rel=1e-9, abs=1e-18)
        if momentum is not None:
            assert schedule.momentum_at(iteration) == pytest.approx(momentum, rel=1e-12)
        assert (schedule.accumulate_at(iteration), schedule.updates_at(iteration)) == (
            accumulate,
            bool(update),
        )
    # Everything in between, too
    flags = np.array(
        [schedule.updates_at(iteration) for iteration in range(min(steps * epochs, 300000))]
    )
    if len(flags) == steps * epochs:
        assert flags.sum() == updates
    else:  # after the warm-up every fourth iteration
        later = np.arange(len(flags), steps * epochs)
        assert flags.sum() + (later % 4 == 0).sum() == updates
    assert optimizer.accumulate_within_epoch
    for iteration, *_, gathered in rows:
        if iteration < len(flags):
            first = iteration // steps * steps
            since = np.flatnonzero(flags[first:iteration])
            assert iteration - (first + since[-1] if len(since) else first - 1) == gathered


def test_the_warmup_of_a_short_set_takes_a_thousand_iterations() -> None:
    settings = load_config(RECIPES / "dy-yolov7-step1.yaml").train
    short = Schedule(
        settings.optimizer, settings.schedule, steps_per_epoch=8, epochs=300, global_batch=16
    )
    assert short.warmup == 1000


def test_moving_average() -> None:
    first, second = (load_config(RECIPES / f"dy-yolov7-step{step}.yaml").train for step in (1, 2))
    assert [ema_decay(first, update) for update in (1, 2000, 559711)] == pytest.approx(
        [0.9999 * (1 - math.exp(-1 / 2000)), 0.9999 * (1 - math.exp(-1)), 0.9999], rel=1e-12
    )
    assert second.ema_decay == 0


@pytest.mark.parametrize(
    ("batch", "wanted"),
    [(1, 64), (2, 32), (12, 5), (16, 4), (25, 3), (40, 2), (48, 1), (64, 1), (128, 1)],
)
def test_micro_batches_come_close_to_the_nominal_batch(batch: int, wanted: int) -> None:
    optimizer = OptimizerConfig(nominal_batch=64, weight_decay=5e-4)
    assert micro_batches(optimizer, batch) == wanted
    assert weight_decay(optimizer, batch) == pytest.approx(5e-4 * batch * wanted / 64, rel=1e-12)
    plain = OptimizerConfig(accumulate=3, weight_decay=5e-4)
    assert (micro_batches(plain, batch), weight_decay(plain, batch)) == (3, 5e-4)


def test_accumulate_alone_grows_along_the_warmup() -> None:
    optimizer = OptimizerConfig(accumulate=3)
    grows = Schedule(
        optimizer,
        ScheduleConfig(warmup_epochs=1, warmup_accumulate=True),
        steps_per_epoch=8,
        epochs=2,
    )
    assert [grows.accumulate_at(step) for step in range(10)] == [1, 1, 2, 2, 2, 2, 2, 3, 3, 3]
    always = Schedule(optimizer, ScheduleConfig(warmup_epochs=1), steps_per_epoch=8, epochs=2)
    assert [always.accumulate_at(step) for step in range(10)] == [3] * 10
    assert [always.updates_at(step) for step in range(6)] == [
        False,
        False,
        True,
        False,
        False,
        True,
    ]


def test_options_that_contradict_each_other() -> None:
    for changes, message in (
        ({"nominal_batch": 64, "accumulate": 4}, "wanted 1 with nominal_batch 64.*got 4"),
        ({"nominal_batch": -1}, "nominal_batch wanted at least 0, got -1"),
        ({"accumulate": 0}, "accumulate wanted at least 1, got 0"),
        ({"betas": [0.9]}, r"betas wanted two numbers .* got \[0.9\]"),
        ({"betas": [0.9, 1.0]}, r"betas wanted two numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            config_from_mapping({"train": {"optimizer": changes}})
    assert TrainConfig().optimizer.betas == [0.9, 0.999]


class Line(nn.Cell):
    """``(x + ia) * weight * im * gamma + bias``, one number each."""

    def __init__(self) -> None:
        super().__init__()
        for name, value in (
            ("weight", 2.0),
            ("bias", 0.5),
            ("gamma", 1.0),
            ("ia", 0.1),
            ("im", 1.5),
        ):
            setattr(self, name, Parameter(Tensor([value], float32), name=f"toy.{name}"))

    def construct(self, x: Tensor) -> Tensor:
        return (x + self.ia) * self.weight * self.im * self.gamma + self.bias


class Implicit(nn.Cell):
    """Half the squared error of ``Line``."""

    term_names = ("half",)

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.model = Line()

    def construct(self, images: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """One number each -> (total, terms)."""
        error = (self.model(images) - targets) * mask
        total = 0.5 * ops.sum(error * error)
        return total, ops.reshape(total, (1,))


def test_implicit_vectors_have_no_decay() -> None:
    groups = {group.name: group for group in parameter_groups(Implicit(), "by_kind", 0.1)}
    members = {name: [p.name for p in group.parameters] for name, group in groups.items()}
    assert members == {
        "weight": ["toy.weight"],
        "norm": ["toy.gamma", "toy.ia", "toy.im"],
        "bias": ["toy.bias"],
    }
    assert {name: group.weight_decay for name, group in groups.items()} == {
        "weight": 0.1,
        "norm": 0.0,
        "bias": 0.0,
    }


def row(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_end_of_an_epoch_drops_what_has_gathered() -> None:
    """Two micro batches, a drop, and one more with the update: only the last one counts."""

    def trained(inputs: list[float], drop_before: int | None) -> np.ndarray:
        trainable = Implicit()
        step = TrainStep(
            trainable, parameter_groups(trainable, "single", 0.0), OptimizerOptions(accumulate=2)
        )
        for k, x in enumerate(inputs):
            if k == drop_before:
                step.drop_accumulated()
            last = float(k == len(inputs) - 1)
            step(row(x), row(1.0), row(1.0), row(0.01), row(0.9, last, 0.0))
        return np.concatenate([p.asnumpy() for p in trainable.get_parameters()])

    alone = trained([0.7], None)
    np.testing.assert_array_equal(trained([0.3, -0.4, 0.7], 2), alone)
    assert np.abs(trained([0.3, -0.4, 0.7], None) - alone).max() > 1e-3


def test_betas_of_adamw_reach_the_step() -> None:
    trainable = Implicit()
    settings = load_config(RECIPES / "dy-yolov7-step2.yaml").train.optimizer
    step = TrainStep(
        trainable,
        parameter_groups(trainable, "single", 0.0),
        OptimizerOptions(name=settings.name, betas=tuple(settings.betas)),
    )
    step(row(1.0), row(1.0), row(1.0), row(0.01), row(0.0, 1.0, 0.0))
    before = 1.1 * 2.0 * 1.5 + 0.5 - 1.0
    state = step.state()
    first, second = state["optimizer.0.momentum"][1], state["optimizer.0.square"][1]
    gradient = [p.name for p in trainable.get_parameters()].index("toy.bias")
    assert gradient == 1 and first == pytest.approx((1 - 0.937) * before, rel=1e-5)
    assert second == pytest.approx((1 - 0.999) * before**2, rel=1e-4)


class Recorder:
    """Stands in for the compiled step: records what the engine passes to it."""

    calls: list[tuple]

    def __init__(
        self, trainable: nn.Cell, groups: list, options: OptimizerOptions, **_: object
    ) -> None:
        self.calls.append(
            (
                "options",
                options.name,
                options.betas,
                options.accumulate,
                [(group.name, group.weight_decay) for group in groups],
            )
        )
        self.report = np.ones(4 + len(trainable.term_names), np.float32)

    def take(self, *inputs: np.ndarray) -> None:
        rates, controls = inputs[3:]
        self.calls.append(("step", rates.tolist(), controls[:2].tolist()))

    def begin_tally(self, bad_steps: int = 0) -> None:
        assert bad_steps == 0

    def tally(self) -> Tally:
        return Tally(self.report, self.report, 0, 0)

    def drop_accumulated(self) -> None:
        self.calls.append(("drop",))

    def share_statistics(self) -> None:
        """Nothing to share on one rank."""

    def ema_values(self) -> dict:
        return {}

    def state(self) -> dict:
        return {}


def test_the_engine_hands_all_this_to_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same after a resume in the middle of the warm-up."""
    make_shapes_dataset(
        tmp_path / "shapes", train_images=12, val_images=2, size=(64, 64), seed=1, progress=False
    )
    split = {"format": "coco", "images": "images/train", "annotations": "annotations/train.json"}
    optimizer = {
        "name": "adamw",
        "lr": 0.01,
        "betas": [0.8, 0.99],
        "nominal_batch": 9,
        "weight_decay": 0.3,
        "groups": "by_kind",
        "accumulate_first_alone": True,
        "accumulate_within_epoch": True,
    }
    schedule = {
        "decay": "cosine",
        "per_epoch": True,
        "warmup_epochs": 2.5,
        "warmup_bias_lr": 0.1,
        "warmup_momentum": 0.8,
        "warmup_accumulate": True,
    }
    recipe = {
        "model": {"name": "yolo_fastestv2"},
        "input": {"size": [64, 64]},
        "data": {
            "root": str(tmp_path / "shapes"),
            "train": split,
            "augment": ["resize"],
            "workers": 0,
        },
        "train": {
            "epochs": 4,
            "per_batch_size": 2,
            "run_eval": False,
            "pictures": False,
            "optimizer": optimizer,
            "schedule": schedule,
        },
    }
    config = config_from_mapping(recipe)
    wanted = Schedule(
        config.train.optimizer,
        config.train.schedule,
        steps_per_epoch=6,
        epochs=4,
        global_batch=2,
        groups=["weight", "norm", "bias"],
    )
    assert [wanted.accumulate_at(step) for step in range(16)] == [
        1,
        1,
        1,
        2,
        2,
        2,
        2,
        3,
        3,
        3,
        3,
        4,
        4,
        4,
        4,
        4,
    ]
    monkeypatch.setattr("mindyolo_ext.engine.run_stages.TrainStep", Recorder)
    monkeypatch.setattr("mindyolo_ext.engine.run_finish.plot_results", lambda *_: None)

    def calls(folder: str, *, resume: bool = False, until: int = 4) -> list[tuple]:
        Recorder.calls = []
        run = Run(config, tmp_path / folder, resume)
        with run.watched(()):
            for epoch in range(run.first_epoch, until):
                run.enter_stage(epoch)
                run.train_epoch(epoch)
                run.finish_epoch(epoch, None)
            run.close()
        return Recorder.calls

    whole = calls("whole")
    kind, name, betas, accumulate, groups = whole[0]
    assert (kind, name, betas, accumulate) == ("options", "adamw", (0.8, 0.99), 4)
    assert groups == [("weight", pytest.approx(0.3 * 8 / 9)), ("norm", 0.0), ("bias", 0.0)]
    assert [call[0] for call in whole[1:]] == (["drop"] + ["step"] * 6) * 4
    for iteration, (_, rates, (momentum, update)) in enumerate(
        call for call in whole if call[0] == "step"
    ):
        assert rates == pytest.approx(wanted.rates(iteration), rel=1e-6)
        assert momentum == pytest.approx(wanted.momentum_at(iteration), rel=1e-6)
        assert (
            bool(update)
            == wanted.updates_at(iteration)
            == (iteration % wanted.accumulate_at(iteration) == 0)
        )
    assert calls("broken", until=2) + calls("broken", resume=True)[1:] == whole

"""One cycle, schedules by iteration and linear moving average: the simple YOLO's tables, and what
the engine passes to the step.
"""

import logging
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.backend import nn
from mindyolo_ext.backend.train_step import OptimizerOptions, Tally
from mindyolo_ext.config import OptimizerConfig, ScheduleConfig, TrainConfig, config_from_mapping
from mindyolo_ext.data.shapes import make_shapes_dataset
from mindyolo_ext.engine.run_finish import Run
from mindyolo_ext.engine.run_log import RunLog
from mindyolo_ext.engine.schedule import Schedule, ema_decay
from mindyolo_ext.engine.schedule.one_cycle import OneCycle

ONE_CYCLE = {"decay": "one_cycle", "warmup_epochs": 3}
# table: optimizer, learning rate of a batch of 24, epochs of 8 iterations, schedule
RUNS = {
    "adam_cos": ("adam", 1e-3, 10, ONE_CYCLE),
    "sgd_cos": ("sgd", 1e-2, 10, ONE_CYCLE),
    "adamw_linear": ("adamw", 1e-3, 5, {"decay": "one_cycle", "anneal": "linear"}),
    "sgd_step20": ("sgd", 1e-2, 6, {"decay": "step", "step_size": 20}),
}


def table(schedule: Schedule) -> np.ndarray:
    """(iterations, 2) rate and momentum."""
    return np.array(
        [[schedule.rates(step)[0], schedule.momentum_at(step)] for step in range(schedule.total)]
    )


@pytest.mark.parametrize("name", RUNS)
def test_the_original_table(golden, name: str) -> None:
    wanted = golden.arrays("simple_yolo/lr_schedule.npz")[name]
    optimizer, rate, epochs, section = RUNS[name]
    schedule = Schedule(
        OptimizerConfig(name=optimizer, lr=rate / 24, lr_per_image=True),
        ScheduleConfig(**section),
        steps_per_epoch=8,
        epochs=epochs,
        global_batch=24,
    )
    assert schedule.total == len(wanted) and schedule.cycles_momentum == (
        section["decay"] == "one_cycle"
    )
    np.testing.assert_allclose(table(schedule), wanted, rtol=1e-9)


def test_rates_belong_to_a_batch_of_24_whatever_the_ranks() -> None:
    optimizer = OptimizerConfig(name="adam", lr=4.1666666667e-05, lr_per_image=True)
    for ranks in (1, 2, 8):
        schedule = Schedule(
            optimizer,
            ScheduleConfig(**ONE_CYCLE),
            steps_per_epoch=8,
            epochs=10,
            global_batch=24 * ranks,
            groups=["weight", "norm", "bias"],
        )
        assert schedule.rates(23) == pytest.approx([1e-3 * ranks] * 3, rel=1e-9)


def test_the_peak_may_lie_between_two_iterations() -> None:
    """The warm-up takes 2.5 iterations, so the peak is at 1.5, and the descent takes the 5.5
    iterations until the last one, 7.
    """
    schedule = Schedule(
        OptimizerConfig(lr=1.0),
        ScheduleConfig(decay="one_cycle", anneal="linear", warmup_epochs=1.25),
        steps_per_epoch=2,
        epochs=4,
    )
    cycle = OneCycle.after_warmup(1.25, steps_per_epoch=2, epochs=4, anneal="linear")
    assert cycle.peak == 1.5
    rates = [schedule.rates(step)[0] for step in range(8)]
    end = 1 / 25 / 1e4
    wanted = [
        0.04,
        0.04 + 0.96 / 1.5,
        *(1 + (end - 1) * (step - 1.5) / 5.5 for step in range(2, 8)),
    ]
    assert rates == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("warmup", "epochs", "warns"), [(3, 3, True), (9, 3, True), (2, 3, False), (1, 1, True)]
)
def test_a_warmup_as_long_as_the_training_ends_at_the_peak(
    caplog, warmup: int, epochs: int, warns: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        schedule = Schedule(
            OptimizerConfig(lr=1.0),
            ScheduleConfig(decay="one_cycle", warmup_epochs=warmup),
            steps_per_epoch=5,
            epochs=epochs,
        )
    assert ("never falls" in caplog.text) == warns
    rows = table(schedule)
    np.testing.assert_allclose(rows[0], (0.04, 0.95), rtol=1e-12)
    if warns:
        assert (np.diff(rows[:, 0]) > 0).all() and (np.diff(rows[:, 1]) < 0).all()
        np.testing.assert_allclose(rows[-1], (1.0, 0.85), rtol=1e-12)
    else:
        np.testing.assert_allclose(rows[[9, 14]], ((1.0, 0.85), (4e-6, 0.95)), rtol=1e-9)
    assert schedule.rates(schedule.total) == pytest.approx(rows[-1, :1], rel=1e-9), (
        "it keeps its last value"
    )


def test_the_shortest_trainings() -> None:
    """A warm-up of one iteration is its start; a run of one iteration is the whole descent without
    a warm-up.
    """

    def rates(warmup: float, steps: int) -> list[float]:
        schedule = Schedule(
            OptimizerConfig(lr=1.0),
            ScheduleConfig(decay="one_cycle", warmup_epochs=warmup),
            steps_per_epoch=steps,
            epochs=1,
        )
        return [schedule.rates(step)[0] for step in range(steps)]

    assert rates(0.5, 2) == pytest.approx([0.04, 4e-6], rel=1e-9)
    assert rates(0.0, 1) == pytest.approx([4e-6], rel=1e-9)
    assert rates(1.0, 1) == pytest.approx([0.04], rel=1e-9)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"decay": "one_cycle", "anneal": "cosin"},
            "anneal wanted one of .* got 'cosin', did you mean cosine",
        ),
        (
            {"decay": "one_cycle", "per_epoch": True},
            "per_epoch wanted decay cosine, got one_cycle",
        ),
        (
            {"decay": "one_cycle", "warmup_power": 2, "warmup_bias_lr": 0.1},
            "warmup_power wanted it left out, because one_cycle has its own warm-up, got 2",
        ),
        ({"decay": "one_cycle", "warmup_momentum": 0.8}, "warmup_momentum wanted it left out"),
        ({"decay": "step"}, "step_size wanted at least 1 iteration for decay step, got 0"),
    ],
)
def test_schedules_that_are_refused(section: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(OptimizerConfig(), ScheduleConfig(**section), steps_per_epoch=5, epochs=5)


def test_linear_ramp_of_the_moving_average(golden) -> None:
    """The original's toy: weights grow by 1 / k before update k; its integer counter has no
    counterpart here.
    """
    arrays = golden.arrays("simple_yolo/ema.npz")
    wanted, total = arrays["table"], int(arrays["total_itrs"])
    settings = TrainConfig(ema_decay=1.0, ema_ramp="linear")
    weight = average = wanted[0, :2]
    for k in range(1, total + 1):
        weight = weight + 1 / k
        decay = ema_decay(settings, k, done=k / total)
        average = decay * average + (1 - decay) * weight
        np.testing.assert_allclose(average, wanted[k, :2], rtol=1e-6)
    assert ema_decay(settings, 1, done=1.5) == 1.0
    assert ema_decay(TrainConfig(ema_decay=0.5, ema_ramp="linear"), 1, done=0.25) == 0.125
    with pytest.raises(
        ValueError,
        match="train.ema_ramp wanted one of exponential, linear, got 'linea', did you mean linear",
    ):
        config_from_mapping({"train": {"ema_ramp": "linea"}})


class Recorder:
    """Stands in for the compiled step: records momentum and moving-average decay of every call."""

    rows: list[tuple]

    def __init__(
        self, trainable: nn.Cell, groups: list, options: OptimizerOptions, **_: object
    ) -> None:
        self.rows.append((len(groups), options.name, options.momentum_is_beta1))
        self.report = np.ones(4 + len(trainable.term_names), np.float32)

    def take(self, *inputs: np.ndarray) -> None:
        rates, controls = (value.tolist() for value in inputs[3:])
        self.rows.append((*rates, *controls))

    def begin_tally(self, bad_steps: int = 0) -> None:
        assert bad_steps == 0

    def tally(self) -> Tally:
        return Tally(self.report, self.report, 0, 0)

    def share_statistics(self) -> None:
        """Nothing to share on one rank."""

    def ema_values(self) -> dict:
        return {}

    def state(self) -> dict:
        return {}


def test_the_engine_hands_the_cycle_and_the_ramp_to_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same after a resume: learning rate, momentum and decay need no state."""
    make_shapes_dataset(
        tmp_path / "shapes", train_images=6, val_images=2, size=(64, 64), seed=1, progress=False
    )
    split = {"format": "coco", "images": "images/train", "annotations": "annotations/train.json"}
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
            "ema_decay": 1.0,
            "ema_ramp": "linear",
            "optimizer": {"name": "adam", "lr": 0.01},
            "schedule": {"decay": "one_cycle", "warmup_epochs": 1},
        },
    }
    config = config_from_mapping(recipe)
    monkeypatch.setattr("mindyolo_ext.engine.run_stages.TrainStep", Recorder)
    monkeypatch.setattr("mindyolo_ext.engine.run_finish.plot_results", lambda *_: None)

    def rows(folder: str, *, resume: bool = False, until: int = 4) -> list[tuple]:
        Recorder.rows = []
        run = Run(config, tmp_path / folder, resume, RunLog())
        with run.watched(()):
            for epoch in range(run.first_epoch, until):
                run.enter_stage(epoch)
                run.train_epoch(epoch)
                run.finish_epoch(epoch, None)
            run.close()
        return Recorder.rows

    whole = rows("whole")
    assert whole[0] == (1, "adam", True)
    wanted = table(
        Schedule(config.train.optimizer, config.train.schedule, steps_per_epoch=3, epochs=4)
    )
    np.testing.assert_allclose(np.array(whole[1:])[:, :2], wanted, rtol=1e-6)
    assert wanted[2].tolist() == pytest.approx([0.01, 0.85])
    np.testing.assert_allclose(np.array(whole[1:])[:, 3], np.arange(1, 13) / 12, rtol=1e-6)
    assert rows("broken", until=2) + rows("broken", resume=True)[1:] == whole

"""Learning rates and stages: the tables of the originals, and the other schedules by their
formulas.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.config import (
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    config_from_mapping,
    load_config,
)
from mindyolo_ext.engine.schedule import Schedule, ema_decay
from mindyolo_ext.engine.stages import is_evaluated, stage_at

RECIPES = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("case", ["a", "b"])
def test_yolo_fastestv2_table(golden, case):
    arrays = golden.arrays("yolo_fastestv2/lr_schedule.npz")
    batches, epochs, first, second, rate, subdivisions = arrays[f"{case}_cfg"]
    schedule = Schedule(
        OptimizerConfig(lr=float(rate)),
        ScheduleConfig(
            decay="multistep",
            milestones=[int(first), int(second)],
            warmup_epochs=5,
            warmup_power=4,
            drops_lost_in_warmup=True,
        ),
        steps_per_epoch=int(batches),
        epochs=int(epochs),
    )
    table = arrays[f"{case}_table"]
    np.testing.assert_allclose(
        [schedule.rates(int(n))[0] for n in table[:, 0]], table[:, 2], rtol=1e-12
    )
    np.testing.assert_array_equal((table[:, 0] % subdivisions == 0).astype(float), table[:, 3])


def test_yolox_recipe_follows_the_original(golden):
    arrays = golden.arrays("yolox/schedule.npz")
    settings = load_config(RECIPES / "yolox" / "yolox-s.yaml").train
    steps = int(arrays["iters_per_epoch"])
    schedule = Schedule(
        settings.optimizer,
        settings.schedule,
        steps_per_epoch=steps,
        epochs=settings.epochs,
        global_batch=8 * settings.per_batch_size,
        groups=["weight", "bias"],
    )
    assert settings.epochs == arrays["total_epochs"] and arrays["iters"][0] == 0
    wanted = np.stack([arrays["lr"]] * 2, 1)
    np.testing.assert_allclose(
        [schedule.rates(int(n)) for n in arrays["iters"]], wanted, rtol=1e-9, atol=0
    )
    decays = [ema_decay(settings, int(update)) for update in arrays["ema_updates"]]
    np.testing.assert_allclose(decays, arrays["ema_decay"], rtol=1e-9)


@pytest.mark.parametrize(("epochs", "first_plain"), [(300, 284), (30, 14), (16, 0), (5, 0)])
def test_yolox_ends_with_sixteen_plain_epochs(epochs, first_plain):
    config = load_config(RECIPES / "yolox" / "yolox-nano.yaml", [f"train.epochs={epochs}"])
    plain = [epoch for epoch in range(epochs) if stage_at(config, epoch)[1] == ["yolox_hsv_flip"]]
    assert plain == list(range(first_plain, epochs))
    assert plain == [epoch for epoch in range(epochs) if stage_at(config, epoch)[0]["l1"]]
    evaluated = [epoch for epoch in range(epochs) if is_evaluated(config.train, epoch)]
    assert evaluated == sorted({*range(9, first_plain, 10), *plain})


def test_stages_come_in_the_order_of_their_epochs():
    config = config_from_mapping(
        {
            "train": {
                "epochs": 10,
                "eval_interval": 4,
                "stages": [
                    {"from_epoch": -2, "eval_interval": 1, "loss": {"a": 2}},
                    {"from_epoch": 3, "eval_interval": 3, "loss": {"a": 1}},
                ],
            }
        }
    )
    assert [stage_at(config, epoch)[0].get("a") for epoch in (2, 3, 7, 8, 9)] == [None, 1, 1, 2, 2]
    assert [epoch for epoch in range(10) if is_evaluated(config.train, epoch)] == [5, 8, 9]
    assert [
        epoch for epoch in range(10) if is_evaluated(TrainConfig(epochs=10, eval_interval=4), epoch)
    ] == [3, 7, 9]


def test_a_milestone_inside_the_warmup_counts_unless_asked_otherwise():
    settings = {"decay": "multistep", "milestones": [2], "warmup_epochs": 5}
    kept = Schedule(
        OptimizerConfig(lr=1.0), ScheduleConfig(**settings), steps_per_epoch=10, epochs=9
    )
    lost = Schedule(
        OptimizerConfig(lr=1.0),
        ScheduleConfig(**settings, drops_lost_in_warmup=True),
        steps_per_epoch=10,
        epochs=9,
    )
    assert kept.rates(60) == [0.1] and lost.rates(60) == [1.0]


def test_cosine_with_quadratic_warmup_and_flat_end():
    schedule = Schedule(
        OptimizerConfig(lr=0.01 / 64, lr_per_image=True),
        ScheduleConfig(
            decay="cosine", warmup_epochs=5, warmup_power=2, final_ratio=0.05, flat_epochs=15
        ),
        steps_per_epoch=10,
        epochs=100,
        global_batch=64,
    )
    assert schedule.rates(25)[0] == pytest.approx(0.01 * (25 / 50) ** 2)
    middle = 50 + (850 - 50) / 2
    assert schedule.rates(int(middle))[0] == pytest.approx(0.01 * (0.05 + 0.95 * 0.5))
    assert schedule.rates(851)[0] == pytest.approx(0.0005) and schedule.rates(999)[
        0
    ] == pytest.approx(0.0005)


def test_groups_and_momentum_warm_up_apart():
    schedule = Schedule(
        OptimizerConfig(lr=0.01, momentum=0.937),
        ScheduleConfig(
            decay="linear",
            final_ratio=0.1,
            warmup_epochs=3,
            warmup_bias_lr=0.1,
            warmup_momentum=0.8,
        ),
        steps_per_epoch=100,
        epochs=10,
        groups=("weight", "norm", "bias"),
    )
    assert schedule.rates(0) == [0.0, 0.0, 0.1]
    assert schedule.momentum_at(0) == pytest.approx(0.8) and schedule.momentum_at(300) == 0.937
    weight, _, bias = schedule.rates(150)
    assert 0 < weight < 0.01 < bias < 0.1
    assert schedule.rates(1000)[0] == pytest.approx(0.001)


def test_unknown_decay():
    with pytest.raises(ValueError, match="decay wanted one of .* got 'cosin', did you mean cosine"):
        Schedule(OptimizerConfig(), ScheduleConfig(decay="cosin"), steps_per_epoch=1, epochs=1)
    assert math.isclose(
        Schedule(OptimizerConfig(), ScheduleConfig(), steps_per_epoch=1, epochs=1).rates(3)[0], 0.01
    )

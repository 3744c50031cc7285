"""Learning rates: equal to the original's tables, and the other schedules by their written rules."""
import math

import numpy as np
import pytest

from mindyolo_ext.config import OptimizerConfig, ScheduleConfig
from mindyolo_ext.engine.schedule import Schedule


@pytest.mark.parametrize("case", ["a", "b"])
def test_yolo_fastestv2_table(golden, case):
    arrays = golden.arrays("yolo_fastestv2/lr_schedule.npz")
    batches, epochs, first, second, rate, subdivisions = arrays[f"{case}_cfg"]
    schedule = Schedule(OptimizerConfig(lr=float(rate)),
                        ScheduleConfig(decay="multistep", milestones=[int(first), int(second)], warmup_epochs=5,
                                       warmup_power=4, drops_lost_in_warmup=True),
                        steps_per_epoch=int(batches), epochs=int(epochs))
    table = arrays[f"{case}_table"]
    np.testing.assert_allclose([schedule.rates(int(n))[0] for n in table[:, 0]], table[:, 2], rtol=1e-12)
    np.testing.assert_array_equal((table[:, 0] % subdivisions == 0).astype(float), table[:, 3])


def test_a_milestone_inside_the_warmup_counts_unless_asked_otherwise():
    settings = {"decay": "multistep", "milestones": [2], "warmup_epochs": 5}
    kept = Schedule(OptimizerConfig(lr=1.0), ScheduleConfig(**settings), steps_per_epoch=10, epochs=9)
    lost = Schedule(OptimizerConfig(lr=1.0), ScheduleConfig(**settings, drops_lost_in_warmup=True), steps_per_epoch=10,
                    epochs=9)
    assert kept.rates(60) == [0.1] and lost.rates(60) == [1.0]


def test_cosine_with_quadratic_warmup_and_flat_end():
    schedule = Schedule(OptimizerConfig(lr=0.01 / 64, lr_per_image=True),
                        ScheduleConfig(decay="cosine", warmup_epochs=5, warmup_power=2, final_ratio=0.05,
                                       flat_epochs=15),
                        steps_per_epoch=10, epochs=100, global_batch=64)
    assert schedule.rates(25)[0] == pytest.approx(0.01 * (25 / 50) ** 2)
    middle = 50 + (850 - 50) / 2
    assert schedule.rates(int(middle))[0] == pytest.approx(0.01 * (0.05 + 0.95 * 0.5))
    assert schedule.rates(851)[0] == pytest.approx(0.0005) and schedule.rates(999)[0] == pytest.approx(0.0005)


def test_groups_and_momentum_warm_up_apart():
    schedule = Schedule(OptimizerConfig(lr=0.01, momentum=0.937),
                        ScheduleConfig(decay="linear", final_ratio=0.1, warmup_epochs=3, warmup_bias_lr=0.1,
                                       warmup_momentum=0.8),
                        steps_per_epoch=100, epochs=10, groups=("weight", "norm", "bias"))
    assert schedule.rates(0) == [0.0, 0.0, 0.1]
    assert schedule.momentum_at(0) == pytest.approx(0.8) and schedule.momentum_at(300) == 0.937
    weight, _, bias = schedule.rates(150)
    assert 0 < weight < 0.01 < bias < 0.1
    assert schedule.rates(1000)[0] == pytest.approx(0.001)


def test_unknown_decay():
    with pytest.raises(ValueError, match="train.schedule.decay must be one of"):
        Schedule(OptimizerConfig(), ScheduleConfig(decay="cosin"), steps_per_epoch=1, epochs=1)
    assert math.isclose(Schedule(OptimizerConfig(), ScheduleConfig(), steps_per_epoch=1, epochs=1).rates(3)[0], 0.01)

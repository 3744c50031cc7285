"""Gold-YOLO's learning rates, momentum and evaluations: the original's loop written out again, step
by step.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.config import OptimizerConfig, ScheduleConfig, load_config
from mindyolo_ext.engine.schedule import Schedule, ema_decay
from mindyolo_ext.engine.stages import is_evaluated, stage_at

RECIPES = Path(__file__).resolve().parents[3] / "configs" / "gold_yolo"
COCO = 118287  # images of train2017, with a label file or without objects


def original_rates(steps: int, epochs: int, rate: float) -> np.ndarray:
    """(steps * epochs, 3): learning rate of scales and weights, learning rate of biases, momentum,
    as the original's loop sets them.

    Its scheduler has made one step when it is built and is then set back by one: an epoch starts
    with the rate of the previous one. During the warm-up, the target is the right rate of the
    epoch.
    """

    def factor(epoch: int) -> float:
        return ((1 - math.cos(epoch * math.pi / epochs)) / 2) * (0.01 - 1) + 1

    warmup, rows = max(round(3.0 * steps), 1000), []
    now = [rate * factor(0)] * 2 + [0.937]
    scheduled = -1
    for epoch in range(epochs):
        if epoch > 0:
            scheduled += 1
            now[:2] = [rate * factor(scheduled)] * 2
        for step in range(epoch * steps, (epoch + 1) * steps):
            if step <= warmup:
                aim = rate * factor(epoch)
                now = [
                    np.interp(step, [0, warmup], [0.0, aim]),
                    np.interp(step, [0, warmup], [0.1, aim]),
                    np.interp(step, [0, warmup], [0.8, 0.937]),
                ]
            rows.append(list(now))
    return np.array(rows)


@pytest.mark.parametrize(
    ("name", "batch", "rate"),
    [
        ("n", 128, 0.01),
        ("s", 256, 0.01),
        ("m", 256, 0.01),
        ("l", 256, 0.01),
        ("n-distill", 128, 0.01),
        ("s-distill", 256, 0.01),
        ("m-distill", 256, 0.01),
        ("l-distill", 128, 0.005),
    ],
)
def test_recipes_follow_the_original(name: str, batch: int, rate: float) -> None:
    settings = load_config(RECIPES / f"gold_yolo-{name}.yaml").train
    assert settings.per_batch_size * 8 == batch and settings.epochs == 300
    assert settings.optimizer.weight_decay == pytest.approx(0.0005 * batch / 64, rel=1e-12)
    steps, epochs = 160, 40  # of the recipe's form; 1000 steps end within an epoch
    schedule = Schedule(
        settings.optimizer,
        settings.schedule,
        steps_per_epoch=steps,
        epochs=epochs,
        global_batch=batch,
        groups=["weight", "norm", "bias"],
    )
    wanted = original_rates(steps, epochs, rate)
    got = np.array(
        [[*schedule.rates(step), schedule.momentum_at(step)] for step in range(steps * epochs)]
    )
    np.testing.assert_allclose(got, wanted[:, [0, 0, 1, 2]], rtol=1e-9, atol=1e-15)


def test_three_epochs_of_coco_are_more_than_a_thousand_steps() -> None:
    settings = load_config(RECIPES / "gold_yolo-n.yaml").train
    steps = COCO // 128
    schedule = Schedule(
        settings.optimizer,
        settings.schedule,
        steps_per_epoch=steps,
        epochs=300,
        global_batch=128,
        groups=["weight", "bias"],
    )
    assert schedule.warmup == 3 * steps
    wanted = original_rates(steps, 300, 0.01)
    for step in (
        0,
        1,
        steps,
        3 * steps - 1,
        3 * steps,
        3 * steps + 1,
        4 * steps - 1,
        4 * steps,
        5 * steps,
        150 * steps,
        300 * steps - 1,
    ):
        np.testing.assert_allclose(
            [*schedule.rates(step), schedule.momentum_at(step)], wanted[step], rtol=1e-9
        )
    assert [ema_decay(settings, update) for update in (1, 2000)] == pytest.approx(
        [0.9999 * (1 - math.exp(-1 / 2000)), 0.9999 * (1 - math.exp(-1))], rel=1e-12
    )


def test_one_rate_per_epoch_without_the_delay() -> None:
    schedule = Schedule(
        OptimizerConfig(lr=1.0),
        ScheduleConfig(decay="cosine", final_ratio=0.01, per_epoch=True),
        steps_per_epoch=5,
        epochs=10,
    )
    for epoch in range(10):
        factor = ((1 - math.cos(epoch * math.pi / 10)) / 2) * (0.01 - 1) + 1
        assert [schedule.rates(5 * epoch + step)[0] for step in range(5)] == pytest.approx(
            [factor] * 5, rel=1e-12
        )
    with pytest.raises(ValueError, match="per_epoch wanted decay cosine, got linear"):
        Schedule(
            OptimizerConfig(),
            ScheduleConfig(decay="linear", per_epoch=True),
            steps_per_epoch=5,
            epochs=10,
        )


@pytest.mark.parametrize("name", ["n", "s", "m", "l", "n-distill", "l-distill"])
def test_evaluations_and_the_plain_end(name: str) -> None:
    config = load_config(RECIPES / f"gold_yolo-{name}.yaml")
    evaluated = [epoch for epoch in range(300) if is_evaluated(config.train, epoch)]
    assert evaluated == [*range(19, 250, 20), *range(251, 300, 3)]
    scale, mixup = (0.9, 0.1) if name[0] in "ml" else (0.5, 0.0)
    for epoch in (0, 284, 285, 299):
        mosaic, *rest = stage_at(config, epoch)[1]
        assert mosaic["name"] == "gold_yolo_mosaic" and mosaic["scale"] == scale
        assert mosaic.get("probability", 1.0) == (1.0 if epoch < 285 else 0.0)
        assert epoch >= 285 or mosaic.get("mixup_probability", 0.0) == mixup
        assert rest == [
            {"name": "hsv", "hue": 0.015, "saturation": 0.7, "value": 0.4},
            {"name": "horizontal_flip", "probability": 0.5},
        ]

"""Recipes that would learn little cause a warning; sound recipes do not."""

import numpy as np
import pytest

from mindyolo_ext.config import config_from_mapping, load_config
from mindyolo_ext.config.shipped import shipped_recipes
from mindyolo_ext.engine.advice import doubts
from mindyolo_ext.engine.schedule import Schedule


def found(config, images: int, world_size: int = 1) -> list[str]:
    settings = config.train
    batch = settings.per_batch_size * world_size
    schedule = Schedule(
        settings.optimizer,
        settings.schedule,
        steps_per_epoch=images // batch,
        epochs=settings.epochs,
        global_batch=batch,
    )
    steps = images // batch
    return list(
        doubts(config, schedule, images=images, steps_per_epoch=steps, world_size=world_size)
    )


def of(images: int = 1000, **train) -> list[str]:
    return found(config_from_mapping({"train": {"per_batch_size": 10, **train}}), images)


def test_a_short_run_of_a_shipped_recipe():
    """Two epochs of 15: one of warm-up, one at the final learning rate, and only the last stage."""
    config = load_config("yolox-nano-bccd", ["train.epochs=2"])
    rates, stage = found(config, 205)
    assert "last 3 epochs have the final learning rate" in rates and "1 of them warm-up" in rates
    assert "--set train.schedule.flat_epochs=0" in rates
    assert "train.stages[0]: is meant for the last 5 epochs, and the training has 2" in stage
    assert found(load_config("yolox-nano-bccd"), 205) == []


def test_the_rate_is_as_low_as_the_warning_says():
    config = load_config("yolox-nano-bccd", ["train.epochs=2"])
    steps = 25
    schedule = Schedule(
        config.train.optimizer, config.train.schedule, steps_per_epoch=steps, epochs=2
    )
    after = {schedule.rates(k)[0] for k in range(steps + 1, 2 * steps)}
    np.testing.assert_allclose(list(after), schedule.base * config.train.schedule.final_ratio)


@pytest.mark.parametrize("path", shipped_recipes().values(), ids=lambda path: path.stem)
def test_no_shipped_recipe_is_doubted(path):
    config = load_config(path)
    images = 117_266 if "bccd" not in path.stem and "128" not in path.stem else 205
    assert found(config, images) == []


def test_a_warm_up_longer_than_the_training():
    (doubt,) = of(epochs=2, schedule={"decay": "cosine", "warmup_epochs": 4}, optimizer={"lr": 1})
    assert "warm-up takes 4 epochs and the training has 2" in doubt and "0.497 at most" in doubt
    (doubt,) = of(epochs=2, schedule={"warmup_min_steps": 1000})
    assert "warm-up takes 10 epochs" in doubt
    assert of(epochs=5, schedule={"decay": "cosine", "warmup_epochs": 4}) == []


def test_stages_that_never_come_or_always_hold():
    (doubt,) = of(epochs=8, stages=[{"from_epoch": 8, "loss": {"l1": True}}])
    assert "stages[0]: begins at epoch 8" in doubt and "never reached" in doubt
    (doubt,) = of(epochs=8, stages=[{"from_epoch": -8, "augment": []}])
    assert "so its settings of augment apply from the first epoch on" in doubt
    assert of(epochs=8, stages=[{"from_epoch": -8, "eval_interval": 1}]) == []
    assert of(epochs=9, stages=[{"from_epoch": -8, "augment": []}, {"from_epoch": 8}]) == []


def test_a_run_without_an_update():
    few = {"epochs": 3, "optimizer": {"accumulate": 16, "accumulate_within_epoch": True}}
    (doubt,) = of(images=100, **few)
    assert "no update in 3 epochs of 10 step(s)" in doubt and "16 micro batches" in doubt
    few["optimizer"] = {"accumulate": 16}
    assert of(images=100, **few) == []  # the second epoch continues with the gradients of the first


def test_images_that_fill_no_batch():
    (doubt,) = of(images=19)
    assert "9 of 19 images do not fill a batch of 10" in doubt
    assert of(images=109) == []

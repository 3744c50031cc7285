"""The pace without compilations, the time left, and what a run reports about them."""

import logging

import pytest

from mindyolo_ext.config import TrainConfig
from mindyolo_ext.engine import pace as module
from mindyolo_ext.engine.pace import Pace, duration
from mindyolo_ext.engine.telling import doubt_best, in_words, seconds_left, tell_epoch


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_the_pace_leaves_compilations_out(clock):
    pace = Pace(images_per_step=8)

    def batches():
        for _ in range(3):
            clock[0] += 1.0
            yield None

    assert pace.values() == {} and pace.seconds_per_step is None
    for number, _ in enumerate(pace.waiting_for(batches())):
        clock[0] += 60.0 if number == 0 else 3.0
        pace.step_taken(compiled=number == 0)
        if number == 0:
            assert pace.values() == {}
    assert pace.values() == {"images_per_second": 2.0, "data_wait": 0.25}
    assert pace.seconds_per_step == 4.0
    assert pace.waited == 3.0 and pace.seconds == 69.0


def test_the_time_left_counts_evaluations():
    settings = TrainConfig(epochs=10, eval_interval=4)  # after the epochs 4, 8 and 10
    known = {"seconds_per_step": 2.0, "steps_per_epoch": 5, "seconds_per_evaluation": 7.0}
    assert seconds_left(settings, 4, **known) == 5 * 5 * 2.0 + 2 * 7.0
    assert seconds_left(settings, 4, **{**known, "seconds_per_evaluation": None}) == 50.0
    assert seconds_left(settings, 9, **known) is None
    assert seconds_left(settings, 4, **{**known, "seconds_per_step": None}) is None


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.4, "0 s"),
        (99, "99 s"),
        (100, "2 min"),
        (3599, "1 h"),
        (12000, "3 h 20 min"),
        (187200, "2 d 4 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_line_on_an_epoch_counts_from_1(caplog):
    values = {"loss": 3.25, "box": 1.5, "lr": 0.01, "images_per_second": 312.4, "data_wait": 0.04}
    values["device_memory_gib"] = 3.21
    with caplog.at_level(logging.INFO):
        tell_epoch(TrainConfig(epochs=300), 0, values, seconds=42.0, left=12000.0)
    assert caplog.messages == [
        "epoch 1/300: loss 3.25, box 1.5, lr 0.01, 312 images/s, 4% waiting for data, "
        "3.2 GiB on the device, 42 s, 3 h 20 min left"
    ]
    assert in_words({"loss": 1.0}) == "loss 1"


@pytest.mark.parametrize(
    "value, word", [(0.0, "nothing was found yet"), (-1.0, "no box that counts"), (0.1, None)]
)
def test_a_best_epoch_that_found_nothing_is_doubted(tmp_path, caplog, value, word):
    doubt_best(TrainConfig(), tmp_path / "best.ckpt", 4, value)
    assert [word in m and "epoch 5" in m for m in caplog.messages] == ([True] if word else [])

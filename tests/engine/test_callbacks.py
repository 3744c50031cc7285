"""Callbacks of a training, early stopping and kept checkpoints, in runs with given metrics."""

import logging

import numpy as np
import pytest
from small_training import small_recipe, small_shapes

from mindyolo_ext.backend import launch
from mindyolo_ext.checkpoint.store import load_checkpoint
from mindyolo_ext.config import Config
from mindyolo_ext.engine.callbacks import Callback
from mindyolo_ext.engine.evaluate import EvalResult
from mindyolo_ext.engine.train import train

pytestmark = pytest.mark.graph(when="never")
# Only the host decides here, so the backend that starts faster is enough
ON_ONE_BACKEND = pytest.mark.needs_torch
AP = (0.0, 0.2, 0.4, 0.3, 0.1, 0.5)  # of the epochs


class Recorder(Callback):
    """Record every event; end the run after ``last``, or with an error after ``crash``."""

    def __init__(self, last=None, crash=None):
        self.last, self.crash = last, crash
        self.moments, self.steps, self.rows, self.error = [], [], [], "not closed"

    def on_train_start(self, start):
        self.moments.append(("start", start.first_epoch, start.steps_per_epoch))
        self.start = start

    def on_epoch_start(self, epoch):
        self.moments.append(("epoch", epoch))

    def on_step_end(self, step):
        self.moments.append(("step", step.steps_done))
        self.steps.append(step)

    def on_evaluate_end(self, epoch, result):
        self.moments.append(("evaluated", epoch, result.values()["AP"]))

    def on_epoch_end(self, epoch, row):
        self.moments.append(("row", epoch))
        self.rows.append(row)
        if epoch == self.crash:
            raise RuntimeError("killed")
        return epoch == self.last

    def on_train_end(self, result):
        self.moments.append(("end", result.best_epoch))

    def close(self, error):
        self.moments.append(("close",))
        self.error = error


class Given(EvalResult):
    """An evaluation without detections and with a given AP."""

    def __init__(self, value):
        super().__init__([])
        self.value = value

    def values(self):
        return {"AP": self.value, "AP50": self.value}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return small_shapes(tmp_path_factory.mktemp("callbacks"), train_images=3, val_images=1)


@pytest.fixture(autouse=True)
def given_metrics(monkeypatch):
    """Make every evaluation return the next value of ``AP``."""
    values = {"next": 0}

    def evaluate(*_, **__):
        value = AP[values["next"]]
        values["next"] += 1
        return Given(value)

    monkeypatch.setattr("mindyolo_ext.engine.run_evaluation.evaluate", evaluate)
    return values


def recipe(shapes, **section) -> Config:
    return small_recipe(shapes, {"epochs": 6, "per_batch_size": 1, "log_interval": 2, **section})


def weights(folder):
    return sorted(path.name for path in (folder / "weights").iterdir())


@pytest.mark.all_cases
def test_the_moments_come_in_order_and_a_callback_can_end_the_run(shapes, tmp_path, caplog):
    seen = Recorder(last=1)
    with caplog.at_level(logging.INFO):
        result = train(
            recipe(shapes, save_interval=6, pictures=True), tmp_path / "run", callbacks=[seen]
        )
    epochs = [
        [("epoch", 0), ("step", 1), ("step", 3), ("evaluated", 0, 0.0), ("row", 0)],
        [("epoch", 1), ("step", 4), ("step", 6), ("evaluated", 1, 0.2), ("row", 1)],
    ]
    assert seen.moments == [("start", 0, 3), *epochs[0], *epochs[1], ("end", 1), ("close",)]
    assert seen.error is None and seen.start.class_names == ("circle", "square", "triangle")
    assert {"loss", "box", "lr", "images_per_second", "data_wait"} <= set(seen.steps[-1].values)
    assert seen.rows[1]["AP"] == 0.2 and seen.rows[1]["images_per_second"] > 0
    header = (tmp_path / "run" / "results.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "images_per_second" not in header
    assert result.best_epoch == 1 and result.last["epoch"] == 1
    assert "stopped early after epoch 2: stopped by a callback" in caplog.text
    assert load_checkpoint(tmp_path / "run" / "weights" / "last.ckpt")[1].epoch == 1
    pictures = {path.name for path in (tmp_path / "run").glob("*.*g")} - {"run.log"}
    batches = {"train_batch.jpg", "train_batch_2.jpg", "train_batch_3.jpg"}
    assert pictures == {"labels.png", "results.png", *batches}
    text = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "epoch 1/6: loss" in text and "finished, best AP 0.2000 in epoch 2" in text


@ON_ONE_BACKEND
def test_an_error_ends_the_run_and_closes_its_callbacks(shapes, tmp_path):
    seen = Recorder(crash=0)
    with pytest.raises(RuntimeError, match="killed"):
        train(recipe(shapes), tmp_path / "run", callbacks=[seen])
    assert seen.moments[-2:] == [("row", 0), ("close",)]
    assert isinstance(seen.error, RuntimeError)
    text = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert text.splitlines()[-1].endswith("ERROR the run ended: killed")


@ON_ONE_BACKEND
def test_patience_ends_a_run_and_survives_a_kill(shapes, tmp_path, caplog, given_metrics):
    """Epoch 3 of 6 is the best, and the next two are worse."""
    settings = {"patience": 2, "keep_best": 2, "keep_checkpoint_max": 1, "ema_decay": 0.9}
    launch.set_seed(0)
    with caplog.at_level(logging.INFO):
        result = train(recipe(shapes, **settings), tmp_path / "whole")
    assert result.best_epoch == 2 and result.last["epoch"] == 4
    assert "stopped early after epoch 5: no better AP in 2 epochs" in caplog.text
    assert "holds epoch 1 with AP 0: nothing was found yet" in caplog.text
    kept = ["best.ckpt", "epoch3_AP0.4000.ckpt", "epoch4_AP0.3000.ckpt", "epoch5.ckpt", "last.ckpt"]
    assert weights(tmp_path / "whole") == kept

    given_metrics["next"] = 0
    launch.set_seed(0)
    with pytest.raises(RuntimeError, match="killed"):
        train(recipe(shapes, **settings), tmp_path / "broken", callbacks=[Recorder(crash=3)])
    seen = Recorder()
    train(recipe(shapes, **settings), tmp_path / "broken", resume=True, callbacks=[seen])
    assert seen.moments[:2] == [("start", 4, 3), ("epoch", 4)]
    assert seen.moments[-2:] == [("end", 2), ("close",)]
    assert weights(tmp_path / "broken") == kept
    for name in kept:
        found, _ = load_checkpoint(tmp_path / "broken" / "weights" / name)
        wanted, _ = load_checkpoint(tmp_path / "whole" / "weights" / name)
        assert list(found) == list(wanted)
        assert all(np.array_equal(found[key], wanted[key]) for key in wanted), name

    caplog.clear()
    with caplog.at_level(logging.INFO):
        over = train(recipe(shapes, **settings), tmp_path / "broken", resume=True)
    assert over.last == {} and "stopped early after epoch 5" in caplog.text
    more = {**settings, "patience": 0}
    assert train(recipe(shapes, **more), tmp_path / "broken", resume=True).best_epoch == 5


@ON_ONE_BACKEND
def test_the_first_epoch_is_the_best_although_nothing_can_be_found(
    shapes, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("mindyolo_ext.engine.run_evaluation.evaluate", lambda *_, **__: Given(-1.0))
    result = train(recipe(shapes, epochs=2), tmp_path / "run")
    assert result.best_epoch == 0 and result.best_fitness == -1.0
    assert weights(tmp_path / "run") == ["best.ckpt", "last.ckpt"]
    assert "data.val has no box that counts" in caplog.text

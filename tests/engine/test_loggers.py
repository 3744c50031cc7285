"""Programs that record the numbers of a run. TensorBoard's file is read; stand-ins with the
signatures of the real packages replace the others.
"""

import importlib.util
import logging
import struct
import sys
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

from mindyolo_ext.config import config_from_mapping
from mindyolo_ext.engine.callbacks import StepEnd, TrainStart
from mindyolo_ext.engine.loggers import check_loggers, logger_callbacks
from mindyolo_ext.errors import MissingPackageError, RunError

CONFIG = config_from_mapping({"train": {"epochs": 2, "optimizer": {"lr": 0.25}}})
ROW = {"epoch": 0, "loss": 2.0, "gradient_norm": float("nan"), "AP": 0.5}
RESULT = SimpleNamespace(values=lambda: {"AP": 0.5, "AP50": 0.75})


def play(name, folder, *, first_epoch=0, error=None):
    """One epoch of 4 iterations, with the calls of the engine."""
    (folder / "config.yaml").write_text(CONFIG.to_yaml(), encoding="utf-8")
    cv2.imwrite(str(folder / "results.png"), np.full((4, 6, 3), (0, 0, 255), np.uint8))
    (callback,) = logger_callbacks([name])
    callback.on_train_start(TrainStart(folder, CONFIG, ("cat",), first_epoch, 4))
    done = 4 * first_epoch
    callback.on_epoch_start(first_epoch)
    callback.on_step_end(StepEnd(first_epoch, done + 1, {"loss": 3.0, "lr": 0.25}))
    callback.on_evaluate_end(first_epoch, RESULT)
    callback.on_epoch_end(first_epoch, {**ROW, "epoch": first_epoch})
    if error is None:
        callback.on_train_end(SimpleNamespace(folder=folder))
    callback.close(error)


WANTED = [
    (1, {"step/loss": 3.0, "step/lr": 0.25}),
    (4, {"val/AP": 0.5, "val/AP50": 0.75}),
    (4, {"epoch/loss": 2.0, "epoch/epoch": 1.0}),  # without values that are not finite
]


class Calls(list):
    """The names and arguments of calls."""

    def note(self, name, values):
        self.append((name, {k: v for k, v in values.items() if k not in ("self", "calls")}))

    def numbers(self, name):
        return [(call["step"], call["data"]) for called, call in self if called == name]


@pytest.fixture
def calls(monkeypatch):
    """Stand-ins that replace the packages of the three services."""
    found = Calls()
    for name, module in (
        ("wandb", wandb(found)),
        ("swanlab", swanlab(found)),
        ("mlflow", mlflow(found)),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    for name in (
        "WANDB_PROJECT",
        "SWANLAB_PROJ_NAME",
        "MLFLOW_EXPERIMENT_NAME",
        "MLFLOW_EXPERIMENT_ID",
    ):
        monkeypatch.delenv(name, raising=False)
    return found


def module_of(name, **content):
    module = ModuleType(name)
    module.__spec__ = importlib.util.spec_from_loader(name, None)
    vars(module).update(content)
    return module


def wandb(calls):
    """Of wandb 0.31."""

    class Run:
        id = "w1"

        def log(self, data, step=None, commit=None):  # noqa: ARG002
            calls.note("log", {"data": data, "step": step})

        def finish(self, exit_code=None):
            calls.note("finish", locals())

    def init(entity=None, project=None, dir=None, id=None, name=None, config=None, resume=None):
        calls.note("init", locals())
        return Run()

    return module_of("wandb", init=init, Image=lambda path: ("image", path))


def swanlab(calls):
    """Of swanlab 0.10."""

    class Run:
        id = "s1"

        def log(self, data, step=None):
            calls.note("log", {"data": data, "step": step})

        def finish(self, state="success", error=None, async_log_timeout=None):  # noqa: ARG002
            assert (state == "crashed") == (error is not None)
            calls.note("finish", {"state": state})

    def init(
        *, log_dir=None, mode=None, project=None, name=None, id=None, resume=None, config=None
    ):
        calls.note("init", locals())
        return Run()

    return module_of("swanlab", init=init, Image=lambda path: ("image", path))


def mlflow(calls):
    """Of mlflow 3.17."""

    def set_experiment(experiment_name=None, experiment_id=None):
        calls.note("set_experiment", locals())

    def start_run(run_id=None, experiment_id=None, run_name=None):
        calls.note("init", locals())
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "m1"))

    def log_params(params, synchronous=None, run_id=None):  # noqa: ARG001
        calls.note("log_params", {"params": params})

    def log_metrics(metrics, step=None, synchronous=None, run_id=None):  # noqa: ARG001
        calls.note("log", {"data": metrics, "step": step})

    def log_artifact(local_path, artifact_path=None, run_id=None):  # noqa: ARG001
        calls.note("log_artifact", {"path": local_path})

    def end_run(status="FINISHED"):
        calls.note("finish", locals())

    functions = (set_experiment, start_run, log_params, log_metrics, log_artifact, end_run)
    return module_of("mlflow", **{f.__name__: f for f in functions})


@pytest.mark.parametrize(
    "name, identity, good, bad",
    [
        ("wandb", "w1", {"exit_code": 0}, {"exit_code": 1}),
        ("swanlab", "s1", {"state": "success"}, {"state": "crashed"}),
        ("mlflow", "m1", {"status": "FINISHED"}, {"status": "FAILED"}),
    ],
)
def test_a_service_gets_the_numbers_and_is_found_again(tmp_path, calls, name, identity, good, bad):
    folder = tmp_path / "run 7"
    folder.mkdir()
    play(name, folder)
    begun = next(values for called, values in calls if called == "init")
    assert "run 7" in begun.values() and identity not in begun.values()
    assert calls.numbers("log")[:3] == WANTED
    assert calls[-1] == ("finish", good)
    assert str(folder / "results.png") in str(calls)
    calls.clear()
    play(name, folder, first_epoch=1, error=ValueError())
    begun = next(values for called, values in calls if called == "init")
    assert identity in begun.values()
    assert [step for step, _ in calls.numbers("log")] == [5, 8, 8]
    assert calls[-1] == ("finish", bad)
    assert not any(called in ("log_params", "log_artifact") for called, _ in calls)
    calls.clear()
    play(name, folder)  # a new run in the folder of an old one is a different run
    assert identity not in next(values for called, values in calls if called == "init").values()


def test_a_recipe_is_recorded(tmp_path, calls):
    play("mlflow", tmp_path), play("wandb", tmp_path)
    params = next(values for called, values in calls if called == "log_params")["params"]
    assert params["train.optimizer.lr"] == 0.25 and params["data.train"] == {}
    init = [values for called, values in calls if called == "init"][1]
    assert init["config"]["train"]["optimizer"]["lr"] == 0.25 and init["project"] == "mindyolo_ext"


def test_the_environment_names_the_project(tmp_path, calls, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    play("wandb", tmp_path), play("mlflow", tmp_path)
    assert next(values for called, values in calls if called == "init")["project"] == "mine"
    assert all(called != "set_experiment" for called, _ in calls)


def test_a_service_that_does_not_start_ends_the_run(tmp_path, calls, monkeypatch):
    def init(**_):
        raise PermissionError("no API key; call wandb login")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with pytest.raises(RunError, match="wandb does not start .no API key; call wandb login"):
        play("wandb", tmp_path)
    assert calls == []


def test_a_service_that_goes_away_costs_a_warning(tmp_path, calls, monkeypatch, caplog):
    def log_metrics(metrics, step=None):  # noqa: ARG001
        calls.note("lost", {})
        raise ConnectionError("no route to host")

    monkeypatch.setattr(sys.modules["mlflow"], "log_metrics", log_metrics)
    with caplog.at_level(logging.WARNING):
        play("mlflow", tmp_path)
    assert [called for called, _ in calls].count("lost") == 1
    assert caplog.messages == [
        "train.loggers: mlflow failed (no route to host); the training continues without it"
    ]


def test_a_missing_package_is_named_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match="pip install tensorboardX"):
        check_loggers(["tensorboard"])
    check_loggers([])
    with pytest.raises(ValueError, match="did you mean tensorboard"):
        config_from_mapping({"train": {"loggers": ["tensorbord"]}})


# ---- TensorBoard -----------------------------------------------------------------------------


def events(folder):
    """The events of the newest file; each record has a length, its checksum, content, and a
    checksum of that.
    """
    from tensorboardX.proto.event_pb2 import Event

    path = max((folder / "tensorboard").iterdir(), key=lambda p: p.stat().st_mtime_ns)
    data, place, found = path.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        found.append(Event.FromString(data[place + 12 : place + 12 + length]))
        place += length + 16
    return found


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None, reason="tensorboardX is not installed"
)
def test_tensorboard_reads_the_numbers_and_pictures(tmp_path):
    play("tensorboard", tmp_path)
    found, image, texts = {}, None, []
    for event in events(tmp_path):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found[value.tag, event.step] = value.simple_value
            elif value.HasField("image"):
                image = value
            else:
                texts.append(value)
    wanted = {(name, step): value for step, values in WANTED for name, value in values.items()}
    assert found == wanted
    assert image.tag == "run/results"
    pixels = cv2.imdecode(np.frombuffer(image.image.encoded_image_string, np.uint8), 1)
    assert pixels.shape == (4, 6, 3) and pixels[0, 0].tolist() == [0, 0, 255]
    assert "lr: 0.25" in texts[0].tensor.string_val[0].decode()


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None, reason="tensorboardX is not installed"
)
def test_tensorboard_drops_what_a_killed_run_wrote_beyond_its_checkpoint(tmp_path):
    play("tensorboard", tmp_path)
    for path in (tmp_path / "tensorboard").iterdir():
        path.unlink()
    play("tensorboard", tmp_path, first_epoch=1)
    starts = [e.step for e in events(tmp_path) if e.HasField("session_log")]
    assert starts == [5], "purges from the first step of the second epoch on"

"""Devices, options of MindSpore's compiler, and a second recipe over the first, on the command
line.
"""

import json
import re
from pathlib import Path

import pytest
import yaml
from helpers import Command

from mindyolo_ext.backend import BACKEND, launch
from mindyolo_ext.backend.graph_options import GraphOptions
from mindyolo_ext.config import load_config
from mindyolo_ext.engine import doctor_report
from mindyolo_ext.errors import ConfigError, RunError

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(
    path for path in (ROOT / "configs").glob("*/*.yaml") if not path.name.startswith("base")
)
ASCEND = ROOT / "configs" / "ascend.yaml"
pytestmark = pytest.mark.usefixtures("quiet_logging")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {name: yolo_fastestv2}\ntrain: {epochs: 3, multi_scale: [320, 352]}\n")
    return path


# ---- the compiler --------------------------------------------------------------------------------


def test_flags_of_the_compiler_reach_it(command: Command, recipe: Path, runs: list):
    status, output = command(
        *("train", "--config", recipe, "--ms_jit_level", "O1", "--precision_mode", "force_fp16"),
        *("--ms_enable_graph_kernel", "True", "--device_target", "Ascend"),
    )
    assert status == 0, output
    config, started = runs.pop()
    train = config.train
    assert (train.jit_level, train.graph_kernel, train.precision_mode) == ("O1", True, "force_fp16")
    assert started["options"] == GraphOptions("O1", True, "force_fp16")
    assert started["device_target"] == "Ascend"


def test_without_flags_device_and_compiler_are_left_open(
    command: Command, recipe: Path, runs: list
):
    assert command("train", "--config", recipe)[0] == 0
    started = runs.pop()[1]
    assert started["options"] == GraphOptions() and started["device_target"] is None


def test_an_unknown_precision_mode_is_told(command: Command, recipe: Path, runs: list):
    status, output = command("train", "--config", recipe, "--precision_mode", "fp16")
    assert status == 1 and not runs
    assert re.search(r"train.precision_mode wanted one of .*force_fp16.*, got 'fp16'", output)


def test_opencv_threads(command: Command, recipe: Path, runs: list):
    assert command("train", "--config", recipe)[0] == 0
    assert command("train", "--config", recipe, "--opencv_threads_num", 2)[0] == 0
    assert [config.data.opencv_threads for config, _ in runs] == [1, 2]


# ---- a recipe over another -----------------------------------------------------------------------


def test_a_second_recipe_is_laid_over_the_first(command: Command, recipe: Path, runs: list):
    over = recipe.with_name("over.yaml")
    over.write_text("train: {multi_scale: [], amp_level: O2}\n")
    last = recipe.with_name("last.yaml")
    last.write_text("train: {amp_level: O1, epochs: 5}\n")
    status, output = command(
        *("train", "--config", recipe, "--config", over, "--config", last),
        *("--epochs", 7),
    )
    assert status == 0, output
    train = runs.pop()[0].train
    assert (train.multi_scale, train.amp_level, train.epochs) == ([], "O1", 7)


def test_an_overlay_wins_over_the_second_step_of_a_distillation(tmp_path: Path):
    for name, text in (
        ("a.yaml", "train: {distill: {teacher: t.ckpt, recipe: b.yaml}, epochs: 1}\n"),
        ("b.yaml", "train: {epochs: 2, amp_level: O1, multi_scale: [64]}\n"),
        ("c.yaml", "train: {amp_level: O2}\n"),
    ):
        (tmp_path / name).write_text(text)
    train = load_config(tmp_path / "a.yaml", overlays=[tmp_path / "c.yaml"]).train
    assert (train.epochs, train.amp_level, train.multi_scale) == (2, "O2", [64])


def test_a_fault_of_an_overlay_names_its_file_and_line(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("train: {epochs: 1}\n")
    (tmp_path / "b.yaml").write_text("\ntrain: {epoch: 2}\n")
    with pytest.raises(ConfigError, match=r"b.yaml:2: unknown key train.epoch, did you mean"):
        load_config(tmp_path / "a.yaml", overlays=[tmp_path / "b.yaml"])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_takes_the_one_for_ascend(path: Path):
    plain, ours = load_config(path), load_config(path, overlays=[ASCEND])
    assert ours.train.multi_scale == [] and ours.data.worker_kind == "process"
    assert (ours.train.amp_level, ours.train.loss_scaler) == ("O2", "dynamic")
    assert ours.train.jit_level and ours.train.precision_mode
    assert (ours.train.epochs, ours.train.optimizer) == (plain.train.epochs, plain.train.optimizer)
    assert (ours.model, ours.input, ours.eval) == (plain.model, plain.input, plain.eval)


def test_the_recipe_for_ascend_changes_nothing_that_is_learned():
    tree = yaml.safe_load(ASCEND.read_text(encoding="utf-8"))
    assert set(tree) == {"data", "train"} and set(tree["data"]) == {"workers", "worker_kind"}
    assert set(tree["train"]) == {
        *("multi_scale", "amp_level", "loss_scaler", "loss_scale", "jit_level", "precision_mode")
    }


# ---- the report ----------------------------------------------------------------------------------


@pytest.mark.parametrize("as_graph", [False, pytest.param(True, marks=pytest.mark.all_cases)])
def test_the_report_has_the_numbers_of_a_cpu(
    command: Command, tmp_path: Path, monkeypatch, as_graph: bool
):
    start = launch.start
    monkeypatch.setattr(
        launch, "start", lambda *args, **given: start(*args, graph_mode=as_graph, **given)
    )
    monkeypatch.setenv("ASCEND_HOME_PATH", str(Path.home() / "Ascend"))
    monkeypatch.setenv("MS_SCHED_HOST", "10.1.2.3")
    monkeypatch.setenv("HCCL_TOKEN", "hidden")
    monkeypatch.setenv("HF_HOME", "hidden")
    path = tmp_path / "report.json"
    status, output = command("doctor", "--report", path, "--device_target", "CPU")
    assert status == 0, output
    text = path.read_text(encoding="utf-8")
    report = json.loads(text)
    assert [step["name"] for step in report["steps"]] == [
        *("start", "convolution", "forward", "training")
    ]
    assert all(step["state"] == "works" and not step["error"] for step in report["steps"])
    for step in report["steps"][2:]:  # far closer than TOLERANCE, which is for other devices
        assert step["difference"] < 1e-3, step
    assert report["machine"]["backend"] == BACKEND
    assert report["environment"]["ASCEND_HOME_PATH"] == "~/Ascend"
    assert report["environment"]["MS_SCHED_HOST"] == "<address>"
    assert report["environment"]["HCCL_TOKEN"] == "(left out)"
    assert "hidden" not in text and "10.1.2.3" not in text and "HF_HOME" not in text


def test_what_fails_is_in_the_report(tmp_path: Path, monkeypatch):
    states = []

    def fail():
        states.extend(step["state"] for step in json.loads(path.read_text())["steps"])
        raise ValueError(f"no such file in {Path.home()}/x")

    path = tmp_path / "report.json"
    monkeypatch.setattr(doctor_report, "forward", fail)
    monkeypatch.setattr(doctor_report, "training", lambda: dict.fromkeys(_WANTED, 1.0))
    monkeypatch.setattr(doctor_report, "convolution_milliseconds", lambda: 1.0)
    with pytest.raises(RunError, match="forward, training is not as on .*; send the file"):
        doctor_report.write_report(path, "CPU")
    assert states == ["works", "works", "started"], "the file names the step that ends the process"
    forward, training = json.loads(path.read_text(encoding="utf-8"))["steps"][2:]
    assert forward["state"] == "failed" and "ValueError: no such file in ~/x" in forward["error"]
    assert training["state"] == "other numbers" and training["difference"] > 0.5


def test_versions_are_not_taken_for_addresses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor_report, "version_of", {"opencv-python": "4.10.0.84"}.get)
    for text in ("4.10.0.84", "CANN 7.0.0.5.242", "Version=24.1.0.3", "opencv-4.10.0.84.dist-info"):
        assert doctor_report.tidied(text) == text
    assert doctor_report.tidied("tcp://10.0.0.5:80, 10.0.0.6.") == "tcp://<address>:80, <address>."


_WANTED = doctor_report.WANTED["training"]


def test_a_number_that_is_not_finite_is_another_number():
    step = doctor_report.Step("x", wanted={"a": 1.0})
    doctor_report._try(step, lambda: {"a": float("nan")})
    assert step.state == "other numbers"

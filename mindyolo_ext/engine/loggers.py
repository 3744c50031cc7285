"""Loggers of ``train.loggers``: send the numbers of a run to other programs.

Each logger is a small class with the same four methods. Its package is imported only if a recipe
names it.
"""

import importlib.util
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import cv2

from mindyolo_ext.atomic import write_json
from mindyolo_ext.config import Config
from mindyolo_ext.engine.callbacks import Callback, StepEnd, TrainStart
from mindyolo_ext.engine.evaluate import EvalResult
from mindyolo_ext.errors import MissingPackageError, RunError

logger = logging.getLogger(__name__)
PROJECT = "mindyolo_ext"  # unless the user's environment names another
IDS = "loggers.json"  # in the run's folder: the ID of the run in each program
PICTURES = (
    "labels.png",
    "train_batch.jpg",
    "val_predictions.jpg",
    "confusion.png",
    "results.png",
)


class Sink(Protocol):
    """A program that records numbers.

    Attributes:
        run_id: identifies the run when it is resumed; empty if the program has no IDs.
    """

    run_id: str

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Record ``values`` at an iteration."""

    def picture(self, name: str, path: Path, step: int) -> None:
        """Record an image file at an iteration."""

    def close(self, *, failed: bool) -> None:
        """End the record."""


class _TensorBoard:
    """Event files below ``tensorboard/`` of the run's folder, written by tensorboardX."""

    run_id = ""

    def __init__(self, start: TrainStart, _: str):
        from tensorboardX import SummaryWriter

        # Entries that a killed run wrote after its last checkpoint are not shown twice
        first = start.first_epoch * start.steps_per_epoch + 1
        self._writer = SummaryWriter(
            logdir=str(start.folder / "tensorboard"), purge_step=first if first > 1 else None
        )
        self._writer.add_text("recipe", f"<pre>{start.config.to_yaml()}</pre>", first - 1)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def picture(self, name: str, path: Path, step: int) -> None:
        image = cv2.imread(str(path))
        if image is not None:
            self._writer.add_image(name, image[:, :, ::-1], step, dataformats="HWC")

    def close(self, *, failed: bool) -> None:  # noqa: ARG002
        self._writer.close()


class _MLflow:
    """A run of MLflow; its environment variables (``MLFLOW_TRACKING_URI``, ...) set the place."""

    def __init__(self, start: TrainStart, run_id: str):
        import mlflow

        self._mlflow = mlflow
        if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & set(os.environ):
            mlflow.set_experiment(experiment_name=PROJECT)
        run = mlflow.start_run(run_id=run_id or None, run_name=start.folder.name)
        self.run_id = run.info.run_id
        if not run_id:
            mlflow.log_params(flat(start.config))
            mlflow.log_artifact(str(start.folder / "config.yaml"))

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def picture(self, name: str, path: Path, step: int) -> None:  # noqa: ARG002
        self._mlflow.log_artifact(str(path))

    def close(self, *, failed: bool) -> None:
        self._mlflow.end_run(status="FAILED" if failed else "FINISHED")


class _Recorder:
    """The common part of Weights & Biases and SwanLab."""

    def __init__(self, package: Any, run: Any):
        self._package, self._run = package, run
        self.run_id = run.id

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, name: str, path: Path, step: int) -> None:
        self._run.log({name: self._package.Image(str(path))}, step=step)


class _WandB(_Recorder):
    """A run of Weights & Biases, set up by ``WANDB_PROJECT`` and ``WANDB_MODE``."""

    def __init__(self, start: TrainStart, run_id: str):
        import wandb

        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=start.folder.name,
            config=asdict(start.config),
            dir=str(start.folder),
            id=run_id or None,
            resume="allow" if run_id else None,
        )
        super().__init__(wandb, run)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _SwanLab(_Recorder):
    """A run of SwanLab, set up by ``SWANLAB_PROJ_NAME`` and ``SWANLAB_MODE``."""

    def __init__(self, start: TrainStart, run_id: str):
        import swanlab

        run = swanlab.init(
            project=os.environ.get("SWANLAB_PROJ_NAME", PROJECT),
            name=start.folder.name,
            config=asdict(start.config),
            log_dir=str(start.folder / "swanlog"),
            id=run_id or None,
            resume="allow" if run_id else None,
        )
        super().__init__(swanlab, run)

    def close(self, *, failed: bool) -> None:
        if failed:
            self._run.finish(state="crashed", error="the training ended with an error")
        else:
            self._run.finish()


# Name in a recipe -> required package, which is also the name of an extra, and class
_KNOWN: dict[str, tuple[str, Callable[[TrainStart, str], Sink]]] = {
    "tensorboard": ("tensorboardX", _TensorBoard),
    "mlflow": ("mlflow", _MLflow),
    "wandb": ("wandb", _WandB),
    "swanlab": ("swanlab", _SwanLab),
}


def check_loggers(names: Sequence[str]) -> None:
    """Check that the packages are installed. Raises: MissingPackageError."""
    for name in names:
        package = _KNOWN[name][0]
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(
                f"train.loggers: {name} needs the package {package}, which is not installed; "
                f"`pip install {package}`, or leave {name} out"
            )


def logger_callbacks(names: Sequence[str]) -> list[Callback]:
    """Create a callback for each of ``train.loggers``."""
    return [_Logging(name) for name in dict.fromkeys(names)]


class _Logging(Callback):
    """Send the numbers of a run to one program.

    An error at the start ends the run before anything is trained. A later error, such as a lost
    connection, is logged as a warning; the rest of the record is lost, but the training continues.
    """

    def __init__(self, name: str):
        self.name = name
        self._sink: Sink | None = None
        self._steps_per_epoch = 1
        self._step = 0

    def on_train_start(self, start: TrainStart) -> None:
        self._steps_per_epoch, self._folder = start.steps_per_epoch, start.folder
        ids = _read_ids(start.folder) if start.first_epoch else {}
        try:
            self._sink = _KNOWN[self.name][1](start, ids.get(self.name, ""))
        except Exception as error:
            raise RunError(
                f"train.loggers: {self.name} does not start ({error}); fix that, or leave it out: "
                f"--set train.loggers=[]"
            ) from error
        if self._sink.run_id:
            known = _read_ids(start.folder)  # the other programs may have added theirs
            write_json(start.folder / IDS, {**known, self.name: self._sink.run_id}, indent=1)

    def on_step_end(self, step: StepEnd) -> None:
        self._send("step", step.values, step.steps_done)

    def on_evaluate_end(self, epoch: int, result: EvalResult) -> None:
        self._send("val", result.values(), (epoch + 1) * self._steps_per_epoch)

    def on_epoch_end(self, epoch: int, row: dict[str, float]) -> None:
        step = (epoch + 1) * self._steps_per_epoch
        losses = {k[4:]: value for k, value in row.items() if k.startswith("val_")}
        if losses:
            self._send("val", losses, step)
        values = {k: v for k, v in row.items() if not _is_metric(k) and not k.startswith("val_")}
        self._send("epoch", {**values, "epoch": epoch + 1}, step)

    def on_train_end(self, result: Any) -> None:
        for name in PICTURES:
            path = result.folder / name
            if path.is_file():
                stem = path.stem
                self._guarded(lambda its, p=path, s=stem: its.picture(f"run/{s}", p, self._step))

    def close(self, error: BaseException | None) -> None:
        self._guarded(lambda sink: sink.close(failed=error is not None))
        self._sink = None

    def _send(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Send numbers as ``group/name``, without those that are not finite."""
        self._step = max(step, self._step)
        kept = {f"{group}/{k}": float(v) for k, v in values.items() if math.isfinite(v)}
        self._guarded(lambda sink: sink.numbers(kept, step))

    def _guarded(self, action: Callable[[Sink], None]) -> None:
        """Call ``action`` on the program, and give up the program if it fails."""
        if self._sink is None:
            return
        try:
            action(self._sink)
        except Exception as error:
            logger.warning(
                "train.loggers: %s failed (%s); the training continues without it", self.name, error
            )
            self._sink = None


def _is_metric(name: str) -> bool:
    """Whether a column of a row comes from the evaluation, which is recorded separately."""
    return name.startswith(("AP", "AR", "voc", "own_"))


def _read_ids(folder: Path) -> dict[str, str]:
    """Read ``IDS``; empty if it is missing or damaged."""
    try:
        found = json.loads((folder / IDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def flat(config: Config) -> dict[str, Any]:
    """Flatten a recipe to ``section.key`` -> value."""
    found: dict[str, Any] = {}

    def add(values: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping) and value:
                add(value, f"{prefix}{key}.")
            else:
                found[prefix + key] = value

    add(asdict(config), "")
    return found

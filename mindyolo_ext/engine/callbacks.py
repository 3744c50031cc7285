"""Callbacks of a training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.config import Config
from mindyolo_ext.engine.evaluate import EvalResult

if TYPE_CHECKING:
    from mindyolo_ext.engine.train import TrainResult


@dataclass(frozen=True)
class TrainStart:
    """What is known when a training begins or is resumed.

    Args:
        folder: of the run.
        config: the recipe.
        class_names: of the data.
        first_epoch: 0, or the first epoch of a resumed run.
        steps_per_epoch: iterations of an epoch.
    """

    folder: Path
    config: Config
    class_names: tuple[str, ...]
    first_epoch: int
    steps_per_epoch: int


@dataclass(frozen=True)
class StepEnd:
    """What the host reads every ``train.log_interval`` steps.

    Args:
        epoch: counted from 0.
        steps_done: iterations since the beginning of the training, this one included.
        values: loss, its terms, ``lr`` and, once they are known, ``images_per_second``,
            ``data_wait`` (the share of the time spent waiting for data) and
            ``device_memory_gib`` (the peak so far).
    """

    epoch: int
    steps_done: int
    values: dict[str, float]


class Callback:
    """Base class of callbacks; subclasses override the methods that they need.

    The methods are called on rank 0 only, so they must not wait for other ranks. An exception ends
    the run. Epochs count from 0, as in ``results.csv``.
    """

    def on_train_start(self, start: TrainStart) -> None:
        """Called before the first step."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before the first step of an epoch."""

    def on_step_end(self, step: StepEnd) -> None:
        """Called every ``train.log_interval`` steps, when the host has read the loss."""

    def on_evaluate_end(self, epoch: int, result: EvalResult) -> None:
        """Called after an evaluation."""

    def on_epoch_end(self, epoch: int, row: dict[str, float]) -> bool | None:
        """Called when the epoch's row and checkpoints have been written.

        Args:
            row: of ``results.csv``, with ``images_per_second`` and, if the framework reports it,
                ``device_memory_gib``.

        Returns: True to end the training after this epoch.
        """

    def on_train_end(self, result: "TrainResult") -> None:
        """Called after the last epoch, also after early stopping."""

    def close(self, error: BaseException | None) -> None:
        """Release all resources. Called last, however the run ends.

        Args:
            error: the exception that ended the run, None if it finished.
        """


class Callbacks(Callback):
    """Several callbacks as one, called in order. It may be empty, as on ranks other than 0."""

    def __init__(self, members: Sequence[Callback] = ()):
        self.members = tuple(members)

    def on_train_start(self, start: TrainStart) -> None:
        for member in self.members:
            member.on_train_start(start)

    def on_epoch_start(self, epoch: int) -> None:
        for member in self.members:
            member.on_epoch_start(epoch)

    def on_step_end(self, step: StepEnd) -> None:
        for member in self.members:
            member.on_step_end(step)

    def on_evaluate_end(self, epoch: int, result: EvalResult) -> None:
        for member in self.members:
            member.on_evaluate_end(epoch, result)

    def on_epoch_end(self, epoch: int, row: dict[str, float]) -> bool:
        wishes = [member.on_epoch_end(epoch, dict(row)) for member in self.members]
        return any(wishes)

    def on_train_end(self, result: "TrainResult") -> None:
        for member in self.members:
            member.on_train_end(result)

    def close(self, error: BaseException | None) -> None:
        for member in self.members:
            member.close(error)

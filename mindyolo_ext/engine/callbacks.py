"""Named moments of a training, for programs that watch one."""

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
    """What is known when a training begins, or goes on.

    Args:
        folder: of the run.
        config: the recipe.
        class_names: of the data.
        first_epoch: 0, or the epoch that a resumed run goes on with.
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
    """A program that watches a training; subclasses override the moments they want.

    Moments come on rank 0 alone, so nothing in them may wait for other ranks. An exception ends the
    run. Epochs count from 0, as in ``results.csv``.
    """

    def on_train_start(self, start: TrainStart) -> None:
        """The first step is about to be taken."""

    def on_epoch_start(self, epoch: int) -> None:
        """The epoch's first step is about to be taken."""

    def on_step_end(self, step: StepEnd) -> None:
        """The host has read the loss: every ``train.log_interval`` steps, not after each."""

    def on_evaluate_end(self, epoch: int, result: EvalResult) -> None:
        """The epoch was evaluated."""

    def on_epoch_end(self, epoch: int, row: dict[str, float]) -> bool | None:
        """The epoch's row and checkpoints are on the disk.

        Args:
            row: of ``results.csv``, with ``images_per_second`` and, where the framework tells it,
                ``device_memory_gib``.

        Returns: True to end the training after this epoch.
        """

    def on_train_end(self, result: "TrainResult") -> None:
        """The last epoch is over, or the training has stopped early."""

    def close(self, error: BaseException | None) -> None:
        """Let go of what is open. It comes last, however the run ends.

        Args:
            error: what ended the run, None if it came to its end.
        """


class Callbacks(Callback):
    """Several callbacks as one, each moment in their order; without any, on other ranks too."""

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

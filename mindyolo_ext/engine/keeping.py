"""Decide which checkpoints a run keeps and when it stops early.

Both are functions of the measured values, so a resumed run decides as an uninterrupted one.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mindyolo_ext.config import TrainConfig
from mindyolo_ext.engine.stages import is_evaluated

_NAME = re.compile(r"epoch(\d+)(_\w+-?\d+\.\d+)?")


class KeptCheckpoints:
    """Weights of single epochs, beside ``last`` and ``best``.

    ``epoch12.ckpt`` is one of the newest ``train.keep_checkpoint_max``, ``epoch12_AP0.4321.ckpt``
    one of the best ``train.keep_best``. Names count epochs from 1, as the screen does.

    Args:
        folder: of the weights.
        settings: of the training.
        state: result of ``state`` when the run was saved, None for a new run.
    """

    def __init__(self, folder: Path, settings: TrainConfig, state: Mapping[str, Any] | None = None):
        self.folder, self.settings = folder, settings
        self.newest: list[int] = list((state or {}).get("newest", []))
        self.best: list[tuple[int, float]] = []
        if state and state.get("metric") == settings.best_metric:
            self.best = [(int(epoch), float(value)) for epoch, value in state.get("best", [])]

    def state(self) -> dict[str, Any]:
        """State of this object for a checkpoint."""
        best = [list(pair) for pair in self.best]
        return {"newest": self.newest, "best": best, "metric": self.settings.best_metric}

    def add(
        self, epoch: int, value: float | None, *, is_due: bool, save: Callable[[Path], None]
    ) -> None:
        """Write the checkpoints of an epoch, then delete those that it replaces.

        Args:
            epoch: counted from 0.
            value: of ``train.best_metric``, None without an evaluation.
            is_due: whether ``last`` is written after this epoch.
            save: writes the epoch's weights.
        """
        settings, before = self.settings, self._paths()
        if is_due and settings.keep_checkpoint_max:
            self.newest.append(epoch)
        if value is not None and settings.keep_best > 1:
            self.best = sorted([*self.best, (epoch, value)], key=lambda pair: -pair[1])
        count = settings.keep_checkpoint_max
        self.newest = self.newest[-count:] if count else []
        self.best = self.best[: settings.keep_best] if settings.keep_best > 1 else []
        kept = self._paths()
        for path in kept - before:
            save(path)
        for path in before - kept:
            path.unlink(missing_ok=True)

    def remove_later(self, epoch: int) -> None:
        """Delete checkpoints of epochs from ``epoch`` on, left by a killed run. These epochs are
        trained again, perhaps with another result in the file name.
        """
        for path in self.folder.glob(f"epoch*.{self.settings.checkpoint_format}"):
            found = _NAME.fullmatch(path.stem)
            if found and int(found[1]) > epoch:
                path.unlink(missing_ok=True)

    def _paths(self) -> set[Path]:
        names = [f"epoch{epoch + 1}" for epoch in self.newest]
        metric = self.settings.best_metric
        names += [f"epoch{epoch + 1}_{metric}{value:.4f}" for epoch, value in self.best]
        return {self.folder / f"{name}.{self.settings.checkpoint_format}" for name in names}


def is_out_of_patience(
    settings: TrainConfig, epoch: int, best_epoch: int, best_fitness: float
) -> bool:
    """Whether ``epoch`` is evaluated and at least ``train.patience`` epochs after the best one.

    Epochs do not count while the metric is 0, because the network does not detect anything yet.
    """
    is_over = 0 < settings.patience <= epoch - best_epoch and best_fitness > 0
    return is_over and is_evaluated(settings, epoch)

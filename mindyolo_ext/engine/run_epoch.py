"""The steps of an epoch of a training run."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mindyolo_ext import progress
from mindyolo_ext.backend.launch import world
from mindyolo_ext.backend.memory import peak_memory
from mindyolo_ext.backend.train_step import Tally
from mindyolo_ext.config import Config, TrainConfig
from mindyolo_ext.contracts import StepClock, Stepped
from mindyolo_ext.data.types import Batch
from mindyolo_ext.engine.callbacks import Callbacks, StepEnd
from mindyolo_ext.engine.pace import Pace
from mindyolo_ext.engine.run_pictures import RunPictures
from mindyolo_ext.engine.run_stages import RunStages
from mindyolo_ext.engine.schedule import ema_decay
from mindyolo_ext.engine.telling import in_words
from mindyolo_ext.errors import TrainingError

logger = logging.getLogger(__name__)


class EpochSteps:
    """Take the steps of an epoch and sum up their results.

    Args:
        last_path: checkpoint that an aborted training leaves behind.
    """

    def __init__(self, config: Config, stages: RunStages, pictures: RunPictures, last_path: Path):
        self.config, self.stages, self.pictures = config, stages, pictures
        self.last_path, self.world = last_path, world()
        self.updates, self.bad_steps = 0, 0
        self.pace = Pace(config.train.per_batch_size * self.world.size)

    def train(self, epoch: int, callbacks: Callbacks) -> dict[str, float]:
        """Train on every batch once and return the means over the epoch."""
        settings, steps = self.config.train, self.stages.loader.steps_per_epoch
        first_step = epoch * steps
        callbacks.on_epoch_start(epoch)
        title = f"epoch {epoch + 1}/{settings.epochs}"
        if settings.optimizer.accumulate_within_epoch:
            self.stages.step.drop_accumulated()
        self.stages.step.begin_tally(self.bad_steps)
        self.pace = Pace(settings.per_batch_size * self.world.size)
        with progress.bar(total=steps, title=title, show=self.world.is_main) as shown:
            for k, batch in enumerate(self.pace.waiting_for(self._batches(epoch))):
                if self.world.is_main:
                    self.pictures.batch(batch, self.stages.model.input_spec)
                compiled = self._take_step(batch, first_step + k)
                if compiled:
                    shown.unpause()
                shown.update()
                reads = k % max(settings.log_interval, 1) == 0 or k + 1 == steps
                if reads:
                    tally = self._read_tally(batch, first_step + k)
                self.pace.step_taken(compiled=compiled)
                if reads:
                    values = self._step_values(tally.report, first_step + k)
                    shown.set_postfix_str(in_words(values), refresh=False)
                    callbacks.on_step_end(StepEnd(epoch, first_step + k + 1, values))
        self.stages.step.share_statistics()
        means = tally.sums / steps
        names = ("loss", "gradient_norm", "finite", "loss_scale", *self.stages.trainable.term_names)
        row = {name: float(value) for name, value in zip(names, means)}
        row["lr"] = float(self.stages.schedule.rates(first_step + steps - 1)[0])
        row["seconds"], row["seconds_waiting_for_data"] = self.pace.seconds, self.pace.waited
        return row

    def _batches(self, epoch: int) -> Iterator[Batch]:
        settings = self.config.train
        if self.stages.rectangles is not None:
            return self.stages.loader.epoch(epoch, self.stages.rectangles.inputs(epoch).__getitem__)
        if not settings.multi_scale:
            return self.stages.loader.epoch(epoch)
        return self.stages.loader.epoch(
            epoch,
            lambda k: multi_scale_size(settings, epoch * self.stages.loader.steps_per_epoch + k),
        )

    def _take_step(self, batch: Batch, iteration: int) -> bool:
        """Run the compiled step and return whether it had to be compiled.

        Nothing is read from the device, so it computes while the host prepares and enqueues the
        next batch.
        """
        settings = self.config.train
        update = self.stages.schedule.updates_at(iteration)
        decay = ema_decay(
            settings, self.updates + 1, done=(iteration + 1) / self.stages.schedule.total
        )
        rates = np.array(self.stages.schedule.rates(iteration), np.float32)
        controls = np.array(
            [self.stages.schedule.momentum_at(iteration), float(update), decay], np.float32
        )
        if isinstance(self.stages.trainable, Stepped):
            self.stages.trainable.begin_step(
                StepClock(
                    iteration,
                    iteration // self.stages.loader.steps_per_epoch,
                    settings.epochs,
                    settings.seed,
                    self.world.rank,
                    images=batch.images.shape[0] * self.world.size,
                )
            )
        first = batch.images.shape not in self.stages.compiled_shapes
        with progress.compiling(
            f"the training step for {batch.size[0]}x{batch.size[1]}",
            show=first and self.world.is_main,
            done="compiled and ran",
        ):
            self.stages.step.take(batch.images, batch.targets, batch.mask, rates, controls)
        self.stages.compiled_shapes.add(batch.images.shape)
        self.updates += int(update)
        return first

    def _read_tally(self, batch: Batch, iteration: int) -> Tally:
        """Read the results of the epoch's steps so far. Raises: TrainingError if too many in a row
        were not finite.
        """
        tally = self.stages.step.tally()
        self.bad_steps = tally.bad_steps
        if tally.most_bad_steps > self.config.train.max_bad_steps:
            raise TrainingError(
                f"iteration {iteration}: loss or gradient were not finite in "
                f"{tally.most_bad_steps} steps in a row (weights were not changed). Last "
                f"images: {', '.join(batch.paths[:2])}. Try a lower train.optimizer.lr, "
                f"train.optimizer.clip_norm=10, or a longer warm-up; {self.last_path} holds the "
                "last finished epoch"
            )
        return tally

    def _step_values(self, report: np.ndarray, iteration: int) -> dict[str, float]:
        """The numbers of a step for the progress bar and callbacks."""
        values = {"loss": float(report[0])}
        values |= {n: float(v) for n, v in zip(self.stages.trainable.term_names, report[4:])}
        values["lr"] = float(self.stages.schedule.rates(iteration)[0])
        return values | self.speed()

    def speed(self) -> dict[str, float]:
        """Images per second, share of time spent waiting and, if it is known, peak memory."""
        peak = peak_memory()
        memory = {} if peak is None else {"device_memory_gib": peak / 2**30}
        return self.pace.values() | memory


def multi_scale_size(settings: TrainConfig, iteration: int) -> tuple[int, int]:
    """Network size of an iteration, the same on every rank and after a resume."""
    rng = np.random.default_rng((settings.seed, iteration // max(settings.multi_scale_interval, 1)))
    side = int(rng.choice(settings.multi_scale))
    return side, side

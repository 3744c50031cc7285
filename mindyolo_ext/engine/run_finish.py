"""The end of an epoch and of a training run: evaluation, files, and whether to stop."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mindyolo_ext.atomic import replacing
from mindyolo_ext.backend import BACKEND
from mindyolo_ext.backend.distributed import barrier, sum_over_ranks
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.names import COUNTER
from mindyolo_ext.checkpoint.store import SUFFIXES, CheckpointMetadata, save_checkpoint
from mindyolo_ext.engine.evaluate import EvalResult
from mindyolo_ext.engine.run_start import OPTIMIZER, WEIGHTS, RunStart
from mindyolo_ext.engine.stages import is_evaluated
from mindyolo_ext.engine.telling import doubt_best, seconds_left, tell_epoch, tell_evaluation
from mindyolo_ext.errors import MissingFileError
from mindyolo_ext.visual.curves import plot_results

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """The folder of a run, and the best value of ``train.best_metric``."""

    folder: Path
    best_epoch: int
    best_fitness: float
    last: dict[str, float]

    @property
    def best(self) -> Path:
        """The best checkpoint, or the last one if none was evaluated. Raises: MissingFileError."""
        weights = self.folder / "weights"
        for name in ("best", "last"):
            for suffix in SUFFIXES:
                if (weights / f"{name}{suffix}").is_file():
                    return weights / f"{name}{suffix}"
        raise MissingFileError(f"{weights}: holds no checkpoint; was the folder moved?")


class Run(RunStart):
    """A training run; one method per part of an epoch."""

    def train_epoch(self, epoch: int) -> None:
        """Train on every batch once; ``losses`` are the means over the epoch."""
        self.losses = self.steps.train(epoch, self.callbacks)

    def evaluate_epoch(self, epoch: int) -> EvalResult | None:
        """Compute metrics of the moving average (or the weights) if this epoch is evaluated."""
        if self.evaluation is None or not is_evaluated(self.config.train, epoch):
            return None
        weights, loss = self._evaluation_weights(), self.stages.loss
        result, losses = self.evaluation.run(weights, loss, epoch=epoch)
        self.losses |= losses
        self.callbacks.on_evaluate_end(epoch, result)
        return result

    def _evaluation_weights(self) -> dict[str, np.ndarray]:
        """Moving average if there is one, else the weights, by the model's names."""
        values = parameter_values(self.model)
        averages = self.stages.step.ema_values()
        own = {p.name: name for name, p in self.model.parameters_and_names()}
        return values | {own[n]: v for n, v in averages.items() if n in own}

    def finish_epoch(self, epoch: int, evaluation: EvalResult | None) -> None:
        """Write the row, the curves, the pictures and the checkpoints (rank 0)."""
        settings = self.config.train
        self.metrics = values = {} if evaluation is None else evaluation.values()
        fitness = values.get(settings.best_metric)
        better = fitness is not None and (self.best_epoch < 0 or fitness > self.best_fitness)
        if better:
            self.best_epoch, self.best_fitness = epoch, fitness
        self.last_row = {"epoch": epoch, **self.losses, **values}
        if not self.world.is_main:
            return
        self.results.add(self.last_row)
        with replacing(self.folder / "results.png") as unfinished:
            plot_results(self.results.path, unfinished)
        self._tell(epoch, values)
        if evaluation is not None:
            self.last_evaluation = evaluation
            if better or epoch + 1 == settings.epochs:
                self.pictures.predictions(epoch, evaluation, self.evaluation.dataset)
        if self._is_out_of_patience(epoch):
            self.stop_reason = f"no better {settings.best_metric} in {settings.patience} epochs"
        weights = self._evaluation_weights()
        metadata = self._metadata(epoch, values)
        if better:
            save_checkpoint(self.best_path, weights, metadata)
            doubt_best(settings, self.best_path, epoch, fitness)
        is_last = epoch + 1 == settings.epochs or bool(self.stop_reason)
        is_due = is_last or (epoch + 1) % settings.save_interval == 0
        self.kept.add(
            epoch,
            fitness,
            is_due=is_due,
            save=lambda path: save_checkpoint(path, weights, metadata),
        )
        if is_due:
            self._save_last(weights, metadata)

    def _tell(self, epoch: int, values: dict[str, float]) -> None:
        """Log a line about the epoch, and one about its evaluation."""
        settings, names = self.config.train, ("loss", *self.stages.trainable.term_names, "lr")
        left = seconds_left(
            settings,
            epoch,
            seconds_per_step=self.steps.pace.seconds_per_step,
            steps_per_epoch=self.stages.loader.steps_per_epoch,
            seconds_per_evaluation=None if self.evaluation is None else self.evaluation.seconds,
        )
        shown = {name: self.losses[name] for name in names} | self.steps.speed()
        tell_epoch(settings, epoch, shown, seconds=self.losses["seconds"], left=left)
        if values:
            tell_evaluation(settings, epoch, values, (self.best_epoch, self.best_fitness))

    def _save_last(self, weights: dict[str, np.ndarray], metadata: CheckpointMetadata) -> None:
        """Write everything needed to resume."""
        settings = self.config.train
        state = {OPTIMIZER + n: v for n, v in self.stages.step.state().items()}
        raw = (
            {WEIGHTS + n: v for n, v in parameter_values(self.model).items()}
            if settings.ema_decay > 0
            else {}
        )
        training = {
            "updates": self.steps.updates,
            "best_epoch": self.best_epoch,
            "best_fitness": self.best_fitness,
            "world_size": self.world.size,
            "per_batch_size": settings.per_batch_size,
            "seed": settings.seed,
            "backend": BACKEND,
            "config": self.config.to_yaml(),
            "kept_checkpoints": self.kept.state(),
        }
        save_checkpoint(
            self.last_path,
            {**weights, **raw, **state},
            replace(metadata, extra={**metadata.extra, "training": training}),
        )
        self.saved_epoch = metadata.epoch

    def stops_after(self, epoch: int) -> bool:
        """Whether patience has run out or a callback stops the training, equal on every rank."""
        wish = self.callbacks.on_epoch_end(epoch, {**self.last_row, **self.steps.speed()})
        if self.world.is_main and wish and not self.stop_reason:
            self.stop_reason = "stopped by a callback"
            if self.saved_epoch != epoch:
                self._save_last(self._evaluation_weights(), self._metadata(epoch, self.metrics))
        stops = np.array([bool(self.stop_reason)], np.float32)
        is_last = epoch + 1 == self.config.train.epochs
        if is_last or not (sum_over_ranks(stops) if self.world.size > 1 else stops)[0]:
            return False
        if self.world.is_main:
            logger.info("stopped early after epoch %d: %s", epoch + 1, self.stop_reason)
        return True

    def _metadata(self, epoch: int, metrics: dict[str, float]) -> CheckpointMetadata:
        return CheckpointMetadata(
            model=self.config.model.name,
            num_classes=self.num_classes,
            class_names=list(self.dataset.class_names),
            input_spec=self.model.input_spec,
            architecture=dict(self.model.architecture),
            epoch=epoch,
            metrics={k: float(v) for k, v in metrics.items()},
            # PyTorch's batch norms store this count
            extra={COUNTER: self.steps.updates},
        )

    def close(self) -> TrainResult:
        """Stop the workers and wait for the other ranks."""
        self.stages.close()
        barrier()
        if self.world.is_main:
            self.pictures.confusion(self.last_evaluation)
            metric = self.config.train.best_metric
            best = (
                f", best {metric} {self.best_fitness:.4f} in epoch {self.best_epoch + 1}"
                if self.best_epoch >= 0
                else ""
            )
            logger.info(
                "finished%s. Curves: %s. Next: python test.py --config %s --weight %s",
                best,
                self.folder / "results.png",
                self.folder / "config.yaml",
                self.best_path if self.best_epoch >= 0 else self.last_path,
            )
        result = TrainResult(self.folder, self.best_epoch, self.best_fitness, self.last_row)
        self.callbacks.on_train_end(result)
        return result

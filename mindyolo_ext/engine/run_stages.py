"""What changes with the stages of a training run: its loader, its loss and its compiled step."""

import logging

import numpy as np

from mindyolo_ext.backend import tuning
from mindyolo_ext.backend.launch import world
from mindyolo_ext.backend.parameters import parameter_groups
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep
from mindyolo_ext.config import Config
from mindyolo_ext.contracts import Model, Trainable
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.engine.build import new_trainable, training_pipeline
from mindyolo_ext.engine.datasets import worker_count
from mindyolo_ext.engine.in_force import loss_scaler_in_force
from mindyolo_ext.engine.rectangular import without_mosaics
from mindyolo_ext.engine.run_parts import check_losses, most_boxes, training_rectangles
from mindyolo_ext.engine.schedule import Schedule, weight_decay
from mindyolo_ext.engine.stages import stage_at

logger = logging.getLogger(__name__)


class RunStages:
    """Loader, trainable, schedule and compiled step of the current stage; ``enter`` builds them.

    Args:
        teacher: network that the trainable learns from.

    Raises: ConfigError if the loss of any stage does not fit the network.
    """

    def __init__(self, config: Config, model: Model, teacher: Model | None, dataset: Dataset):
        self.config, self.model, self.teacher, self.dataset = config, model, teacher, dataset
        check_losses(config, model, teacher)
        self.max_boxes = most_boxes(config, model, dataset)
        self.rectangles = training_rectangles(config, model, dataset)
        self.loader: Loader | None = None
        self.step: TrainStep | None = None
        self.trainable: Trainable | None = None
        self.schedule: Schedule | None = None
        self.loss: dict | None = None
        self.augment: list | None = None
        self.optimizer_state: dict[str, np.ndarray] = {}  # for the next step that is built
        self.compiled_shapes: set[tuple[int, ...]] = set()

    def enter(self, epoch: int) -> bool:
        """Rebuild loader and compiled step if the stage of this epoch changes them, and return
        whether other images than in the epoch before come from now on.
        """
        others = False
        loss, augment = stage_at(self.config, epoch)
        if augment != self.augment:
            self.close()
            self.loader, self.augment = self._new_loader(augment), augment
            others = epoch == 0 or stage_at(self.config, epoch - 1)[1] != augment
        if loss != self.loss:
            if self.step is not None:
                self.optimizer_state = self.step.state()
            self.step, self.loss = self._new_step(loss), loss
        return others

    def close(self) -> None:
        """Stop the loader's workers."""
        if self.loader is not None:
            self.loader.close()

    def _new_loader(self, augment: list) -> Loader:
        settings, data, ranks = self.config.train, self.config.data, world()
        if settings.rectangular:
            augment = without_mosaics(augment)
        pipeline = training_pipeline(
            augment, self.model.input_spec, self.dataset, seed=settings.seed
        )
        return Loader(
            pipeline,
            batch_size=settings.per_batch_size,
            max_boxes=self.max_boxes,
            shuffle=self.rectangles is None,
            order=None if self.rectangles is None else self.rectangles.order,
            drop_last=True,
            seed=settings.seed,
            rank=ranks.rank,
            world_size=ranks.size,
            workers=worker_count(self.config, ranks.local_size),
            worker_kind=data.worker_kind,
            opencv_threads=data.opencv_threads,
            pixels="uint8",
        )

    def _new_step(self, loss: dict) -> TrainStep:
        settings = self.config.train
        self.trainable = new_trainable(self.model, loss, self.teacher)
        if settings.compile:
            tuning.compile_cells(self.trainable)
        optimizer, global_batch = settings.optimizer, settings.per_batch_size * world().size
        decay = weight_decay(optimizer, global_batch)
        groups = parameter_groups(self.trainable, optimizer.groups, decay)
        self.schedule = Schedule(
            optimizer,
            settings.schedule,
            steps_per_epoch=self.loader.steps_per_epoch,
            epochs=settings.epochs,
            groups=[g.name for g in groups],
            global_batch=global_batch,
        )
        if optimizer.nominal_batch and world().is_main:
            logger.info(
                "nominal batch %d: %d batch(es) of %d per update, weight decay %.6g",
                optimizer.nominal_batch,
                self.schedule.accumulate,
                global_batch,
                decay,
            )
        options = OptimizerOptions(
            name=optimizer.name,
            nesterov=optimizer.nesterov,
            betas=tuple(optimizer.betas),
            momentum_is_beta1=self.schedule.cycles_momentum,
            accumulate=self.schedule.accumulate,
            clip_norm=optimizer.clip_norm,
            ema=settings.ema_decay > 0,
            loss_scaler=loss_scaler_in_force(settings),
            loss_scale=settings.loss_scale,
        )
        step = TrainStep(self.trainable, groups, options, input_spec=self.model.input_spec)
        if self.optimizer_state:
            step.load_state(self.optimizer_state)
            self.optimizer_state = {}
        self.compiled_shapes.clear()
        return step

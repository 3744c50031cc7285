"""Build the parts of a training run from its recipe: network, teacher, loader, compiled step."""

import logging
from collections.abc import Mapping

import numpy as np

from mindyolo_ext.backend import precision, recompute, tuning
from mindyolo_ext.backend.distributed import freeze_batch_norm, synchronize_batch_norm
from mindyolo_ext.backend.parameters import freeze, parameter_groups
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep
from mindyolo_ext.contracts import Model
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.data.rectangles import RectangularEpochs
from mindyolo_ext.data.targets import padded_count
from mindyolo_ext.engine.build import (
    has_folded_norms,
    load_teacher,
    new_model,
    new_trainable,
    start_from,
    training_pipeline,
)
from mindyolo_ext.engine.datasets import worker_count
from mindyolo_ext.engine.in_force import loss_scaler_in_force
from mindyolo_ext.engine.rectangular import rectangular_epochs, without_mosaics
from mindyolo_ext.engine.schedule import Schedule, weight_decay
from mindyolo_ext.engine.stages import all_augmentations, all_losses, stage_at

logger = logging.getLogger(__name__)


class RunParts:
    """Build the parts of a run; ``RunStart`` sets the attributes that the methods read."""

    def _build_model(self, start: Mapping[str, np.ndarray] | None) -> Model:
        """Create the network with its start weights, frozen parts and type of batch norm."""
        settings = self.config.train
        model = new_model(self.config, self.num_classes)
        if start is not None:
            start_from(model, settings.weight, start)
            if has_folded_norms(model) and not settings.freeze_bn:
                logger.warning(
                    "%s: its batch norms are identities (folded into the kernels); batch "
                    "statistics would destroy what it has learned. Set train.freeze_bn=true",
                    settings.weight,
                )
        if settings.freeze:
            logger.info("%d parameters are frozen", freeze(model, settings.freeze))
        if settings.freeze_bn:
            freeze_batch_norm(model)
        elif settings.sync_bn and self.world.size > 1:
            logger.info(
                "%d batch norms are synchronized over %d ranks",
                synchronize_batch_norm(model),
                self.world.size,
            )
        precision.apply(model, settings.amp_level, settings.amp_dtype)
        if settings.channels_last:
            tuning.use_channels_last(model)
        if settings.recompute:
            logger.info("%d stages are recomputed in backward passes", recompute.apply(model))
        return model

    def _load_teacher(self) -> Model | None:
        """Load the network that the trainable learns from, if the recipe names one."""
        settings = self.config.train
        if not settings.distill.teacher:
            return None
        teacher = load_teacher(settings.distill.teacher, self.model, self.dataset)
        if settings.sync_bn and not settings.freeze_bn and self.world.size > 1:
            synchronize_batch_norm(teacher)
        if settings.freeze_bn:
            freeze_batch_norm(teacher)
        precision.apply(teacher, settings.amp_level, settings.amp_dtype)
        if settings.channels_last:
            tuning.use_channels_last(teacher)
        return teacher

    def _largest_sample(self) -> int:
        """M over all stages, so that no stage changes the shape of a batch."""
        most = max(
            training_pipeline(steps, self.model.input_spec, self.dataset).max_boxes
            for steps in all_augmentations(self.config)
        )
        return padded_count(most)

    def _rectangles(self) -> RectangularEpochs | None:
        """The batches of a rectangular training; None without ``train.rectangular``."""
        settings = self.config.train
        if not settings.rectangular:
            return None
        batch = settings.per_batch_size * self.world.size
        return rectangular_epochs(self.dataset, settings, self.model.input_spec, batch)

    def _check_losses(self) -> None:
        """Validate every stage's loss up front. Raises: ConfigError."""
        for loss in all_losses(self.config):
            new_trainable(self.model, loss, self.teacher)

    def enter_stage(self, epoch: int) -> None:
        """Rebuild loader and compiled step if the stage of this epoch changes them."""
        loss, augment = stage_at(self.config, epoch)
        if augment != self.stage_augment:
            if self.loader is not None:
                self.loader.close()
            self.loader, self.stage_augment = self._build_loader(augment), augment
            if epoch == 0 or stage_at(self.config, epoch - 1)[1] != augment:
                self.pictures.expect_batches(epoch)
        if loss != self.stage_loss:
            if self.step is not None:
                self.pending_state = self.step.state()
            self.step, self.stage_loss = self._build_step(loss), loss

    def _build_loader(self, augment: list) -> Loader:
        settings, data = self.config.train, self.config.data
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
            rank=self.world.rank,
            world_size=self.world.size,
            workers=worker_count(self.config, self.world.local_size),
            worker_kind=data.worker_kind,
            opencv_threads=data.opencv_threads,
            pixels="uint8",
        )

    def _build_step(self, loss: dict) -> TrainStep:
        settings = self.config.train
        self.trainable = new_trainable(self.model, loss, self.teacher)
        if settings.compile:
            tuning.compile_cells(self.trainable)
        optimizer, global_batch = settings.optimizer, settings.per_batch_size * self.world.size
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
        if optimizer.nominal_batch and self.world.is_main:
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
        if self.pending_state:
            step.load_state(self.pending_state)
            self.pending_state = {}
        self.compiled_shapes.clear()
        return step

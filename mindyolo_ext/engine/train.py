"""The training run: read it from top to bottom.

A run is a pure function of recipe, data and seed: the order of pictures depends on (seed, epoch),
every augmentation on (seed, epoch, picture), every rate on the iteration. So a checkpoint needs
only weights, optimiser state and the epoch for a resumed run to equal an uninterrupted one.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mindyolo_ext import progress
from mindyolo_ext.atomic import replacing, write_text
from mindyolo_ext.backend import BACKEND, precision, recompute, tuning
from mindyolo_ext.backend.distributed import (
    barrier,
    check_same_weights,
    freeze_batch_norm,
    sum_over_ranks,
    synchronize_batch_norm,
)
from mindyolo_ext.backend.launch import world
from mindyolo_ext.backend.memory import peak_memory
from mindyolo_ext.backend.parameters import (
    freeze,
    load_parameters,
    parameter_groups,
    parameter_values,
)
from mindyolo_ext.backend.train_step import OptimizerOptions, Tally, TrainStep
from mindyolo_ext.checkpoint.names import COUNTER, STATE_PREFIX
from mindyolo_ext.checkpoint.store import (
    SUFFIXES,
    CheckpointMetadata,
    load_checkpoint,
    save_checkpoint,
)
from mindyolo_ext.config import Config, TrainConfig
from mindyolo_ext.contracts import Model, NetworkPredictor, StepClock, Stepped
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.data.readiness import require_ready
from mindyolo_ext.data.rectangles import RectangularEpochs
from mindyolo_ext.data.targets import padded_count
from mindyolo_ext.data.types import Batch
from mindyolo_ext.engine.advice import advise
from mindyolo_ext.engine.build import (
    has_folded_norms,
    load_teacher,
    new_model,
    new_trainable,
    split_dataset,
    start_from,
    training_pipeline,
    worker_count,
)
from mindyolo_ext.engine.callbacks import Callback, Callbacks, StepEnd, TrainStart
from mindyolo_ext.engine.check import check_recipe, on_this_backend
from mindyolo_ext.engine.classes import as_in_training, start_order
from mindyolo_ext.engine.evaluate import EvalResult, evaluate
from mindyolo_ext.engine.in_force import loss_scaler_in_force, text_in_force
from mindyolo_ext.engine.keeping import KeptCheckpoints, is_out_of_patience
from mindyolo_ext.engine.loggers import check_loggers, logger_callbacks
from mindyolo_ext.engine.memory_estimate import tell_memory
from mindyolo_ext.engine.pace import Pace
from mindyolo_ext.engine.rectangular import rectangular_epochs, without_mosaics
from mindyolo_ext.engine.results import ResultsFile
from mindyolo_ext.engine.resume import PreviousRun
from mindyolo_ext.engine.routing import new_predictor
from mindyolo_ext.engine.run_folder import locked
from mindyolo_ext.engine.run_log import RunLog, run_log
from mindyolo_ext.engine.run_pictures import RunPictures
from mindyolo_ext.engine.schedule import Schedule, ema_decay, weight_decay
from mindyolo_ext.engine.stages import all_augmentations, all_losses, is_evaluated, stage_at
from mindyolo_ext.engine.telling import (
    doubt_best,
    in_words,
    seconds_left,
    tell_epoch,
    tell_evaluation,
)
from mindyolo_ext.engine.validation_loss import ValidationLoss
from mindyolo_ext.errors import (
    ConfigError,
    ExistingFileError,
    MissingFileError,
    TrainingError,
)
from mindyolo_ext.evaluation.coco_backends import check_backend
from mindyolo_ext.visual.curves import plot_results

logger = logging.getLogger(__name__)
WEIGHTS = STATE_PREFIX + "weights."  # raw weights beside the moving average
OPTIMIZER = STATE_PREFIX + "optimizer."


@dataclass(frozen=True)
class TrainResult:
    """Where the run's files lie, and the best value of ``train.best_metric``."""

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


def train(
    config: Config,
    save_dir: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a recipe in this process's world; ``backend.launch.start`` comes first.

    Args:
        save_dir: folder of the run: weights/, results.csv, results.png, config.yaml, in_force.yaml,
            run.log.
        resume: go on from ``save_dir/weights/last.ckpt``, or ``.safetensors`` as the recipe says.
        callbacks: programs that watch, see ``engine.callbacks``; those of ``train.loggers`` come
            after them.

    Raises: ConfigError for a recipe that does not fit its data, ExistingFileError if ``save_dir``
        holds a run and ``resume`` is False, TrainingError if the gradients stay not finite.
    """
    is_main = world().is_main
    with locked(save_dir) if is_main else nullcontext(), run_log(wanted=is_main) as log:
        run = _Run(config, save_dir, resume, log)
        if run.is_over:
            return TrainResult(save_dir, run.best_epoch, run.best_fitness, {})
        with run.watched(callbacks):
            for epoch in range(run.first_epoch, config.train.epochs):
                run.enter_stage(epoch)
                run.train_epoch(epoch)
                evaluation = run.evaluate_epoch(epoch)
                run.finish_epoch(epoch, evaluation)
                if run.stops_after(epoch):
                    break
            return run.close()


class _Run:
    """State of a training run; one method per part of an epoch."""

    def __init__(self, config: Config, folder: Path, resume: bool, log: RunLog | None = None):
        self.folder, self.world, self.log = folder, world(), log
        suffix = "." + config.train.checkpoint_format
        self.last_path = folder / "weights" / f"last{suffix}"
        self.best_path = folder / "weights" / f"best{suffix}"
        config = on_this_backend(config)
        self._check_folder(resume)
        check_recipe(config)
        before = PreviousRun(self.last_path) if resume else None
        weight = config.train.weight if before is None else ""
        start = load_checkpoint(weight) if weight else None
        self.config = config if before is None else before.with_class_order(config)
        self._read_data(start and start[1])
        if config.train.run_eval:
            check_backend(config.eval.backend)
        check_loggers(config.train.loggers)
        self.model = self._build_model(start and start[0])
        self.names = {id(p): name for name, p in self.model.parameters_and_names()}
        self.teacher = self._load_teacher()
        self._check_losses()
        self.max_boxes = config.data.max_boxes or self._largest_sample()
        self.rectangles = self._rectangles()
        self.predictor: NetworkPredictor | None = None
        self.loader: Loader | None = None
        self.step: TrainStep | None = None
        self.stage_loss: dict | None = None
        self.stage_augment: list | None = None
        self.first_epoch, self.best_epoch, self.best_fitness = 0, -1, -1.0
        self.updates, self.bad_steps = 0, 0
        self.callbacks = Callbacks()
        self.pictures = RunPictures(folder, self.dataset, wanted=config.train.pictures)
        self.validation_loss: ValidationLoss | None = None
        if config.train.val_loss and self.validation is not None:
            self.validation_loss = ValidationLoss(self.config, self.validation)
        self.kept = KeptCheckpoints(self.last_path.parent, config.train)
        self.pace = Pace(config.train.per_batch_size * self.world.size)
        self.evaluation_seconds: float | None = None
        self.stop_reason, self.saved_epoch = "", -1
        self.losses: dict[str, float] = {}  # of the last epoch, as its metrics
        self.metrics: dict[str, float] = {}
        self.last_evaluation: EvalResult | None = None
        self.last_row: dict[str, float] = {}
        self.compiled_shapes: set[tuple[int, ...]] = set()
        self.pending_state: dict[str, np.ndarray] = {}
        if before is not None:
            self._resume(before)
        if self.world.is_main and not self.is_over:
            self._open_files()
        check_same_weights(self.model)
        barrier()

    @property
    def is_over(self) -> bool:
        """Whether the checkpoint that the run goes on from is its last one."""
        last = self.first_epoch - 1
        return self.first_epoch >= self.config.train.epochs or self._is_out_of_patience(last)

    def _is_out_of_patience(self, epoch: int) -> bool:
        return is_out_of_patience(self.config.train, epoch, self.best_epoch, self.best_fitness)

    @contextmanager
    def watched(self, callbacks: Sequence[Callback]) -> Iterator[None]:
        """Tell ``callbacks``, and those of the recipe's loggers, what happens in the block."""
        if self.world.is_main:
            loggers = logger_callbacks(self.config.train.loggers)
            self.callbacks = Callbacks([*callbacks, *loggers])
        try:
            self.enter_stage(self.first_epoch)
            if self.world.is_main:
                self._announce()
            self.callbacks.on_train_start(
                TrainStart(
                    self.folder,
                    self.config,
                    tuple(self.dataset.class_names),
                    self.first_epoch,
                    self.loader.steps_per_epoch,
                )
            )
            yield
        except BaseException as error:
            self.callbacks.close(error)
            raise
        self.callbacks.close(None)

    # ---- beginning -------------------------------------------------------------------------------

    def _check_folder(self, resume: bool) -> None:
        """Raises: ExistingFileError or MissingFileError if there is, or is not, a run to go on."""
        weights = self.last_path.parent
        found = [weights / f"last{s}" for s in SUFFIXES if (weights / f"last{s}").exists()]
        if not resume and found:
            raise ExistingFileError(
                f"{self.folder} already holds a run; go on with --resume, or choose another "
                "--save_dir"
            )
        if resume and not self.last_path.is_file():
            other = (
                f" (but {found[0].name} does: --set train.checkpoint_format={found[0].suffix[1:]})"
                if found
                else ""
            )
            raise MissingFileError(
                f"--resume: {self.last_path} does not exist{other}; nothing to go on from. Without "
                "--resume a new run begins"
                + ("" if self.world.is_main else ". Every machine of a run reads that file")
            )

    def _read_data(self, start: CheckpointMetadata | None) -> None:
        """Read both data sets in one order of classes, that of the checkpoint to start from if it
        has the same ones.
        """
        data = self.config.data
        self.dataset = split_dataset(self.config, "train")
        self.num_classes = data.num_classes or len(self.dataset.class_names)
        if self.num_classes != len(self.dataset.class_names):
            raise ConfigError(
                f"config: data.num_classes is {self.num_classes}, but data.train has "
                f"{len(self.dataset.class_names)} classes"
            )
        if start is not None:
            names = start_order(start.class_names, self.dataset, self.config)
            self.config = replace(self.config, data=replace(data, class_names=names))
            self.dataset = self.dataset.with_classes(names or self.dataset.class_names)
        self.validation = None
        if self.config.train.run_eval:
            self.validation = as_in_training(split_dataset(self.config, "val"), self.dataset)
        require_ready(self.dataset, self.validation)

    def _open_files(self) -> None:
        """Write the recipe, and read or begin the table of results and the log."""
        write_text(self.folder / "config.yaml", self.config.to_yaml())
        if self.log is not None:
            self.log.open(self.folder)
        shown = text_in_force(
            self.config,
            self.model,
            self.dataset.class_names,
            max_boxes=self.max_boxes,
            global_batch=self.config.train.per_batch_size * self.world.size,
        )
        write_text(self.folder / "in_force.yaml", shown)
        logger.info("recipe, with the values in force:\n%s", shown)
        self.results = ResultsFile(self.folder / "results.csv", self.first_epoch)
        self.kept.remove_later(self.first_epoch)
        logger.info("%s", self._summary())

    # ---- building --------------------------------------------------------------------------------

    def _build_model(self, start: Mapping[str, np.ndarray] | None) -> Model:
        """Network with start weights, frozen parts and the wanted kind of batch norm."""
        settings = self.config.train
        model = new_model(self.config, self.num_classes)
        if start is not None:
            start_from(model, settings.weight, start)
            if has_folded_norms(model) and not settings.freeze_bn:
                logger.warning(
                    "%s: its batch norms are identities (folded into the kernels); training with "
                    "the statistics of a batch would start from nothing. Set train.freeze_bn=true",
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
            logger.info("%d stages are computed again in backward passes", recompute.apply(model))
        return model

    def _load_teacher(self) -> Model | None:
        """The network that the trainable learns from, if the recipe names one."""
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

    def _announce(self) -> None:
        """What is to be known before the first step."""
        advise(
            self.config,
            self.schedule,
            images=len(self.dataset),
            steps_per_epoch=self.loader.steps_per_epoch,
            world_size=self.world.size,
        )
        tell_memory(self.config, self.num_classes)
        if not self.first_epoch:
            self.pictures.labels()

    def _rectangles(self) -> RectangularEpochs | None:
        """The batches of a rectangular training."""
        settings = self.config.train
        if not settings.rectangular:
            return None
        batch = settings.per_batch_size * self.world.size
        return rectangular_epochs(self.dataset, settings, self.model.input_spec, batch)

    def _check_losses(self) -> None:
        """Validate every stage's loss up front. Raises: ConfigError."""
        for loss in all_losses(self.config):
            new_trainable(self.model, loss, self.teacher)

    def _summary(self) -> str:
        settings = self.config.train
        count = sum(int(np.prod(p.shape)) for p in self.model.trainable_params())
        size = self.model.input_spec.size
        return (
            f"{self.config.model.name}: {count:,} trainable parameters, {self.num_classes} "
            f"classes, input {size[0]}x{size[1]}; {len(self.dataset)} training pictures, up to "
            f"{self.max_boxes} boxes; {BACKEND}, {self.world.size} rank(s) ({self.world.launcher}) "
            f"x batch {settings.per_batch_size}; epochs {self.first_epoch + 1}..{settings.epochs}; "
            f"writing to {self.folder}"
        )

    def enter_stage(self, epoch: int) -> None:
        """Build loader and compiled step where this epoch's stage wants others than the last
        one's.
        """
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
            workers=worker_count(self.config),
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

    def _resume(self, before: PreviousRun) -> None:
        """Put weights, optimiser and counters back as the last checkpoint holds them."""
        before.check_goes_on(self.config, self.model, self.dataset.class_names)
        values, metadata, state = before.values, before.metadata, before.state
        raw = {n[len(WEIGHTS) :]: v for n, v in values.items() if n.startswith(WEIGHTS)}
        plain = {n: v for n, v in values.items() if not n.startswith(STATE_PREFIX)}
        load_parameters(self.model, raw or plain)
        self.pending_state = {
            n[len(OPTIMIZER) :]: v for n, v in values.items() if n.startswith(OPTIMIZER)
        }
        self.first_epoch, self.updates = metadata.epoch + 1, state["updates"]
        self.best_epoch, self.best_fitness = state["best_epoch"], state["best_fitness"]
        self.kept = KeptCheckpoints(
            self.last_path.parent, self.config.train, state.get("kept_checkpoints")
        )
        if (
            state["world_size"] != self.world.size
            or state["per_batch_size"] != self.config.train.per_batch_size
        ):
            logger.warning(
                "resuming with %d rank(s) x batch %d, the run had %d x %d: it goes on, but not bit "
                "for bit",
                self.world.size,
                self.config.train.per_batch_size,
                state["world_size"],
                state["per_batch_size"],
            )
        here, before = BACKEND, state.get("backend", "mindspore")
        if here != before:
            logger.warning(
                "resuming on %s, the run was on %s: it goes on, but not bit for bit", here, before
            )
        if self.first_epoch >= self.config.train.epochs:
            logger.info(
                "%s: all epochs are done (%d, and train.epochs is %d); nothing is left to do. To "
                "train on, start a new run from it: --weight %s and another --save_dir",
                self.folder,
                self.first_epoch,
                self.config.train.epochs,
                self.last_path,
            )
        elif self.is_over:
            logger.info(
                "%s: stopped early after epoch %d, train.patience (%d) epochs after the best one; "
                "nothing is left to do. To train on: --resume --set train.patience=0, or more",
                self.folder,
                self.first_epoch,
                self.config.train.patience,
            )
        else:
            logger.info("resuming after epoch %d of %s", self.first_epoch, self.last_path)

    # ---- one epoch -------------------------------------------------------------------------------

    def train_epoch(self, epoch: int) -> None:
        """Every batch once; ``losses`` are the means of the epoch."""
        settings, steps = self.config.train, self.loader.steps_per_epoch
        first_step = epoch * steps
        self.callbacks.on_epoch_start(epoch)
        title = f"epoch {epoch + 1}/{settings.epochs}"
        if settings.optimizer.accumulate_within_epoch:
            self.step.drop_accumulated()
        self.step.begin_tally(self.bad_steps)
        self.pace = Pace(settings.per_batch_size * self.world.size)
        with progress.bar(total=steps, title=title, show=self.world.is_main) as shown:
            for k, batch in enumerate(self.pace.waiting_for(self._batches(epoch))):
                if self.world.is_main:
                    self.pictures.batch(batch, self.model.input_spec)
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
                    self.callbacks.on_step_end(StepEnd(epoch, first_step + k + 1, values))
        self.step.share_statistics()
        means = tally.sums / steps
        names = ("loss", "gradient_norm", "finite", "loss_scale", *self.trainable.term_names)
        row = {name: float(value) for name, value in zip(names, means)}
        row["lr"] = float(self.schedule.rates(first_step + steps - 1)[0])
        row["seconds"], row["seconds_waiting_for_data"] = self.pace.seconds, self.pace.waited
        self.losses = row

    def _batches(self, epoch: int) -> Iterator[Batch]:
        settings = self.config.train
        if self.rectangles is not None:
            return self.loader.epoch(epoch, self.rectangles.inputs(epoch).__getitem__)
        if not settings.multi_scale:
            return self.loader.epoch(epoch)
        return self.loader.epoch(
            epoch, lambda k: multi_scale_size(settings, epoch * self.loader.steps_per_epoch + k)
        )

    def _take_step(self, batch: Batch, iteration: int) -> bool:
        """Have the compiled step run; returns whether it had to be compiled. Nothing is read from
        the device, so that it works on while the host gets the next batch and puts it into the
        queue.
        """
        settings = self.config.train
        update = self.schedule.updates_at(iteration)
        decay = ema_decay(settings, self.updates + 1, done=(iteration + 1) / self.schedule.total)
        rates = np.array(self.schedule.rates(iteration), np.float32)
        controls = np.array(
            [self.schedule.momentum_at(iteration), float(update), decay], np.float32
        )
        if isinstance(self.trainable, Stepped):
            self.trainable.begin_step(
                StepClock(
                    iteration,
                    iteration // self.loader.steps_per_epoch,
                    settings.epochs,
                    settings.seed,
                    self.world.rank,
                    images=batch.images.shape[0] * self.world.size,
                )
            )
        first = batch.images.shape not in self.compiled_shapes
        with progress.compiling(
            f"the training step for {batch.size[0]}x{batch.size[1]}",
            show=first and self.world.is_main,
            done="compiled and ran",
        ):
            self.step.take(batch.images, batch.targets, batch.mask, rates, controls)
        self.compiled_shapes.add(batch.images.shape)
        self.updates += int(update)
        return first

    def _read_tally(self, batch: Batch, iteration: int) -> Tally:
        """What came of the epoch's steps so far. Raises: TrainingError if too many in a row were
        not finite.
        """
        tally = self.step.tally()
        self.bad_steps = tally.bad_steps
        if tally.most_bad_steps > self.config.train.max_bad_steps:
            raise TrainingError(
                f"iteration {iteration}: loss or gradient were not finite in "
                f"{tally.most_bad_steps} steps in a row (weights were left as they were). Last "
                f"pictures: {', '.join(batch.paths[:2])}. Try a lower train.optimizer.lr, "
                f"train.optimizer.clip_norm=10, or a longer warm-up; {self.last_path} holds the "
                "last finished epoch"
            )
        return tally

    def _step_values(self, report: np.ndarray, iteration: int) -> dict[str, float]:
        """What people and callbacks see of a step."""
        values = {"loss": float(report[0])}
        values |= {n: float(v) for n, v in zip(self.trainable.term_names, report[4:])}
        values["lr"] = float(self.schedule.rates(iteration)[0])
        return values | self._speed()

    def _speed(self) -> dict[str, float]:
        """Images per second, share of waiting and, where the framework tells it, memory."""
        peak = peak_memory()
        memory = {} if peak is None else {"device_memory_gib": peak / 2**30}
        return self.pace.values() | memory

    # ---- evaluation and files --------------------------------------------------------------------

    def evaluate_epoch(self, epoch: int) -> EvalResult | None:
        """Metrics of the moving average (or the weights), where this epoch is to be evaluated."""
        if self.validation is None or not is_evaluated(self.config.train, epoch):
            return None
        probe = new_model(self.config, self.num_classes)
        load_parameters(probe, self._evaluation_weights())
        probe.set_train(False)
        if self.predictor is None:
            settings = self.config.eval
            self.predictor = new_predictor(probe, fold=settings.fold, dy_thres=settings.dy_thres)
        else:
            self.predictor.update(probe)
        begin = time.perf_counter()
        result = evaluate(
            self.predictor,
            self.validation,
            self.config.eval,
            workers=worker_count(self.config),
            worker_kind=self.config.data.worker_kind,
            class_names=self.validation.class_names,  # in the order of the training
        )
        if self.validation_loss is not None:
            weights, loss = parameter_values(probe), self.stage_loss
            self.losses |= self.validation_loss.compute(weights, loss, epoch=epoch)
        self.evaluation_seconds = time.perf_counter() - begin
        self.callbacks.on_evaluate_end(epoch, result)
        return result

    def _evaluation_weights(self) -> dict[str, np.ndarray]:
        """Moving average where there is one, else the weights, by the model's names."""
        values = parameter_values(self.model)
        averages = self.step.ema_values()
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
                self.pictures.predictions(epoch, evaluation, self.validation)
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
        """The line on an epoch, and one on its evaluation."""
        settings, names = self.config.train, ("loss", *self.trainable.term_names, "lr")
        left = seconds_left(
            settings,
            epoch,
            seconds_per_step=self.pace.seconds_per_step,
            steps_per_epoch=self.loader.steps_per_epoch,
            seconds_per_evaluation=self.evaluation_seconds,
        )
        shown = {name: self.losses[name] for name in names} | self._speed()
        tell_epoch(settings, epoch, shown, seconds=self.losses["seconds"], left=left)
        if values:
            tell_evaluation(settings, epoch, values, (self.best_epoch, self.best_fitness))

    def _save_last(self, weights: dict[str, np.ndarray], metadata: CheckpointMetadata) -> None:
        """Write everything that a resume needs."""
        settings = self.config.train
        state = {OPTIMIZER + n: v for n, v in self.step.state().items()}
        raw = (
            {WEIGHTS + n: v for n, v in parameter_values(self.model).items()}
            if settings.ema_decay > 0
            else {}
        )
        training = {
            "updates": self.updates,
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
        """Whether patience is over or a callback wants to stop, the same on every rank."""
        wish = self.callbacks.on_epoch_end(epoch, {**self.last_row, **self._speed()})
        if self.world.is_main and wish and not self.stop_reason:
            self.stop_reason = "a callback asked for it"
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
            # what PyTorch's batch norms would have counted
            extra={COUNTER: self.updates},
        )

    def close(self) -> TrainResult:
        """Stop the workers and wait for the other ranks."""
        if self.loader is not None:
            self.loader.close()
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


def multi_scale_size(settings: TrainConfig, iteration: int) -> tuple[int, int]:
    """Network size of an iteration, the same on every rank and after a resume."""
    rng = np.random.default_rng((settings.seed, iteration // max(settings.multi_scale_interval, 1)))
    side = int(rng.choice(settings.multi_scale))
    return side, side

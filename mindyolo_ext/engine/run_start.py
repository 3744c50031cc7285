"""The start of a training run: its folder, its data, and the checkpoint that it continues."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from mindyolo_ext.atomic import write_text
from mindyolo_ext.backend import BACKEND
from mindyolo_ext.backend.distributed import barrier, check_same_weights
from mindyolo_ext.backend.launch import world
from mindyolo_ext.backend.parameters import load_parameters
from mindyolo_ext.checkpoint.names import STATE_PREFIX
from mindyolo_ext.checkpoint.store import SUFFIXES, CheckpointMetadata, load_checkpoint
from mindyolo_ext.config import Config
from mindyolo_ext.data.readiness import require_ready
from mindyolo_ext.engine.advice import advise
from mindyolo_ext.engine.build import split_dataset
from mindyolo_ext.engine.callbacks import Callback, Callbacks, TrainStart
from mindyolo_ext.engine.check import check_recipe, on_this_backend
from mindyolo_ext.engine.classes import as_in_training, start_order
from mindyolo_ext.engine.evaluate import EvalResult
from mindyolo_ext.engine.in_force import text_in_force
from mindyolo_ext.engine.keeping import KeptCheckpoints, is_out_of_patience
from mindyolo_ext.engine.loggers import check_loggers, logger_callbacks
from mindyolo_ext.engine.memory_estimate import tell_memory
from mindyolo_ext.engine.results import ResultsFile
from mindyolo_ext.engine.resume import PreviousRun
from mindyolo_ext.engine.run_epoch import EpochSteps
from mindyolo_ext.engine.run_evaluation import RunEvaluation
from mindyolo_ext.engine.run_log import RunLog
from mindyolo_ext.engine.run_parts import training_model, training_teacher
from mindyolo_ext.engine.run_pictures import RunPictures
from mindyolo_ext.engine.run_stages import RunStages
from mindyolo_ext.errors import ConfigError, ExistingFileError, MissingFileError
from mindyolo_ext.evaluation.coco_backends import check_backend
from mindyolo_ext.evaluation.confusion import warn_without_supervision

logger = logging.getLogger(__name__)
WEIGHTS = STATE_PREFIX + "weights."  # raw weights beside the moving average
OPTIMIZER = STATE_PREFIX + "optimizer."


class RunStart:
    """State of a run, and everything before its first step."""

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
        self.model = training_model(self.config, self.num_classes, start and start[0])
        teacher = training_teacher(self.config, self.model, self.dataset)
        self.stages = RunStages(self.config, self.model, teacher, self.dataset)
        self.first_epoch, self.best_epoch, self.best_fitness = 0, -1, -1.0
        self.callbacks = Callbacks()
        self.pictures = RunPictures(folder, self.dataset, wanted=config.train.pictures)
        self.steps = EpochSteps(self.config, self.stages, self.pictures, self.last_path)
        self.kept = KeptCheckpoints(self.last_path.parent, config.train)
        self.stop_reason, self.saved_epoch = "", -1
        self.losses: dict[str, float] = {}  # of the last epoch, as its metrics
        self.metrics: dict[str, float] = {}
        self.last_evaluation: EvalResult | None = None
        self.last_row: dict[str, float] = {}
        if before is not None:
            self._resume(before)
        if self.world.is_main and not self.is_over:
            self._open_files()
        check_same_weights(self.model)
        barrier()

    @property
    def is_over(self) -> bool:
        """Whether the checkpoint to resume from is already the last one of the run."""
        last = self.first_epoch - 1
        return self.first_epoch >= self.config.train.epochs or self._is_out_of_patience(last)

    def _is_out_of_patience(self, epoch: int) -> bool:
        return is_out_of_patience(self.config.train, epoch, self.best_epoch, self.best_fitness)

    def enter_stage(self, epoch: int) -> None:
        """Rebuild what the stage of this epoch changes."""
        if self.stages.enter(epoch):
            self.pictures.expect_batches(epoch)

    @contextmanager
    def watched(self, callbacks: Sequence[Callback]) -> Iterator[None]:
        """Call ``callbacks`` and those of the recipe's loggers during the block."""
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
                    self.stages.loader.steps_per_epoch,
                )
            )
            yield
        except BaseException as error:
            self.callbacks.close(error)
            raise
        self.callbacks.close(None)

    def _check_folder(self, resume: bool) -> None:
        """Raises: ExistingFileError or MissingFileError if ``resume`` does not fit the folder."""
        weights = self.last_path.parent
        found = [weights / f"last{s}" for s in SUFFIXES if (weights / f"last{s}").exists()]
        if not resume and found:
            raise ExistingFileError(
                f"{self.folder} already holds a run; continue it with --resume, or choose another "
                "--save_dir"
            )
        if resume and not self.last_path.is_file():
            other = (
                f" (but {found[0].name} does: --set train.checkpoint_format={found[0].suffix[1:]})"
                if found
                else ""
            )
            raise MissingFileError(
                f"--resume: {self.last_path} does not exist{other}; nothing to continue from. "
                "Without --resume a new run begins"
                + ("" if self.world.is_main else ". Every machine of a run reads that file")
            )

    def _read_data(self, start: CheckpointMetadata | None) -> None:
        """Read both data sets with the same order of classes: that of the start checkpoint if it
        has the same classes.
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
        self.evaluation, validation = None, None
        if self.config.train.run_eval:
            validation = as_in_training(split_dataset(self.config, "val"), self.dataset)
            self.evaluation = RunEvaluation(self.config, validation)
        require_ready(self.dataset, validation)

    def _open_files(self) -> None:
        """Write the recipe, and open the table of results and the log."""
        write_text(self.folder / "config.yaml", self.config.to_yaml())
        if self.log is not None:
            self.log.open(self.folder)
        shown = text_in_force(
            self.config,
            self.model,
            self.dataset.class_names,
            max_boxes=self.stages.max_boxes,
            global_batch=self.config.train.per_batch_size * self.world.size,
        )
        write_text(self.folder / "in_force.yaml", shown)
        logger.info("recipe with all values in force:\n%s", shown)
        self.results = ResultsFile(self.folder / "results.csv", self.first_epoch)
        self.kept.remove_later(self.first_epoch)
        if self.config.train.pictures and self.evaluation is not None:
            warn_without_supervision()
        logger.info("%s", self._summary())

    def _announce(self) -> None:
        """Log everything to know before the first step."""
        advise(
            self.config,
            self.stages.schedule,
            images=len(self.dataset),
            steps_per_epoch=self.stages.loader.steps_per_epoch,
            world_size=self.world.size,
        )
        tell_memory(self.config, self.num_classes)
        if not self.first_epoch:
            self.pictures.labels()

    def _summary(self) -> str:
        settings = self.config.train
        count = sum(int(np.prod(p.shape)) for p in self.model.trainable_params())
        size = self.model.input_spec.size
        return (
            f"{self.config.model.name}: {count:,} trainable parameters, {self.num_classes} "
            f"classes, input {size[0]}x{size[1]}; {len(self.dataset)} training images, up to "
            f"{self.stages.max_boxes} boxes; {BACKEND}, {self.world.size} rank(s) "
            f"({self.world.launcher}) x batch {settings.per_batch_size}; epochs "
            f"{self.first_epoch + 1}..{settings.epochs}; writing to {self.folder}"
        )

    def _resume(self, before: PreviousRun) -> None:
        """Restore weights, optimizer and counters from the last checkpoint."""
        before.check_goes_on(self.config, self.model, self.dataset.class_names)
        values, metadata, state = before.values, before.metadata, before.state
        raw = {n[len(WEIGHTS) :]: v for n, v in values.items() if n.startswith(WEIGHTS)}
        plain = {n: v for n, v in values.items() if not n.startswith(STATE_PREFIX)}
        load_parameters(self.model, raw or plain)
        self.stages.optimizer_state = {
            n[len(OPTIMIZER) :]: v for n, v in values.items() if n.startswith(OPTIMIZER)
        }
        self.first_epoch, self.steps.updates = metadata.epoch + 1, state["updates"]
        self.best_epoch, self.best_fitness = state["best_epoch"], state["best_fitness"]
        self.kept = KeptCheckpoints(
            self.last_path.parent, self.config.train, state.get("kept_checkpoints")
        )
        if (
            state["world_size"] != self.world.size
            or state["per_batch_size"] != self.config.train.per_batch_size
        ):
            logger.warning(
                "resuming with %d rank(s) x batch %d, the run had %d x %d: it continues, but not "
                "bit for bit",
                self.world.size,
                self.config.train.per_batch_size,
                state["world_size"],
                state["per_batch_size"],
            )
        here, before = BACKEND, state.get("backend", "mindspore")
        if here != before:
            logger.warning(
                "resuming on %s, the run was on %s: it continues, but not bit for bit", here, before
            )
        if self.first_epoch >= self.config.train.epochs:
            logger.info(
                "%s: all epochs are done (%d, and train.epochs is %d); nothing is left to do. To "
                "train further, start a new run from it: --weight %s and another --save_dir",
                self.folder,
                self.first_epoch,
                self.config.train.epochs,
                self.last_path,
            )
        elif self.is_over:
            logger.info(
                "%s: stopped early after epoch %d, train.patience (%d) epochs after the best one; "
                "nothing is left to do. To train further: --resume --set train.patience=0, or more",
                self.folder,
                self.first_epoch,
                self.config.train.patience,
            )
        else:
            logger.info("resuming after epoch %d of %s", self.first_epoch, self.last_path)

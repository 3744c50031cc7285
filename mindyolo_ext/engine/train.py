"""The training loop: ``train`` is its outline; the modules ``run_start``, ``run_parts``,
``run_stages``, ``run_epoch``, ``run_evaluation`` and ``run_finish`` contain its steps in the order
of execution.

A run is a pure function of recipe, data and seed: the order of images depends on (seed, epoch),
every augmentation on (seed, epoch, image), every learning rate on the iteration. A checkpoint
therefore needs only weights, optimizer state and the epoch for a resumed run to equal an
uninterrupted one.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from mindyolo_ext.backend.launch import world
from mindyolo_ext.config import Config
from mindyolo_ext.engine.callbacks import Callback
from mindyolo_ext.engine.run_finish import Run, TrainResult
from mindyolo_ext.engine.run_folder import locked
from mindyolo_ext.engine.run_log import run_log

__all__ = ["TrainResult", "train"]


def train(
    config: Config,
    save_dir: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a recipe on the ranks of this process's world. Call ``backend.launch.start`` first.

    Args:
        save_dir: folder of the run: weights/, results.csv, results.png, config.yaml, in_force.yaml,
            run.log.
        resume: continue from ``save_dir/weights/last.ckpt``, or ``.safetensors`` if the recipe
            says so.
        callbacks: called before those of ``train.loggers``, see ``engine.callbacks``.

    Raises: ConfigError for a recipe that does not fit its data, ExistingFileError if ``save_dir``
        holds a run and ``resume`` is False, TrainingError if too many steps in a row have gradients
        that are not finite.
    """
    is_main = world().is_main
    with locked(save_dir) if is_main else nullcontext(), run_log(wanted=is_main) as log:
        run = Run(config, save_dir, resume, log)
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

"""Build a schedule from the sections of a recipe."""

from collections.abc import Callable, Sequence

from mindyolo_ext.config import OptimizerConfig, ScheduleConfig
from mindyolo_ext.engine.schedule.accumulation import Accumulation, micro_batches, wanted_batches
from mindyolo_ext.engine.schedule.decays import (
    Cosine,
    CosineByEpoch,
    Decay,
    Linear,
    MultiStep,
    OneEpochLate,
    Step,
    constant,
    milestones_after,
)
from mindyolo_ext.engine.schedule.one_cycle import OneCycle
from mindyolo_ext.engine.schedule.warmup import MomentumWarmup, RateWarmup, warmup_steps


class Schedule:
    """Learning rates of all groups and momentum by iteration, and the iterations with an update.

    Args:
        optimizer, schedule: the recipe's sections.
        steps_per_epoch, epochs: length of the training in iterations (micro batches) and epochs.
        global_batch: images per iteration over all ranks, for ``lr_per_image`` and
            ``nominal_batch``.
        groups: group names; ``bias`` uses ``warmup_bias_lr``.

    Attributes:
        base: the base learning rate in force.
        total, warmup: iterations of the training, and of its warm-up.
        cycles_momentum: whether ``momentum_at`` is also beta1 of adam and adamw.
        accumulate: micro batches per update after the warm-up.

    Source: Yolo-FastestV2 ``train.py`` (power 4 warm-up, milestones), YOLOX ``lr_scheduler.py``
        (quadratic warm-up, cosine, flat end), YOLOv7 ``train.py`` (linear warm-up with bias rate
        and momentum), Gold-YOLO ``yolov6/core/engine.py`` and ``yolov6/solver/build.py`` (cosine
        per epoch, warm-up of at least 1000 steps), DynamicDet ``train_step1.py`` and
        ``train_step2.py`` (nominal batch, micro batches that grow with the warm-up), simple YOLO
        ``utils/scheduler.py`` (one cycle, steps by iteration).
    """

    def __init__(
        self,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        *,
        steps_per_epoch: int,
        epochs: int,
        global_batch: int = 1,
        groups: Sequence[str] = ("all",),
    ):
        self.groups = tuple(groups)
        self.base = optimizer.lr * (global_batch if optimizer.lr_per_image else 1)
        self.total = steps_per_epoch * epochs
        self.warmup = warmup_steps(
            schedule.warmup_epochs, steps_per_epoch, at_least=schedule.warmup_min_steps
        )
        self.accumulate = micro_batches(optimizer, global_batch)
        self._accumulation = Accumulation(
            count=self.accumulate,
            goal=wanted_batches(optimizer, global_batch),
            warmup=self.warmup if schedule.warmup_accumulate else 0,
            first_alone=optimizer.accumulate_first_alone,
        )
        self._decay: Decay
        self._momentum: Callable[[int], float]
        self._warmup: RateWarmup | None = None
        self.cycles_momentum = schedule.decay == "one_cycle"
        if self.cycles_momentum:
            cycle = OneCycle.after_warmup(
                schedule.warmup_epochs,
                steps_per_epoch=steps_per_epoch,
                epochs=epochs,
                anneal=schedule.anneal,
            )
            self._decay, self._momentum = cycle.rate, cycle.momentum
            return
        self._decay = _decay(schedule, self.warmup, self.total, steps_per_epoch)
        self._warmup = RateWarmup(
            self.warmup,
            schedule.warmup_power,
            self.base,
            # Decays that count from iteration 0 continue during the warm-up
            goal=self._decay if schedule.decay == "linear" or schedule.per_epoch else constant,
            bias_start=schedule.warmup_bias_lr,
        )
        self._momentum = MomentumWarmup(self.warmup, optimizer.momentum, schedule.warmup_momentum)

    def rates(self, step: int) -> list[float]:
        """Learning rate of each group at iteration ``step``, counted from 0."""
        if self._warmup is not None and self._warmup.covers(step):
            return self._warmup.rates(step, self.groups)
        return [self.base * self._decay(step)] * len(self.groups)

    def momentum_at(self, step: int) -> float:
        """Momentum at iteration ``step``."""
        return self._momentum(step)

    def accumulate_at(self, step: int) -> int:
        """Micro batches per update at iteration ``step``."""
        return self._accumulation.count_at(step)

    def updates_at(self, step: int) -> bool:
        """Whether iteration ``step`` applies the gradients accumulated so far."""
        return self._accumulation.updates_at(step)


def _decay(schedule: ScheduleConfig, warmup: int, total: int, steps_per_epoch: int) -> Decay:
    """The decay after the warm-up; lengths in iterations."""
    if schedule.decay == "multistep":
        milestones = schedule.milestones
        if schedule.drops_lost_in_warmup:
            milestones = milestones_after(milestones, warmup, steps_per_epoch)
        return MultiStep(milestones, schedule.gamma, steps_per_epoch)
    if schedule.decay == "step":
        return Step(schedule.step_size, schedule.gamma)
    if schedule.decay == "linear":
        return Linear(total, schedule.final_ratio)
    if schedule.decay == "cosine":
        last = total - schedule.flat_epochs * steps_per_epoch
        if not schedule.per_epoch:
            return Cosine(warmup, last, schedule.final_ratio)
        decay = CosineByEpoch(last, schedule.final_ratio, steps_per_epoch)
        return OneEpochLate(decay, steps_per_epoch, warmup) if schedule.one_epoch_late else decay
    return constant

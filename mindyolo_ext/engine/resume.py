"""Check whether a recipe still describes the run that it resumes."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mindyolo_ext.checkpoint.store import CheckpointMetadata, load_checkpoint
from mindyolo_ext.class_match import Relation, listed, match_classes
from mindyolo_ext.config import Config, config_from_mapping
from mindyolo_ext.contracts import Model
from mindyolo_ext.engine.in_force import from_the_start
from mindyolo_ext.errors import CheckpointError, ConfigError
from mindyolo_ext.models.registry import default_loss
from mindyolo_ext.yaml_file import load_yaml

logger = logging.getLogger(__name__)
# Settings that may change when a run is resumed: they have no or little effect on the training
_MAY_CHANGE = (
    "data.root",
    "data.train",
    "data.val",
    "data.test",
    "data.workers",
    "data.worker_kind",
    "data.opencv_threads",
    "data.cache",
    "data.max_boxes",
    "data.augment",
    "train.stages",
    "train.distill.recipe",
    "train.weight",
    "train.ema_",
    "train.sync_bn",
    "train.seed",
    "train.run_eval",
    "train.eval_interval",
    "train.val_loss",
    "train.best_metric",
    "train.save_interval",
    "train.keep_",
    "train.patience",
    "train.checkpoint_format",
    "train.log_interval",
    "train.loggers",
    "train.pictures",
    "train.amp_",
    "train.loss_scale",
    "train.channels_last",
    "train.compile",
    "train.recompute",
    "train.jit_level",
    "train.graph_kernel",
    "train.precision_mode",
    "train.max_bad_steps",
    "eval.",
)
_COMPARED_ELSEWHERE = (
    "model.",
    "input.",
    "data.class_names",
    "data.classes",
    "data.num_classes",
    "data.single_cls",
    "train.backend",
    "train.per_batch_size",
)
_ONE_VALUE = ("data.train", "data.val", "data.test", "model.keywords", "train.loss")
_LONGEST_VALUE = 60


@dataclass(frozen=True)
class Difference:
    """A setting that has changed.

    Args:
        key: of the recipe.
        before, now: its values.
        allowed: whether the run can continue with the new value.
    """

    key: str
    before: Any
    now: Any
    allowed: bool

    def __str__(self) -> str:
        return f"{self.key}: {_short(self.before)} before, {_short(self.now)} now"


class PreviousRun:
    """A run, read from its checkpoint.

    Args:
        path: ``weights/last.ckpt`` of the run's folder, or ``.safetensors``.

    Attributes: ``values`` and ``metadata`` of the checkpoint, ``state`` of the training, ``recipe``
        (None if this version cannot read it).
    Raises: CheckpointError if the file is damaged or does not come from a training.
    """

    def __init__(self, path: Path):
        self.path = path
        self.values, self.metadata = load_checkpoint(path)
        self.state = self.metadata.extra.get("training")
        if not isinstance(self.state, dict) or self.metadata.epoch is None:
            raise CheckpointError(
                f"--resume: {path} holds weights but no training state; start a new run from "
                f"them with --weight {path} and another --save_dir"
            )
        self.recipe = self._read_recipe()

    def with_class_order(self, config: Config) -> Config:
        """``config`` with the run's ``data.class_names``, unless it sets its own."""
        if self.recipe is None or config.data.class_names:
            return config
        names = self.recipe.data.class_names
        return replace(config, data=replace(config.data, class_names=names))

    def check_goes_on(self, config: Config, model: Model, class_names: Sequence[str]) -> None:
        """Check that a recipe describes this run, and log what is different.

        Args:
            config, model, class_names: the recipe, its network, and the classes of its data.

        Raises: ConfigError for a difference that would change the training.
        """
        _check_classes(self.metadata.class_names, class_names, self.path)
        found = [
            Difference(key, before, now, allowed=False)
            for key, before, now in _facts(self.metadata, config, model)
            if before != now
        ]
        if self.recipe is not None:
            found += differences(self.recipe, config, model.family)
        refused = [str(difference) for difference in found if not difference.allowed]
        if refused:
            raise ConfigError(
                f"--resume: {self.path} comes from a training with other settings: "
                f"{'; '.join(refused)}. Resume with the run's own recipe, --config "
                f"{self.path.parents[1] / 'config.yaml'}, or start a new run from these weights: "
                f"--weight {self.path} and another --save_dir"
            )
        for difference in found:
            logger.info("--resume: %s", difference)

    def _read_recipe(self) -> Config | None:
        """Read the recipe in the checkpoint; None, with a warning, if that fails."""
        try:
            where = f"the recipe in {self.path}"
            text = str(self.state.get("config", ""))
            return config_from_mapping(load_yaml(text, where, error=ConfigError) or {}, where)
        except ConfigError as error:
            logger.warning(
                "--resume: the recipe in %s cannot be read by this version, so its settings are "
                "not compared (%s)",
                self.path,
                error,
            )
            return None


def differences(before: Config, now: Config, family: str) -> list[Difference]:
    """List the settings that differ between two recipes, in the order of the recipe.

    Names and keywords of the model, the input and the classes are left out, because the checkpoint
    stores the resulting values. The backend, the batch size and the ranks are left out too; the run
    itself warns about them.

    Args:
        family: of the model; its default loss is used for a recipe without one.
    """
    old, new = (dict(_flat(asdict(_spelled_out(recipe, family)))) for recipe in (before, now))
    return [
        Difference(key, old[key], new[key], _may_change(key, before, now))
        for key in old
        if old[key] != new[key] and not key.startswith(_COMPARED_ELSEWHERE)
    ]


def _may_change(key: str, before: Config, now: Config) -> bool:
    """Whether the run can continue with the new value of a setting."""
    if key == "train.epochs":
        return not any(map(_depends_on_epochs, (before, now)))
    if key == "train.distill.teacher":  # the file may have been moved
        return bool(before.train.distill.teacher and now.train.distill.teacher)
    return key.startswith(_MAY_CHANGE)


def _depends_on_epochs(config: Config) -> bool:
    """Whether learning rates and averages depend on the number of epochs."""
    settings = config.train
    return (
        settings.schedule.decay in ("cosine", "linear", "one_cycle")
        or (settings.ema_decay > 0 and settings.ema_ramp == "linear")
        or bool(settings.distill.teacher)  # its weight may fall over the training
    )


def _spelled_out(config: Config, family: str) -> Config:
    """Replace the loss and stages of ``config`` by what they stand for."""
    settings = config.train
    return replace(
        config,
        train=replace(
            settings,
            loss={"name": default_loss(family), **settings.loss},
            stages=[from_the_start(stage, settings.epochs) for stage in settings.stages],
        ),
    )


def _check_classes(before: Sequence[str], now: Sequence[str], where: Path) -> None:
    """Raises: ConfigError unless the run's classes are those of the data, in the same order."""
    match = match_classes(before, now)
    if match.aligned:
        return
    if match.relation is Relation.UNKNOWN and len(before) in (0, len(now)):
        logger.warning(
            "--resume: %s does not contain class names (%s), so they are not compared with those "
            "of data.train (%s)",
            where,
            listed(before) or "none",
            listed(now),
        )
        return
    problem = (
        "in another order"
        if match.relation is Relation.REORDERED
        else "not those of data.train: "
        + (match.difference("the run", "data.train") or f"{len(before)} before, {len(now)} now")
    )
    raise ConfigError(
        f"--resume: the classes of {where} are {problem}; the run had {listed(before)}, data.train "
        f"has {listed(now)}. Resume with the data set that the run began with"
        + (
            f", or bring it into the run's order with --set 'data.class_names="
            f"{json.dumps(list(before), ensure_ascii=False)}' if its labels follow the names"
            if match.relation is Relation.REORDERED
            else ""
        )
    )


def _facts(
    stored: CheckpointMetadata, config: Config, model: Model
) -> Iterator[tuple[str, Any, Any]]:
    """(key, before, now) of the values that the recipes leave open."""
    yield "model.name", stored.model, config.model.name
    yield "data.num_classes", stored.num_classes, model.num_classes
    old, new = (json.loads(json.dumps(of.architecture)) for of in (stored, model))
    for key in dict.fromkeys([*old, *new]):
        yield f"model.keywords.{key}", old.get(key), new.get(key)
    old, new = asdict(stored.input_spec), asdict(model.input_spec)
    for key in new:
        yield f"input.{key}", old[key], new[key]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of nested sections; a mapping with free keys counts as one value."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in _ONE_VALUE:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _short(value: Any) -> str:
    """Shorten a value for a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."

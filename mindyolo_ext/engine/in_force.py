"""Complete the recipe of a run: replace placeholders, and add what follows from model, data and
number of ranks.
"""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace

from mindyolo_ext.backend.launch import world
from mindyolo_ext.config import Config, StageConfig, TrainConfig
from mindyolo_ext.config.describe import recipe_text
from mindyolo_ext.contracts import Model, RoutedModel
from mindyolo_ext.engine.datasets import worker_count
from mindyolo_ext.engine.schedule import micro_batches, weight_decay
from mindyolo_ext.models.registry import default_loss


def in_force(config: Config, model: Model, class_names: Sequence[str], max_boxes: int) -> Config:
    """Replace the placeholders of ``config``; the result trains the same run.

    Args:
        model: the network that the recipe describes.
        class_names: of the training images.
        max_boxes: padded boxes per image.
    """
    spec = asdict(model.input_spec)
    own = {item.name: spec[item.name] for item in fields(config.input)}
    loss = {"name": default_loss(model.family), **config.train.loss}
    evaluation = config.eval
    if evaluation.dy_thres is None and isinstance(model, RoutedModel):
        evaluation = replace(evaluation, dy_thres=model.dy_thres)
    return replace(
        config,
        model=replace(config.model, keywords={**model.architecture, **config.model.keywords}),
        input=replace(
            config.input,
            **{
                key: list(value) if isinstance(value, tuple) else value
                for key, value in own.items()
            },
        ),
        data=replace(
            config.data,
            class_names=list(class_names),
            num_classes=len(class_names),
            max_boxes=max_boxes,
            workers=worker_count(config, world().local_size),
        ),
        train=replace(
            config.train,
            loss=loss,
            loss_scaler=loss_scaler_in_force(config.train),
            stages=[from_the_start(stage, config.train.epochs) for stage in config.train.stages],
        ),
        eval=evaluation,
    )


def loss_scaler_in_force(settings: TrainConfig) -> str:
    """Resolve ``auto``: only float16 loses small gradients."""
    if settings.loss_scaler != "auto":
        return settings.loss_scaler
    in_float16 = settings.amp_level != "O0" and settings.amp_dtype == "float16"
    return "dynamic" if in_float16 else "none"


def notes_on(config: Config, global_batch: int) -> dict[str, str]:
    """Comments about the number of images per step, by key of the recipe."""
    optimizer = config.train.optimizer
    notes = {}
    if optimizer.lr_per_image:
        notes["train.optimizer.lr"] = (
            f"{optimizer.lr * global_batch:g} for {global_batch} images per step"
        )
    if optimizer.nominal_batch:
        count = micro_batches(optimizer, global_batch)
        notes["train.optimizer.nominal_batch"] = (
            f"{count} batch(es) of {global_batch} images per update"
        )
        notes["train.optimizer.weight_decay"] = (
            f"{weight_decay(optimizer, global_batch):g} per update of {count * global_batch} images"
        )
    return notes


def text_in_force(
    config: Config,
    model: Model,
    class_names: Sequence[str],
    *,
    max_boxes: int,
    global_batch: int,
) -> str:
    """``in_force`` and ``notes_on`` as YAML with comments, also valid for ``--config``."""
    shown = in_force(config, model, class_names, max_boxes)
    return recipe_text(shown, notes_on(config, global_batch))


def from_the_start(stage: StageConfig, epochs: int) -> StageConfig:
    """The stage with a first epoch counted from 0."""
    if stage.from_epoch >= 0:
        return stage
    return replace(stage, from_epoch=max(0, epochs + stage.from_epoch))

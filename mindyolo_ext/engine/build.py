"""Build data sets and networks from a recipe or a checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.backend import nn
from mindyolo_ext.backend.parameters import load_parameters, parameter_values
from mindyolo_ext.checkpoint.names import weights_only
from mindyolo_ext.checkpoint.store import CheckpointMetadata, load_checkpoint
from mindyolo_ext.config import Config
from mindyolo_ext.contracts import Model, Trainable
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.pipeline import Pipeline, build_pipeline
from mindyolo_ext.engine.classes import check_teacher
from mindyolo_ext.engine.datasets import split_dataset, with_input
from mindyolo_ext.errors import CheckpointError, ConfigError
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.registry import (
    create_model,
    create_trainable,
    default_loss,
    load_augmentations,
    loss_keywords,
)

__all__ = [
    "has_folded_norms",
    "load_model",
    "load_teacher",
    "model_from",
    "new_model",
    "new_trainable",
    "split_dataset",
    "start_from",
    "training_pipeline",
    "with_input",
]

logger = logging.getLogger(__name__)


def training_pipeline(
    steps: Sequence[Mapping[str, Any] | str],
    input_spec: InputSpec,
    dataset: Dataset,
    *,
    seed: int = 0,
) -> Pipeline:
    """``build_pipeline`` with the augmentations of all families registered. Raises: as it does."""
    load_augmentations()
    return build_pipeline(steps, input_spec, dataset, seed=seed)


def new_model(config: Config, num_classes: int) -> Model:
    """Create the network of a recipe with fresh weights."""
    if not config.model.name:
        raise ConfigError("config: model.name is missing")
    model = create_model(config.model.name, num_classes=num_classes, **config.model.keywords)
    model.input_spec = with_input(model.input_spec, config.input)
    return model


def new_trainable(model: Model, loss: Mapping[str, Any], teacher: Model | None = None) -> Trainable:
    """Create the trainable of a recipe's ``loss`` section: its ``name`` (default: the family's
    loss) and keywords.
    Args:
        teacher: for a trainable that learns from a second network, see ``load_teacher``.

    Raises: ConfigError if the trainable needs a teacher and there is none, or the other way round.
    """
    keywords = dict(loss)
    name = keywords.pop("name", default_loss(model.family))
    wanted = "teacher" in loss_keywords(name)
    if wanted and teacher is None:
        raise ConfigError(
            f"train.loss: {name} learns from a teacher; name the checkpoint of a trained network "
            "with --set train.distill.teacher=FILE.ckpt"
        )
    if teacher is not None and not wanted:
        raise ConfigError(
            f"train.distill.teacher is set, but train.loss.name is {name}, which does not use a "
            "teacher"
        )
    return create_trainable(
        name, model, **keywords, **({} if teacher is None else {"teacher": teacher})
    )


def load_teacher(weight: str | Path, model: Model, dataset: Dataset) -> Model:
    """Load a trained network for ``new_trainable``, which freezes it.

    Args:
        weight: checkpoint of this project.
        model: the network that learns from it.
        dataset: the training images.

    Raises: FileNotFoundError; ConfigError if it is of another family or has other classes.
    """
    teacher, metadata = load_model(weight)
    for what, own, wanted in (
        ("family", teacher.family, model.family),
        ("number of classes", teacher.num_classes, model.num_classes),
    ):
        if own != wanted:
            raise ConfigError(
                f"train.distill.teacher: {weight} has {what} {own}, the network that learns has "
                f"{wanted}"
            )
    check_teacher(metadata.class_names, dataset, teacher=weight)
    return teacher


def model_from(metadata: CheckpointMetadata) -> Model:
    """Create the network that a checkpoint's metadata describes, with fresh weights."""
    if not metadata.model:
        raise CheckpointError(
            "the checkpoint does not say which model it holds; it was not written by mindyolo_ext. "
            "Use `mindyolo-ext convert` first"
        )
    model = create_model(metadata.model, num_classes=metadata.num_classes, **metadata.architecture)
    model.input_spec = metadata.input_spec
    return model


def load_model(
    weight: str | Path, config: Config | None = None
) -> tuple[Model, CheckpointMetadata]:
    """Load the network of a checkpoint with its weights (the moving average if training kept one).
    Args:
        weight: ``.ckpt`` or ``.safetensors`` written by ``train.py`` or ``mindyolo-ext convert``.
        config: a recipe. Its ``model.name`` must match, and its ``input`` section overrides the
            checkpoint's.

    Raises: FileNotFoundError; ValueError if the file or the model does not match, or the metadata
        describes no network.
    """
    values, metadata = load_checkpoint(weight)
    if config is not None and config.model.name and config.model.name != metadata.model:
        raise ConfigError(
            f"{weight}: holds {metadata.model}, but the recipe names {config.model.name}"
        )
    try:
        model = model_from(metadata)
    except (TypeError, ValueError) as error:  # raised by the builder, for bad metadata
        raise CheckpointError(
            f"{weight}: its metadata describes no network ({metadata.model}: {error})"
        ) from error
    if config is not None:
        model.input_spec = with_input(model.input_spec, config.input)
    try:
        load_parameters(model, weights_only(values))
    except ValueError as error:
        raise CheckpointError(f"{weight}: {error}") from error
    return model.set_train(False), metadata


def start_from(
    model: Model, weight: str | Path, values: Mapping[str, np.ndarray] | None = None
) -> list[str]:
    """Load all tensors of a checkpoint that fit, to fine-tune a network. Class layers of another
    size keep their fresh weights.

    Args:
        weight: the file, for messages if ``values`` are given.
        values: the contents of the file, if it has been read already.

    Returns: names that kept their fresh weights.
    Raises: ValueError if nothing fits.
    """
    if values is None:
        values, _ = load_checkpoint(weight)
    own = {name: p.shape for name, p in model.parameters_and_names()}
    fitting = {
        n: v
        for n, v in weights_only(values).items()
        if n in own and tuple(own[n]) == tuple(v.shape)
    }
    if not fitting:
        same = next((name for name in values if name in own), None)
        raise CheckpointError(
            f"{weight}: none of its {len(values)} tensors fits {type(model).__name__}; "
            + (
                f"{same} is {tuple(values[same].shape)}, wanted {tuple(own[same])}: another width?"
                if same
                else "is it a checkpoint of this family? (see `mindyolo-ext info FILE`)"
            )
        )
    kept = load_parameters(model, fitting, strict=False)
    logger.info(
        "%s: %d tensors loaded%s",
        weight,
        len(fitting),
        f", {len(kept)} start fresh ({', '.join(kept[:4])}{', ...' if len(kept) > 4 else ''})"
        if kept
        else "",
    )
    return kept


def has_folded_norms(model: Model) -> bool:
    """Whether batch norms are identities, as in weights rebuilt from a deployed or exported model.

    Such a network works in evaluation, but batch statistics would destroy what it has learned.
    """
    norms = [cell for _, cell in model.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    return any(_is_identity(norm) for norm in norms)


def _is_identity(norm: nn.BatchNorm2d) -> bool:
    """Whether ``norm`` returns its input unchanged in evaluation, apart from its shift."""
    values = parameter_values(norm)
    return (
        not values["moving_mean"].any()
        and (values["gamma"] == 1).all()
        and np.allclose(values["moving_variance"] + norm.eps, 1, rtol=0, atol=1e-6)
    )

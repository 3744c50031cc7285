"""Names and keywords of a recipe that only the families and augmentations know.

The reader of recipes loads no framework, so it cannot check them. Training, evaluation and the
drawing of assignments call ``check_recipe`` before they load data or compile anything.
"""

from collections.abc import Sequence

from mindyolo_ext.config import Config
from mindyolo_ext.config.schema import AugmentStep
from mindyolo_ext.data.transform_registry import list_transforms, transform_defaults
from mindyolo_ext.engine.stages import all_augmentations, all_losses
from mindyolo_ext.errors import ConfigError, did_you_mean
from mindyolo_ext.models.registry import (
    check_loss_keywords,
    check_model_keywords,
    default_loss,
    family_of,
    load_augmentations,
)


def check_recipe(config: Config) -> None:
    """Make sure that every name and keyword of model, loss and augmentations exists.

    Raises: ConfigError with the key and the closest name.
    """
    model = config.model.name
    if model:
        check_model_keywords(model, config.model.keywords)
    for loss in all_losses(config):
        name = loss.get("name") or (default_loss(family_of(model).name) if model else None)
        if name is not None:
            check_loss_keywords(name, [key for key in loss if key != "name"])
    load_augmentations()
    for steps in all_augmentations(config):
        _check_steps(steps)


def _check_steps(steps: Sequence[AugmentStep]) -> None:
    """Raises: ConfigError for a step or keyword that no augmentation has."""
    for number, step in enumerate(steps, 1):
        keywords = {"name": step} if isinstance(step, str) else dict(step)
        name, where = keywords.pop("name"), f"augmentation step {number}"
        if name not in list_transforms():
            raise ConfigError(
                f"{where}: unknown name {name!r}{did_you_mean(name, list_transforms())}"
            )
        known = transform_defaults(name)
        for key in keywords:
            if key not in known:
                raise ConfigError(
                    f"{where} ({name}): unknown keyword {key}{did_you_mean(key, known)}"
                )

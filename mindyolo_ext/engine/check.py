"""Check names and keywords of a recipe that only families and augmentations know.

Reading a recipe loads no framework and cannot check these. Training, evaluation and the drawing of
assignments call ``check_recipe`` before they load data or compile anything.
"""

from dataclasses import replace

from mindyolo_ext.backend.choice import running_for
from mindyolo_ext.config import Config
from mindyolo_ext.data.pipeline import check_steps
from mindyolo_ext.engine.stages import all_augmentations, all_losses
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
        check_steps(steps)


def on_this_backend(config: Config) -> Config:
    """``config`` with the backend of this process.

    Raises: ConfigError if the recipe names another one.
    """
    present = running_for(config.train.backend)
    return replace(config, train=replace(config.train, backend=present))

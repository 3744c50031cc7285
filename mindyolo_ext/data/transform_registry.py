"""Where augmentations become known by name, and what each of them is given. NumPy only."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mindyolo_ext.data.dataset import Dataset, Sample
from mindyolo_ext.input_spec import InputSpec


@dataclass(frozen=True)
class AugmentContext:
    """What an augmentation may use besides its sample.

    Args:
        rng: random numbers of this (seed, epoch, index), whatever worker or rank asks.
        dataset: for augmentations that combine pictures.
        input_spec: of the model, with the size of this step.
        epoch, index: which epoch, and which picture of the data set.
    """

    rng: np.random.Generator
    dataset: Dataset
    input_spec: InputSpec
    epoch: int
    index: int


Transform = Callable[..., Sample]
# by name: the function, and how many pictures' boxes it returns
TRANSFORMS: dict[str, tuple[Transform, int]] = {}
PHOTO_STEPS: set[str] = set()  # names of those that want the photo as the data set has it
POLYGON_STEPS: set[str] = set()  # names of those that do nothing without outlines


def register_transform(
    function: Transform | None = None,
    *,
    pictures: int = 1,
    from_photo: bool = False,
    wants_polygons: bool = False,
) -> Any:
    """Decorator: makes a function known under its name.

    A keyword ``max_boxes`` is a promise: the function returns no more boxes than that.

    Args:
        function: the augmentation.
        pictures: how many pictures' boxes it may return.
        from_photo: it looks up outlines in the data set, so no other step may come before.
        wants_polygons: it does nothing where the data set has no outlines, which is worth a
            warning.

    Raises: ValueError for a name twice; TypeError if a setting is not keyword-only with a default.
    """
    if function is None:
        return lambda later: register_transform(
            later, pictures=pictures, from_photo=from_photo, wants_polygons=wants_polygons
        )
    name = function.__name__
    if name in TRANSFORMS or name == "resize":
        raise ValueError(f"register_transform: there is already a step {name}")
    for key, parameter in list(inspect.signature(function).parameters.items())[2:]:
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
            raise TypeError(
                f"register_transform: {name}: {key} must be keyword-only and have a default"
            )
    TRANSFORMS[name] = function, pictures
    if from_photo:
        PHOTO_STEPS.add(name)
    if wants_polygons:
        POLYGON_STEPS.add(name)
    return function


def list_transforms() -> list[str]:
    """The names that a configuration may use as steps."""
    return sorted([*TRANSFORMS, "resize"])


def transform_defaults(name: str) -> dict[str, Any]:
    """Keywords of a step with their defaults; ``resize`` has none."""
    if name == "resize":
        return {}
    parameters = inspect.signature(TRANSFORMS[name][0]).parameters.items()
    return {
        key: parameter.default
        for key, parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }

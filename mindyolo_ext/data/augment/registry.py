"""The registry of augmentations, and the context that each receives. Uses NumPy only.

An augmentation is a function ``f(sample, context, *, keywords) -> sample`` decorated with
``@register_augmentation``; its name is the step's name in a recipe. It returns a new sample and
never modifies its input, takes every random number from ``context.rng``, and may load further
photos through ``context.dataset``.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.types import Sample
from mindyolo_ext.errors import ConfigError, did_you_mean
from mindyolo_ext.input_spec import InputSpec


@dataclass(frozen=True)
class AugmentContext:
    """What an augmentation may use besides its sample.

    Args:
        rng: random generator of this (seed, epoch, index), the same for any worker and rank.
        dataset: data set for augmentations that combine photos.
        input_spec: input convention of the model, with the size of this step.
        epoch, index: the epoch, and the photo's index in the data set.
    """

    rng: np.random.Generator
    dataset: Dataset
    input_spec: InputSpec
    epoch: int
    index: int


@dataclass(frozen=True)
class Augmentation:
    """A registered function and the facts that ``build_pipeline`` needs.

    Args:
        function: takes a sample, a context and keywords.
        images: number of images whose boxes it may return.
        from_photo: whether it looks up outlines in the data set, so it must be the first step.
        wants_polygons: whether it has no effect without outlines, which causes a warning.
        needs_polygons: whether missing outlines are an error.
        is_mosaic: whether it arranges images on a canvas, unless its ``probability`` is 0.
        check: raises ConfigError for invalid keywords of a recipe that are not numbers.
    """

    function: Callable[..., Sample]
    images: int = 1
    from_photo: bool = False
    wants_polygons: bool = False
    needs_polygons: bool = False
    is_mosaic: bool = False
    check: Callable[[Mapping[str, Any]], None] | None = None

    @property
    def name(self) -> str:
        """The step's name in a recipe."""
        return self.function.__name__

    @property
    def defaults(self) -> dict[str, Any]:
        """Return the keywords with their defaults."""
        return {
            key: parameter.default
            for key, parameter in inspect.signature(self.function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }


_AUGMENTATIONS: dict[str, Augmentation] = {}


def register_augmentation(function: Callable[..., Sample] | None = None, **facts: Any) -> Any:
    """Register a function under its name (decorator).

    A function with a keyword ``max_boxes`` must not return more boxes than that.

    Args:
        facts: arguments of ``Augmentation``.

    Raises: ValueError for a name that is taken; TypeError for a keyword that is not keyword-only or
        has no default.
    """
    if function is None:
        return lambda later: register_augmentation(later, **facts)
    entry = Augmentation(function, **facts)
    if entry.name in _AUGMENTATIONS:
        raise ValueError(f"register_augmentation: step {entry.name} already exists")
    for key, parameter in list(inspect.signature(function).parameters.items())[2:]:
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
            raise TypeError(
                f"register_augmentation: {entry.name}: {key} must be keyword-only and have a "
                "default"
            )
    _AUGMENTATIONS[entry.name] = entry
    return function


def list_augmentations() -> list[str]:
    """Return the names that a recipe may use as steps."""
    return sorted(_AUGMENTATIONS)


def find_augmentation(name: object) -> Augmentation:
    """Return the augmentation ``name``. Raises: ConfigError with the closest or all names."""
    if not isinstance(name, str) or name not in _AUGMENTATIONS:
        raise ConfigError(f"unknown name {name!r}{did_you_mean(name, _AUGMENTATIONS)}")
    return _AUGMENTATIONS[name]

"""Augmentations by name, and what each of them is given. NumPy only.

An augmentation is a function ``f(sample, context, *, keywords) -> sample`` decorated with
``@register_augmentation``; its name is the step's name in a recipe. It returns a new sample and
never writes into the one it got, draws every random number from ``context.rng``, and may load
further photos through ``context.dataset``.
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
        rng: random numbers of this (seed, epoch, index), whatever worker or rank asks.
        dataset: for augmentations that combine photos.
        input_spec: of the model, with the size of this step.
        epoch, index: which epoch, and which photo of the data set.
    """

    rng: np.random.Generator
    dataset: Dataset
    input_spec: InputSpec
    epoch: int
    index: int


@dataclass(frozen=True)
class Augmentation:
    """A registered function and what ``build_pipeline`` must know about it.

    Args:
        function: takes a sample, a context and keywords.
        images: of so many images it may return the boxes.
        from_photo: it looks up outlines in the data set, so no other step may come before.
        wants_polygons: it does nothing where the data set has no outlines, which is worth a
            warning.
        needs_polygons: it is refused where the data set has no outlines.
        is_mosaic: it arranges images on one of its own shape, unless its ``probability`` is 0.
        check: given the keywords of a recipe, raises ConfigError for what cannot be; for keywords
            that are no numbers.
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
        """The keywords with their defaults."""
        return {
            key: parameter.default
            for key, parameter in inspect.signature(self.function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }


_AUGMENTATIONS: dict[str, Augmentation] = {}


def register_augmentation(function: Callable[..., Sample] | None = None, **facts: Any) -> Any:
    """Decorator: make a function known under its name.

    A keyword ``max_boxes`` is a promise: the function returns no more boxes than that.

    Args:
        facts: arguments of ``Augmentation``.

    Raises: ValueError for a name that is taken; TypeError if a keyword is not keyword-only with a
        default.
    """
    if function is None:
        return lambda later: register_augmentation(later, **facts)
    entry = Augmentation(function, **facts)
    if entry.name in _AUGMENTATIONS:
        raise ValueError(f"register_augmentation: there is already a step {entry.name}")
    for key, parameter in list(inspect.signature(function).parameters.items())[2:]:
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
            raise TypeError(
                f"register_augmentation: {entry.name}: {key} must be keyword-only and have a "
                "default"
            )
    _AUGMENTATIONS[entry.name] = entry
    return function


def list_augmentations() -> list[str]:
    """The names that a recipe may use as steps."""
    return sorted(_AUGMENTATIONS)


def find_augmentation(name: object) -> Augmentation:
    """The augmentation called ``name``. Raises: ConfigError that lists near or all names."""
    if not isinstance(name, str) or name not in _AUGMENTATIONS:
        raise ConfigError(f"unknown name {name!r}{did_you_mean(name, _AUGMENTATIONS)}")
    return _AUGMENTATIONS[name]

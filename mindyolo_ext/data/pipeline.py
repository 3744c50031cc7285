"""Load a photo and apply the steps of a recipe. Uses NumPy and OpenCV only.

The steps are functions in ``data.augment`` and in the families' ``augment.py``;
``models.registry.load_augmentations`` registers the latter, so call it before ``build_pipeline`` if
a recipe may name them.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mindyolo_ext.data.augment.geometry import resize
from mindyolo_ext.data.augment.registry import (
    Augmentation,
    AugmentContext,
    find_augmentation,
)
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.types import Sample
from mindyolo_ext.errors import ConfigError, did_you_mean
from mindyolo_ext.input_spec import InputSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """An augmentation with its keywords from a recipe.

    It holds the function itself, so a worker process needs no registry.
    """

    augmentation: Augmentation
    keywords: Mapping[str, Any]

    def __call__(self, sample: Sample, context: AugmentContext) -> Sample:
        return self.augmentation.function(sample, context, **self.keywords)

    @property
    def is_resize(self) -> bool:
        """Whether it resizes the photo to the network input."""
        return self.augmentation.function is resize

    def max_boxes(self, boxes: int) -> int:
        """Return the maximum number of boxes it returns for images of up to ``boxes`` boxes."""
        most = boxes * self.augmentation.images
        keywords = {**self.augmentation.defaults, **self.keywords}
        return int(min(most, keywords.get("max_boxes", most)))


class Pipeline:
    """Load a photo and apply the steps in order; created by ``build_pipeline``."""

    def __init__(
        self, steps: Sequence[Step], input_spec: InputSpec, dataset: Dataset, seed: int = 0
    ):
        self.steps = list(steps)
        self.input_spec = input_spec
        self.dataset = dataset
        self.seed = seed

    def __call__(self, index: int, epoch: int = 0, size: tuple[int, int] | None = None) -> Sample:
        """Return photo ``index`` as augmented in ``epoch``, in pixels of the network input.

        Args:
            index: index in the data set.
            epoch: part of the random seed.
            size: (height, width) instead of the spec's, for training at several sizes and
                rectangular evaluation.

        Raises: ConfigError if the steps return another size; errors of reading and of the steps.
        """
        spec = self.input_spec if size is None else self.input_spec.in_frame(size)
        rng = np.random.default_rng([self.seed, epoch, index, 2])
        context = AugmentContext(rng, self.dataset, spec, epoch, index)
        sample = self.dataset.load(index)
        for step in self.steps:
            sample = step(sample, context)
        if sample.placement is None or sample.image.shape != (*spec.size, 3):
            raise ConfigError(
                f"pipeline: wanted an image {(*spec.size, 3)} after the last step, got "
                f"{sample.image.shape}: steps after resize must keep the size"
            )
        return sample

    @property
    def max_boxes(self) -> int:
        """Return the maximum number of boxes of a sample, without ignored ones.

        Steps that combine images multiply the data set's maximum, a step with a keyword
        ``max_boxes`` limits it.
        """
        most = self.dataset.max_boxes()
        for step in self.steps:
            most = step.max_boxes(most)
        return most


def build_pipeline(
    steps: Sequence[Mapping[str, Any] | str],
    input_spec: InputSpec,
    dataset: Dataset,
    *,
    seed: int = 0,
) -> Pipeline:
    """Build the pipeline that a recipe describes.

    Args:
        steps: each a mapping with ``name`` and the keywords of that augmentation, or just the name.
            ``resize`` is added as the last step if the list does not name it.
        input_spec: input convention of the model. Images from steps other than ``resize`` fill the
            input, without ``border``.
        dataset: source of the photos.
        seed: seed of all random numbers.

    Raises: ConfigError for an unknown step or keyword, a value of the wrong kind, or a step in the
        wrong place.
    """
    built: list[Step] = []
    for number, description in enumerate(steps, 1):
        step = _step(f"augmentation step {number}", description)
        _check_place(f"augmentation step {number} ({step.augmentation.name})", step, built, dataset)
        built.append(step)
    resizes = sum(step.is_resize for step in built)
    if resizes > 1:
        raise ConfigError(
            f"augmentation: wanted {resize.__name__} at most once, got it {resizes} times"
        )
    if len(built) > resizes:
        input_spec = replace(input_spec, border=None)
    if not resizes:
        built.append(_step("augmentation", resize.__name__))
    return Pipeline(built, input_spec, dataset, seed)


def check_steps(steps: Sequence[Mapping[str, Any] | str]) -> None:
    """Check that all steps of a recipe exist and accept their keywords, without a data set.

    Raises: ConfigError as ``build_pipeline``.
    """
    for number, description in enumerate(steps, 1):
        _step(f"augmentation step {number}", description)


def _step(where: str, description: Mapping[str, Any] | str) -> Step:
    """Create the step that a recipe's name or mapping describes."""
    keywords = {"name": description} if isinstance(description, str) else dict(description)
    try:
        augmentation = find_augmentation(keywords.pop("name", None))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    where, defaults = f"{where} ({augmentation.name})", augmentation.defaults
    for key, value in keywords.items():
        if key not in defaults:
            raise ConfigError(f"{where}: unknown keyword {key}{did_you_mean(key, defaults)}")
        keywords[key] = _checked(f"{where}: {key}", key, value, defaults[key])
    if augmentation.check is not None:
        try:
            augmentation.check(keywords)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    return Step(augmentation, keywords)


def _check_place(where: str, step: Step, before: Sequence[Step], dataset: Dataset) -> None:
    """Reject a step in the wrong place or without the outlines that it needs; warn about a step
    that has no effect on the data set.
    """
    if step.augmentation.from_photo and before:
        raise ConfigError(
            f"{where}: must be the first step, because it needs unchanged images, got "
            f"{before[-1].augmentation.name} before it"
        )
    if step.augmentation.needs_polygons and not dataset.has_polygons:
        raise ConfigError(
            f"{where}: wanted outlines of the objects, {dataset.name} has none; set polygons: true "
            "in data.train to read those of COCO json and YOLO text files"
        )
    if step.augmentation.wants_polygons and not dataset.has_polygons:
        logger.warning(
            "%s has no effect: %s has no outlines; set polygons: true to read those of COCO json "
            "and YOLO text files",
            where,
            dataset.name,
        )


def _checked(where: str, key: str, value: Any, default: Any) -> Any:
    """Convert ``value`` to the kind of ``default``: a list (default empty), a range (low, high) or
    a number; a probability must be in 0..1.
    """
    if default == ():
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} must be a list, got {value!r}")
        return value
    if isinstance(default, tuple):
        if not (
            isinstance(value, (list, tuple))
            and len(value) == 2
            and all(map(_is_number, value))
            and value[0] <= value[1]
        ):
            raise ConfigError(f"{where} must be a range [low, high], got {value!r}")
        return tuple(value)
    if not _is_number(value):
        raise ConfigError(f"{where} must be a number, got {value!r}")
    if key.endswith("probability") and not 0 <= value <= 1:
        raise ConfigError(f"{where} must be in 0..1, got {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)

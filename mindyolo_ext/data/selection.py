"""A part of a data set: some of its classes, all classes as one, a share of its images."""

import logging
from collections.abc import Sequence

import numpy as np

from mindyolo_ext.class_match import listed, place_of
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.errors import ConfigError, DataError, did_you_mean, shown

logger = logging.getLogger(__name__)
ONE_CLASS = "object"  # what all classes together are called
_STREAM = 3  # of random numbers, apart from those of the loader and of the images


def selected(
    dataset: Dataset,
    *,
    classes: Sequence[str | int] = (),
    single_cls: bool = False,
    fraction: float = 1.0,
    seed: int = 0,
) -> Dataset:
    """The part of a data set that a recipe asks for; a log line says what is left of it.

    Args:
        classes: names, or numbers in the order of the data set, of the classes that stay, in the
            order in which they are numbered from 0 afterwards; empty for all.
        single_cls: make all classes that stay one, called ``object`` unless there is one only.
        fraction: share of the images that stay, above 0.
        seed: of the choice of images.

    Raises: ConfigError for a class that the data set does not have or that is there twice;
        DataError if no box is left.
    """
    if classes:
        dataset = only_classes(dataset, classes)
    if single_cls:
        dataset = as_one_class(dataset)
    return dataset if fraction == 1 else share_of(dataset, fraction, seed)


def only_classes(dataset: Dataset, classes: Sequence[str | int]) -> Dataset:
    """The data set with the boxes of some classes alone. All images stay, those without such a
    box as images of the background.

    Args and Raises: as ``selected``.
    """
    labels = _labels_of(dataset, classes)
    place_of = np.full(len(dataset.class_names), -1)
    place_of[labels] = np.arange(len(labels))
    names = [dataset.class_names[label] for label in labels]
    picked = dataset.relabeled(place_of, names, [dataset.category_ids[label] for label in labels])
    before, after = dataset.boxes_per_image(), picked.boxes_per_image()
    if before.any() and not after.any():
        raise DataError(
            f"{dataset.name}: none of its {before.sum()} boxes is of data.classes {listed(names)}; "
            f"it has boxes of {listed(_with_boxes(dataset))}"
        )
    logger.info(
        "%s: data.classes keeps %s: %d of %d boxes; %d image(s) have none of them and stay as "
        "background",
        dataset.name,
        listed(names),
        after.sum(),
        before.sum(),
        (after == 0).sum(),
    )
    return picked


def as_one_class(dataset: Dataset) -> Dataset:
    """The data set with all its classes as one; itself if it has one class only."""
    count = len(dataset.class_names)
    if count == 1:
        return dataset
    logger.info("%s: data.single_cls makes its %d classes one", dataset.name, count)
    return dataset.relabeled(np.zeros(count, np.int64), [ONE_CLASS], [1])


def share_of(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """A share of the images, chosen at random, in the order of the data set. What a smaller share
    of the same seed holds, a larger one holds too.

    Args:
        fraction: above 0 and at most 1; one image is the least.
        seed: of the choice.
    """
    count = max(1, round(fraction * len(dataset)))
    order = np.random.default_rng([seed, 0, 0, _STREAM]).permutation(len(dataset))
    logger.info(
        "%s: data.fraction %g keeps %d of %d images, chosen by seed %d",
        dataset.name,
        fraction,
        count,
        len(dataset),
        seed,
    )
    return dataset.only_images(np.sort(order[:count]))


def _labels_of(dataset: Dataset, classes: Sequence[str | int]) -> list[int]:
    """The label of each class that ``classes`` names or numbers."""
    names = dataset.class_names
    found: list[int] = []
    for wanted in classes:
        label = place_of(wanted, names) if isinstance(wanted, str) else wanted
        if label is None:
            hint = did_you_mean(wanted, names)
            raise ConfigError(f"data.classes: {dataset.name} has no class {shown(wanted)}{hint}")
        if not 0 <= label < len(names):
            raise ConfigError(
                f"data.classes: wanted a number from 0 to {len(names) - 1}, for the classes of "
                f"{dataset.name}, got {label}"
            )
        if label in found:
            raise ConfigError(f"data.classes: names {shown(names[label])} twice")
        found.append(label)
    return found


def _with_boxes(dataset: Dataset) -> list[str]:
    """The classes that have boxes."""
    return [dataset.class_names[label] for label in np.flatnonzero(dataset.class_counts())]

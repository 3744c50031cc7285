"""Select a part of a data set: some classes, all classes merged, or a share of the images."""

import logging
from collections.abc import Sequence

import numpy as np

from mindyolo_ext.class_match import listed, place_of
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.errors import ConfigError, DataError, did_you_mean, shown

logger = logging.getLogger(__name__)
ONE_CLASS = "object"  # name of all classes merged into one
_STREAM = 3  # random stream; loader and images have others


def selected(
    dataset: Dataset,
    *,
    classes: Sequence[str | int] = (),
    single_cls: bool = False,
    fraction: float = 1.0,
    seed: int = 0,
) -> Dataset:
    """Return the part of a data set that a recipe selects, and log its size.

    Args:
        classes: names or numbers of the classes to keep, in their new order; empty for all.
        single_cls: whether to merge the kept classes into one, named ``object`` if there are more.
        fraction: share of the images to keep, above 0.
        seed: seed of the choice of images.

    Raises: ConfigError for an unknown or duplicate class; DataError if no box is left.
    """
    if classes:
        dataset = only_classes(dataset, classes)
    if single_cls:
        dataset = as_one_class(dataset)
    return dataset if fraction == 1 else share_of(dataset, fraction, seed)


def only_classes(dataset: Dataset, classes: Sequence[str | int]) -> Dataset:
    """Keep only the boxes of some classes. All images are kept, those without such a box as
    background.

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
    """Merge all classes into one; return the data set itself if it has only one class."""
    count = len(dataset.class_names)
    if count == 1:
        return dataset
    logger.info("%s: data.single_cls merges its %d classes into one", dataset.name, count)
    return dataset.relabeled(np.zeros(count, np.int64), [ONE_CLASS], [1])


def share_of(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Keep a random share of the images, in the order of the data set. With the same seed, a larger
    share contains every smaller one.

    Args:
        fraction: share above 0 and at most 1; at least one image is kept.
        seed: seed of the choice.
    """
    count = max(1, round(fraction * len(dataset)))
    order = np.random.default_rng([seed, 0, 0, _STREAM]).permutation(len(dataset))
    logger.info(
        "%s: data.fraction %g keeps %d of %d images, selected by seed %d",
        dataset.name,
        fraction,
        count,
        len(dataset),
        seed,
    )
    return dataset.only_images(np.sort(order[:count]))


def _labels_of(dataset: Dataset, classes: Sequence[str | int]) -> list[int]:
    """Return the label of each class in ``classes``, given by name or number."""
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
            raise ConfigError(f"data.classes: duplicate class {shown(names[label])}")
        found.append(label)
    return found


def _with_boxes(dataset: Dataset) -> list[str]:
    """Return the names of classes that have boxes."""
    return [dataset.class_names[label] for label in np.flatnonzero(dataset.class_counts())]

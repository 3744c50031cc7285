"""Make sure that the labels of a checkpoint and of a data set mean the same classes."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mindyolo_ext.class_match import ClassMatch, Relation, are_known, listed, match_classes
from mindyolo_ext.config import Config
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.errors import ConfigError, UsageError

logger = logging.getLogger(__name__)
NAME_THEM = (
    "if its names are missing or wrong, convert the original again with `mindyolo-ext convert "
    "--names FILE`"
)


def in_order_of(
    class_names: Sequence[str], dataset: Dataset, *, owner: str | Path, data: str
) -> Dataset:
    """``dataset`` with its labels in the order of a network's classes, to evaluate the network.

    Names are compared as ``match_classes`` does. A different order is logged. So is a network
    without class names; its numbers are then assumed to be those of the data set.

    Args:
        class_names: of the network, in the order of its scores; empty if it has none.
        owner: the network's file, for messages.
        data: name of the data set in messages, for example ``data.val``.

    Raises: UsageError if the classes differ.
    """
    match = match_classes(class_names, dataset.class_names)
    if match.relation is Relation.DIFFERENT:
        raise UsageError(
            f"{owner}: its classes are not those of {data}: "
            f"{_difference(match, 'the network', data)}. Evaluate it on data with its "
            f"{len(class_names)} classes, even if some have no boxes; {NAME_THEM}"
        )
    if match.relation is Relation.UNKNOWN:
        _warn_of_unknown(class_names, dataset.class_names, owner, data)
    if match.relation is not Relation.REORDERED:
        return dataset
    logger.warning(
        "%s: %s has the same classes in another order; they are matched by name (%s)",
        owner,
        data,
        listed(class_names),
    )
    return dataset.with_classes([dataset.class_names[index] for index in match.order])


def in_recipe_order(class_names: Sequence[str], dataset: Dataset, *, data: str) -> Dataset:
    """``dataset`` with its labels in the order of the recipe's ``data.class_names``.

    Args:
        data: name of the data set in messages, for example ``data.val``.

    Raises: ConfigError if its classes differ.
    """
    match = match_classes(class_names, dataset.class_names)
    if match.aligned:
        return dataset
    if match.relation is Relation.REORDERED:
        logger.info("%s: uses the order of data.class_names (%s)", data, listed(class_names))
        return dataset.with_classes([dataset.class_names[index] for index in match.order])
    difference = match.difference("data.class_names", data)
    raise ConfigError(
        f"config: data.class_names [{listed(class_names)}] are not those of {data}: "
        f"[{listed(dataset.class_names)}]" + (f" ({difference})" if difference else "")
    )


def as_in_training(validation: Dataset, training: Dataset) -> Dataset:
    """``validation`` with its labels in the order of the training's classes.

    Raises: ConfigError if its classes differ.
    """
    match = match_classes(training.class_names, validation.class_names)
    if match.aligned:
        return validation
    if match.relation is Relation.REORDERED:
        logger.warning(
            "data.val has the classes of data.train in another order; they are matched by name "
            "(%s)",
            listed(training.class_names),
        )
        return validation.with_classes([validation.class_names[index] for index in match.order])
    if match.relation is Relation.UNKNOWN and _as_many(training, validation):
        _warn_of_unknown(
            training.class_names, validation.class_names, "data.train", "data.val", advice=""
        )
        return validation
    raise ConfigError(
        f"config: the classes of data.val are not those of data.train: "
        f"{_difference(match, 'data.train', 'data.val')}. data.train has "
        f"{len(training.class_names)} ({listed(training.class_names)}), data.val "
        f"{len(validation.class_names)} ({listed(validation.class_names)}); both must name the "
        "same classes, including those without a box"
    )


def start_order(class_names: Sequence[str], dataset: Dataset, config: Config) -> list[str]:
    """``data.class_names`` of a training that starts from a checkpoint: the checkpoint's order if
    it has the same classes in another order, otherwise the recipe's setting.

    Different classes, as in fine-tuning, are logged.

    Args:
        class_names: of the checkpoint ``train.weight``.
        dataset: the training images.

    Raises: ConfigError if the recipe itself sets another order of the same classes.
    """
    weight, wanted = config.train.weight, config.data.class_names
    match = match_classes(class_names, dataset.class_names)
    if match.relation is Relation.DIFFERENT:
        logger.warning(
            "%s: its classes are not those of data.train: %s. The training uses those of "
            "data.train",
            weight,
            _difference(match, weight, "data.train"),
        )
    if match.relation is Relation.UNKNOWN and len(class_names) in (0, len(dataset.class_names)):
        _warn_of_unknown(class_names, dataset.class_names, weight, "data.train")
    if match.relation is not Relation.REORDERED:
        return wanted
    if wanted:
        raise ConfigError(
            f"config: data.class_names has the classes of train.weight {weight} in another order "
            f"({listed(class_names)}); leave data.class_names out, and the training uses the "
            "order of the checkpoint"
        )
    logger.warning(
        "%s: data.train has its classes in another order; this training uses the order of the "
        "checkpoint (%s)",
        weight,
        listed(class_names),
    )
    return [dataset.class_names[index] for index in match.order]


def check_teacher(class_names: Sequence[str], dataset: Dataset, *, teacher: str | Path) -> None:
    """Make sure that class i of a teacher is class i of the data. Raises: ConfigError if not."""
    match = match_classes(class_names, dataset.class_names)
    if match.relation is Relation.UNKNOWN:
        _warn_of_unknown(class_names, dataset.class_names, teacher, "data.train")
        return
    if match.aligned:
        return
    if match.relation is Relation.REORDERED:
        raise ConfigError(
            f"train.distill.teacher: {teacher} has the classes of data.train in another order "
            f"({listed(class_names)}); set data.class_names to the teacher's order, and the data "
            "follows"
        )
    raise ConfigError(
        f"train.distill.teacher: the classes of {teacher} are not those of data.train: "
        f"{_difference(match, teacher, 'data.train')}; a teacher must have the same classes"
    )


def _difference(match: ClassMatch, owner: str | Path, data: str) -> str:
    """The names that only one of the two has."""
    return match.difference(str(owner), data) or "duplicate name"


def _as_many(one: Dataset, other: Dataset) -> bool:
    """Whether both have the same number of classes."""
    return len(one.class_names) == len(other.class_names)


def _warn_of_unknown(
    class_names: Sequence[str],
    others: Sequence[str],
    owner: str | Path,
    data: str,
    *,
    advice: str = NAME_THEM,
) -> None:
    """Warn that the order of the classes cannot be checked."""
    if are_known(class_names):
        nameless, its, named, names = data, others, owner, class_names
    else:
        nameless, its, named, names = owner, class_names, data, others
    logger.warning(
        "%s: does not contain class names (it has %s), so they are assumed to be those of %s in "
        "the same order (%s). If they are not, boxes get wrong names%s",
        nameless,
        listed(its) or "none",
        named,
        listed(names),
        f"; {advice}" if advice else "",
    )

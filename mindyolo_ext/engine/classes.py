"""A checkpoint's classes and a data set's: the labels of one must mean those of the other."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mindyolo_ext.class_match import ClassMatch, Relation, are_known, listed, match_classes
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.errors import ConfigError, UsageError

logger = logging.getLogger(__name__)
NAME_THEM = "`mindyolo-ext convert --names FILE` writes names into a converted checkpoint"


def in_order_of(
    class_names: Sequence[str], dataset: Dataset, *, owner: str | Path, data: str
) -> Dataset:
    """``dataset`` with its labels in the order of a network's classes, to evaluate the network.

    Names are compared as ``match_classes`` does. Another order is said, and so is a network that
    does not name its classes; its numbers are then taken for those of the data set.

    Args:
        class_names: of the network, in the order of its scores; empty if it has none.
        owner: the network's file, for messages.
        data: what messages call the data set, for example ``data.val``.

    Raises: UsageError if the classes are others.
    """
    match = match_classes(class_names, dataset.class_names)
    if match.relation is Relation.DIFFERENT:
        raise UsageError(
            f"{owner}: its classes are not those of {data}: {_difference(match, owner, data)}. "
            f"It was trained on {listed(class_names)}; {data} has {listed(dataset.class_names)}. "
            f"Evaluate it on data with its classes; {NAME_THEM}"
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


def start_order(
    class_names: Sequence[str], dataset: Dataset, *, weight: str | Path
) -> list[str] | None:
    """The order in which a training takes the classes of ``dataset`` to start from a checkpoint
    that has the same ones in another order; None if the order of the data set is right.

    Other classes are told, for they are what fine-tuning is for.

    Args:
        class_names: of the checkpoint ``weight``.
    """
    match = match_classes(class_names, dataset.class_names)
    if match.relation is Relation.REORDERED:
        logger.warning(
            "%s: data.train has its classes in another order; this training takes the order of "
            "the checkpoint (%s)",
            weight,
            listed(class_names),
        )
        return [dataset.class_names[index] for index in match.order]
    if match.relation is Relation.DIFFERENT:
        logger.warning(
            "%s: its classes are not those of data.train: %s. The training learns those of "
            "data.train",
            weight,
            _difference(match, weight, "data.train"),
        )
    if match.relation is Relation.UNKNOWN:
        _warn_of_unknown(class_names, dataset.class_names, weight, "data.train")
    return None


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
        f"{_difference(match, teacher, 'data.train')}; a teacher must know the same classes"
    )


def _difference(match: ClassMatch, owner: str | Path, data: str) -> str:
    """Which names only one of the two has."""
    return match.difference(str(owner), data) or "a name is there twice"


def _warn_of_unknown(
    class_names: Sequence[str], others: Sequence[str], owner: str | Path, data: str
) -> None:
    """Say that nobody can tell whether the order of the classes is right."""
    if are_known(class_names):
        nameless, its, named, names = data, others, owner, class_names
    else:
        nameless, its, named, names = owner, class_names, data, others
    logger.warning(
        "%s: does not say its class names (it has %s), so they are taken to be those of %s in the "
        "same order (%s). If they are not, boxes get wrong names. %s",
        nameless,
        listed(its) or "none",
        named,
        listed(names),
        NAME_THEM,
    )

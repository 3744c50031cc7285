"""Check whether data sets are ready for training and evaluation, without reading pixels. Used by
training and by ``check-data``.
"""

import logging
from collections.abc import Sequence

import numpy as np

from mindyolo_ext.class_match import Relation, listed, match_classes
from mindyolo_ext.data.collector import raise_faults
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.image_file import IMAGE_SUFFIXES
from mindyolo_ext.data.types import Problem
from mindyolo_ext.errors import shown

logger = logging.getLogger(__name__)
_CROWDED = 2000  # boxes per image, far more than usual
_MANY = 0.5  # share of images or boxes above which a problem concerns the whole set


def require_ready(train: Dataset, val: Dataset | None = None) -> None:
    """Log the warnings of ``check_before_training``. Raises: DataError that lists its faults."""
    problems = check_before_training(train, val)
    for problem in problems:
        if not problem.fatal:
            logger.warning("%s: %s", shown(problem.where, 400), shown(problem.message, 400))
    raise_faults("data", problems)


def check_before_training(train: Dataset, val: Dataset | None = None) -> list[Problem]:
    """Find problems that would stop training on ``train`` with evaluations on ``val``, or spoil its
    result.

    Uses the labels only and opens no image. Faults of single files and boxes are in
    ``Dataset.problems`` instead.

    Args:
        train: images to train on.
        val: images to evaluate on, None without evaluation.

    Returns: faults of the set as a whole (``Problem.fatal``), and warnings.
    """
    problems = check_boxes(train) + _unused_classes(train) + _crowded(train)
    if val is not None:
        problems += check_before_evaluation(val, train)
    return list(dict.fromkeys(problems))


def check_before_evaluation(val: Dataset, train: Dataset | None = None) -> list[Problem]:
    """Find problems that would stop an evaluation on ``val`` of a network trained on ``train``, or
    distort its result.
    """
    problems = check_boxes(val, evaluated=True)
    if train is not None:
        problems += check_classes(train.class_names, val, train.name) + _shared_images(train, val)
    return problems


def check_boxes(dataset: Dataset, *, evaluated: bool = False) -> list[Problem]:
    """Check that the set has boxes and that most were not lost.

    Args:
        evaluated: whether the set is for evaluation instead of training.
    """
    counts = dataset.problem_counts()
    boxes = int(dataset.boxes_per_image().sum())
    if not boxes:
        way_out = "; train.run_eval=false trains without evaluation" if evaluated else ""
        message = f"wanted at least one box, got none{_why(dataset)}{way_out}"
        return [_fault("no boxes", dataset, message)]
    labeled = int((dataset.boxes_per_image() > 0).sum()) + counts["lost boxes"]
    if counts["lost boxes"] > _MANY * labeled:
        message = f"{counts['lost boxes']} of {labeled} images with labels lost all their boxes"
        return [_fault("most boxes lost", dataset, message + _units(dataset))]
    if counts["far box"] > _MANY * (boxes + counts["dropped box"]):
        message = f"{counts['far box']} boxes reach far outside their images"
        return [_fault("most boxes lost", dataset, message + _units(dataset))]
    unlabeled = counts["no label file"]
    if unlabeled > _MANY * len(dataset):
        message = f"{unlabeled} of {len(dataset)} images have no label file"
        return [
            _doubt(dataset, message + _first(dataset, "no label file", "the first one should be"))
        ]
    return []


def check_classes(wanted: Sequence[str], dataset: Dataset, owner: str) -> list[Problem]:
    """Check that the classes of ``dataset`` are ``wanted``, the classes of ``owner``."""
    match = match_classes(wanted, dataset.class_names)
    its = f"{owner} has {len(wanted)} ({listed(wanted)}), this {len(dataset.class_names)} "
    its += f"({listed(dataset.class_names)})"
    if match.relation is Relation.REORDERED:
        message = f"the classes of {owner} in another order, which are matched by name: {its}"
        return [_doubt(dataset, message)]
    if match.relation is Relation.DIFFERENT or len(wanted) != len(dataset.class_names):
        difference = match.difference(owner, "this set")
        message = f"wanted the classes of {owner}, got others: {its}"
        message += f"; {difference}" if difference else ""
        return [_fault("other classes", dataset, f"{message}. Both must name the same classes")]
    return []


def check_recipe_classes(
    dataset: Dataset, class_names: Sequence[str], num_classes: int | None
) -> list[Problem]:
    """Check the classes against the recipe's ``data`` section, if it names any."""
    own = len(dataset.class_names)
    if class_names:
        return check_classes(class_names, dataset, "data.class_names")
    if num_classes and num_classes != own:
        message = f"has {own} classes ({listed(dataset.class_names)}), data.num_classes is "
        return [_fault("other classes", dataset, f"{message}{num_classes}")]
    return []


def _why(dataset: Dataset) -> str:
    """Explain why there is no box."""
    counts = dataset.problem_counts()
    if not len(dataset):
        return f": there are no images ({', '.join(IMAGE_SUFFIXES)})"
    if counts["no label file"] == len(dataset):
        first = _first(dataset, "no label file", "the first one should be")
        return f": no image has a label file{first}; the key labels sets their folder"
    if counts["lost boxes"]:
        return f": all are outside their images{_units(dataset)}"
    if dataset.max_boxes() == 0 and any(len(dataset.labels(i)) for i in range(len(dataset))):
        return ": all are crowds or difficult, and ignored"
    if any(problem.fatal for problem in dataset.problems):
        return ", see its other faults"
    return f": the labels of its {len(dataset)} image(s) are empty"


def _units(dataset: Dataset) -> str:
    """Suggest other units of the boxes, with the first suspicious box."""
    kind = "far box" if dataset.problem_counts()["far box"] else "dropped box"
    first = _first(dataset, kind, "the first:")
    if dataset.relative:
        return (
            f"{first}. Labels are fractions of width and height, 0..1; are these pixels? Divide "
            "x by the width and y by the height"
        )
    return f"{first}. Labels are pixels of the image; were the images scaled or replaced?"


def _first(dataset: Dataset, kind: str, words: str) -> str:
    """Return ``; WORDS PLACE`` for the first problem of a kind, empty if there is none."""
    found = next((p for p in dataset.problems if p.kind == kind), None)
    return "" if found is None else f"; {words} {found.where}"


def _unused_classes(dataset: Dataset) -> list[Problem]:
    """Find classes without training boxes."""
    counts = dataset.class_counts()
    unused = [dataset.class_names[label] for label in np.flatnonzero(counts == 0)]
    if not unused or not counts.any():
        return []
    message = f"{len(unused)} of {len(counts)} classes have no boxes to train on: {listed(unused)}"
    return [_doubt(dataset, message)]


def _crowded(dataset: Dataset) -> list[Problem]:
    """Find an image with so many boxes that every batch, which is padded to the maximum, is
    slow.
    """
    counts = dataset.boxes_per_image()
    if counts.max(initial=0) <= _CROWDED:
        return []
    message = (
        f"{dataset.paths[int(counts.argmax())]} has {counts.max()} boxes; memory and time of every "
        "step grow with the largest number. Are they correct? data.max_boxes limits it"
    )
    return [_doubt(dataset, message)]


def _shared_images(train: Dataset, val: Dataset) -> list[Problem]:
    """Find images that are in both sets, which makes results look too good."""
    shared = set(train.paths) & set(val.paths)
    if not shared:
        return []
    message = f"{len(shared)} of {len(val)} images are also training images, such as {min(shared)}"
    return [_doubt(val, message)]


def _fault(kind: str, dataset: Dataset, message: str) -> Problem:
    return Problem(kind, dataset.name, message)


def _doubt(dataset: Dataset, message: str) -> Problem:
    return Problem("doubtful set", dataset.name, message)

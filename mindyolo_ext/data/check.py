"""Report the content of a data set and its problems, for ``mindyolo-ext check-data``."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from tabulate import tabulate

from mindyolo_ext.data.collector import SIZE_FAULTS
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.image_file import image_orientation
from mindyolo_ext.data.types import Annotations, Problem
from mindyolo_ext.errors import MissingFileError, UserError, shown
from mindyolo_ext.progress import bar

_SMALL, _LARGE = 32**2, 96**2  # box areas that COCO calls small and large
_SLIVER = 20.0  # a box with this aspect ratio or more is suspicious
_LONGEST = 400  # maximum length of a file name or message
_AHEAD = 1000  # images submitted to the threads at a time


@dataclass
class DatasetReport:
    """The findings of ``check_dataset``.

    Args:
        name: name of the data set.
        class_names: class names of the data set.
        images, boxes, ignored: counts; ``boxes`` does not include ignored ones.
        images_without_boxes: image files without boxes.
        class_counts: (K,) boxes per class; ``class_images`` (K,) images per class.
        box_sizes: (N, 2) width and height of the boxes in photo pixels; ``box_fractions`` (N,)
            their share of the image's area.
        image_sizes: (n, 2) height and width of the readable images.
        boxes_per_image: (n,) for every image.
        problems: everything suspicious; problems with ``fatal`` must be fixed before training.
    """

    name: str
    class_names: list[str]
    images: int
    boxes: int
    ignored: int
    class_counts: np.ndarray
    class_images: np.ndarray
    box_sizes: np.ndarray
    box_fractions: np.ndarray
    image_sizes: np.ndarray
    boxes_per_image: np.ndarray
    images_without_boxes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether training can start: nothing is missing, broken or malformed."""
        return not any(problem.fatal for problem in self.problems)

    def table(self, max_rows: int = 20) -> str:
        """Format the report as text, with at most ``max_rows`` classes and problems of each
        kind.
        """
        parts = [tabulate(self._summary(), tablefmt="simple", disable_numparse=True)]
        order = np.argsort(-self.class_counts, kind="stable")
        rows = [
            (
                label,
                shown(self.class_names[label]),
                self.class_counts[label],
                self.class_images[label],
            )
            for label in order[:max_rows]
        ]
        parts.append(
            tabulate(rows, headers=("label", "class", "boxes", "images"), tablefmt="simple")
        )
        if len(order) > max_rows:
            parts.append(
                f"... and {len(order) - max_rows} more classes, "
                f"{int((self.class_counts[order[max_rows:]] == 0).sum())} of them without boxes"
            )
        if len(self.box_sizes):
            parts.append(
                tabulate(
                    self._size_rows(),
                    floatfmt=".1f",
                    tablefmt="simple",
                    headers=("boxes, photo pixels", "min", "5 %", "median", "95 %", "max"),
                )
            )
        parts += self._problem_lists(max_rows)
        parts.append("ready for training" if self.ok else "NOT ready for training")
        return "\n\n".join(parts)

    def _problem_lists(self, max_rows: int) -> list[str]:
        """Format each kind of problem, faults last, next to the verdict."""
        kinds: dict[str, list[Problem]] = {}
        for problem in self.problems:
            kinds.setdefault(problem.kind, []).append(problem)
        parts = []
        for kind, found in sorted(
            kinds.items(), key=lambda item: (item[1][0].fatal, -len(item[1]))
        ):
            lines = [f"{kind}: {len(found)}{' (must be fixed)' if found[0].fatal else ''}"]
            lines += [
                f"  {shown(problem.where, _LONGEST)}: {shown(problem.message, _LONGEST)}"
                for problem in found[:max_rows]
            ]
            if len(found) > max_rows:
                lines.append(f"  ... and {len(found) - max_rows} more")
            parts.append("\n".join(lines))
        return parts

    def _summary(self) -> list[tuple[str, str]]:
        """Return the rows of the first table."""
        areas = self.box_sizes.prod(1)
        small, large = int((areas < _SMALL).sum()), int((areas >= _LARGE).sum())
        sides = (
            [
                f"{low}..{high}"
                for low, high in zip(self.image_sizes.min(0), self.image_sizes.max(0), strict=True)
            ]
            if len(self.image_sizes)
            else ["-", "-"]
        )
        return [
            ("data set", shown(self.name, _LONGEST)),
            ("images", str(self.images)),
            ("  readable", str(len(self.image_sizes))),
            ("  height, width", ", ".join(sides)),
            ("  without boxes", str(len(self.images_without_boxes))),
            ("boxes", str(self.boxes)),
            ("  ignored (crowd, difficult)", str(self.ignored)),
            ("  maximum per image", str(int(self.boxes_per_image.max(initial=0)))),
            ("  small / medium / large", f"{small} / {len(areas) - small - large} / {large}"),
            ("classes", str(len(self.class_names))),
            ("  without boxes", str(int((self.class_counts == 0).sum()))),
        ]

    def _size_rows(self) -> list[tuple[str, float, float, float, float, float]]:
        """Return the rows of the table of box sizes."""
        steps = (0, 5, 50, 95, 100)
        values = (
            ("width", self.box_sizes[:, 0]),
            ("height", self.box_sizes[:, 1]),
            ("share of the image, %", 100 * self.box_fractions),
        )
        return [(name, *np.percentile(column, steps).tolist()) for name, column in values]


def check_dataset(dataset: Dataset, *, progress: bool = True) -> DatasetReport:
    """Load every image of a data set on all processors and check every box.

    Build the data set with ``strict=False``, so faulty labels are reported instead of raised.

    Args:
        dataset: the data set to check.
        progress: show a progress bar.
    """
    count = len(dataset.class_names)
    report = DatasetReport(
        dataset.name,
        dataset.class_names,
        len(dataset),
        0,
        0,
        np.zeros(count, int),
        np.zeros(count, int),
        np.zeros((0, 2)),
        np.zeros(0),
        np.zeros((0, 2), int),
        np.zeros(len(dataset), int),
        problems=list(dataset.problems),
    )
    known = {(problem.kind, problem.where) for problem in dataset.problems}
    sizes, box_sizes, fractions = [], [], []
    findings = bar(_findings(dataset), total=len(dataset), title="checking", show=progress)
    for index, (size, problems) in enumerate(findings):
        path = dataset.paths[index]
        if not len(dataset.labels(index)):
            report.images_without_boxes.append(path)
        if size is None:
            faults = {(problem.kind, path) for problem in problems}
            if not faults.union((kind, path) for kind in SIZE_FAULTS) & known:
                report.problems += problems
            continue
        sizes.append(size)
        report.problems += problems
        found = dataset.annotations(index)
        kept = ~found.ignore
        sides = (found.boxes[:, 2:] - found.boxes[:, :2])[kept]
        box_sizes.append(sides)
        fractions.append(sides.prod(1) / (found.height * found.width))
        report.boxes_per_image[index] = kept.sum()
        report.ignored += int(found.ignore.sum())
        report.class_counts += np.bincount(found.labels[kept], minlength=count)
        report.class_images[np.unique(found.labels[kept])] += 1
    report.image_sizes = np.array(sizes, int).reshape(-1, 2)
    report.box_sizes = np.concatenate([np.zeros((0, 2)), *box_sizes])
    report.box_fractions = np.concatenate([np.zeros(0), *fractions])
    report.boxes = int(report.class_counts.sum())
    return report


Finding = tuple[tuple[int, int] | None, list[Problem]]


def _findings(dataset: Dataset) -> Iterator[Finding]:
    """Yield the findings of each image, in order; images are decoded in parallel on all
    processors.
    """
    with ThreadPoolExecutor(_processors()) as pool:  # OpenCV releases Python's lock
        try:
            for begin in range(0, len(dataset), _AHEAD):
                some = range(begin, min(begin + _AHEAD, len(dataset)))
                yield from pool.map(partial(_finding, dataset), some)
        finally:
            pool.shutdown(cancel_futures=True)


def _processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _finding(dataset: Dataset, index: int) -> Finding:
    """Return (height, width) of an image and its problems; None and the reason for an unreadable
    one.
    """
    path = dataset.paths[index]
    try:
        size = dataset.load(index).size
    except UserError as error:
        kind = "missing image" if isinstance(error, MissingFileError) else "broken image"
        return None, [Problem(kind, path, str(error).removeprefix(f"{path}: "))]
    found = dataset.annotations(index)
    odd = _odd_boxes(path, found, dataset.class_names)
    return size, _turned(path, dataset.relative) + odd


def _turned(path: str, relative: bool) -> list[Problem]:
    """Return a warning if EXIF rotates or mirrors an image and the labels do not state which size
    they refer to.
    """
    found = image_orientation(path)
    if found == 1 or (found > 4 and not relative):
        return []
    message = (
        f"EXIF orientation {found}: boxes are assumed to refer to the image as viewers show it; if "
        "they were drawn on the stored pixels, they are misplaced"
    )
    return [Problem("turned image", path, message)]


def _odd_boxes(path: str, found: Annotations, class_names: list[str]) -> list[Problem]:
    """Find boxes that are duplicate, thinner than a pixel or extremely long."""
    boxes = found.boxes.astype(float)
    sides = boxes[:, 2:] - boxes[:, :2]
    short, long = sides.min(1), sides.max(1)
    keys = np.column_stack([found.labels, np.rint(boxes).astype(int)])
    first = np.unique(keys, axis=0, return_index=True)[1]
    is_first = np.isin(np.arange(len(boxes)), first)
    problems = []
    for row in np.flatnonzero(~is_first | (short < 1) | (long > _SLIVER * short)):
        numbers = ", ".join(f"{value:.1f}" for value in boxes[row])
        text = f"{class_names[found.labels[row]]} ({numbers}) xyxy"
        if not is_first[row]:
            problems.append(Problem("duplicate box", path, f"{text} is a duplicate"))
        elif short[row] < 1:
            problems.append(Problem("odd box", path, f"{text} is thinner than a pixel"))
        else:
            times = f"{long[row] / short[row]:.0f}"
            problems.append(Problem("odd box", path, f"{text} has an aspect ratio of {times}"))
    return problems

"""Collect images and boxes, repair boxes and report all faults at once. Uses NumPy only."""

import logging
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from mindyolo_ext.class_names import MAX_CLASSES
from mindyolo_ext.data.arrays import Arrays
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.image_file import IMAGE_SUFFIXES, image_orientation, image_size
from mindyolo_ext.data.types import Problem
from mindyolo_ext.errors import DataError, MissingFileError, shown

logger = logging.getLogger(__name__)
SIZE_FAULTS = ("other size", "turned labels")  # kinds of problems
LARGEST = 1e9  # pixels; boxes are clipped to this if the image's size is unknown
_LONGEST = 400  # maximum length of a file name or message in a report


class Collector:
    """Collect images and boxes from a reader, and repair boxes.

    Boxes that extend beyond the image are clipped and boxes without area are dropped; ``finish``
    logs the counts. Faults are collected too, so one run reports all of them.

    Args:
        name: name of the data set in messages.
        class_names: one name per label.
        relative: whether boxes are fractions of width and height, so the image's size is not
            needed.
        tolerance: how far a box may reach outside before it is counted as clipped, in the units of
            the boxes.
    """

    def __init__(self, name: str, class_names: Sequence[str], *, relative: bool, tolerance: float):
        self.name = name
        self.class_names = list(class_names)
        self.problems: list[Problem] = []
        self._relative = relative
        self._tolerance = tolerance
        self._paths: list[str] = []
        self._ids: list[int] = []
        self._sizes: list[tuple[int, int] | None] = []
        self._annotations: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._polygons: list[list[np.ndarray | None]] = []
        self._columns: Arrays | None = None
        if not self.class_names:
            raise DataError(f"{name}: wanted at least one class name, got none")
        if len(self.class_names) > MAX_CLASSES:
            raise DataError(
                f"{name}: wanted at most {MAX_CLASSES:,} classes, got {len(self.class_names):,}"
            )

    def report(self, kind: str, where: str, message: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(kind, where, message))

    def checked_size(
        self, path: str, written: tuple[int, int] | None, where: str, *, must_fit: bool
    ) -> tuple[int, int] | None:
        """Return (height, width) of an image, after checking that its labels were made for that
        size.

        Labels of the stored pixels of a photo that EXIF rotates, and labels of a copy of another
        size, are faults, because their boxes would be misplaced.

        Args:
            written: (height, width) according to the labels, None if they do not state it.
            where: file and place that state it.
            must_fit: whether any other size is a fault; otherwise it is a warning.

        Returns: the image's own size, or the labels' if they do not fit or the image is not
            readable.
        """
        try:
            size = image_size(path)
            is_turned = written != size and image_orientation(path) > 4  # rarely evaluated
        except MissingFileError:
            return written  # ``add`` reports it
        except DataError as error:
            self.report("broken image", path, str(error).removeprefix(f"{path}: "))
            return written
        if written is None and is_turned:
            message = "EXIF rotates it; boxes are assumed to refer to the image as viewers show it"
            self.report("turned image", path, message)
        if written is None or written == size:
            return size
        text = (
            f"the image is {size[1]}x{size[0]} (width x height), its labels were made for "
            f"{written[1]}x{written[0]} ({where})"
        )
        if written == size[::-1] and is_turned:
            text += (
                ", the stored pixels before EXIF rotates them upright. Label the upright image, "
                "or remove the orientation from the file: "
                f"exiftool -Orientation= {shlex.quote(path)}"
            )
            self.report("turned labels", path, text)
            return written
        if must_fit or _is_scaled(written, size):
            text += ", so its boxes would be misplaced; was it scaled after labeling?"
            self.report("other size", path, text)
            return written
        self.report("odd size", path, text)
        return size

    def add(
        self,
        path: str,
        image_id: int,
        size: tuple[int, int] | None,
        *,
        boxes: Iterable[Sequence[float]],
        labels: Iterable[int],
        ignore: Iterable[bool],
        where: Sequence[str],
        polygons: Sequence[np.ndarray | None] | None = None,
    ) -> None:
        """Add an image with its boxes.

        Args:
            size: (height, width), or None to read it from the file when needed.
            where: file and line of each box.
            polygons: the outline (points, 2) of each box in the boxes' units, None for a box
                without; outlines are clipped like boxes.
        """
        if not os.path.isfile(path):
            self.report("missing image", path, "no such image")
        boxes = np.array(list(boxes), np.float64).reshape(-1, 4)
        labels, ignore = np.array(list(labels), np.int64), np.array(list(ignore), bool)
        keep = self._well_formed(boxes, labels, where)
        if len(boxes) and not self._relative and size is None:
            size = self._size_of(path)
        limit = np.array((1.0, 1.0) if self._relative or size is None else size[::-1], np.float64)
        if self._relative or size is not None:
            boxes, inside = self._repair(boxes, np.tile(limit, 2), keep, where)
            if keep.any() and not (keep & inside).any():
                self.report("lost boxes", path, f"none of {keep.sum()} box(es) is left")
            keep &= inside
        boxes = np.clip(boxes, -LARGEST, LARGEST)
        self._paths.append(path)
        self._ids.append(image_id)
        self._sizes.append(size)
        self._annotations.append((boxes[keep].astype(np.float32), labels[keep], ignore[keep]))
        if polygons is None or not (self._relative or size is not None):
            polygons = [None] * len(boxes)
        self._polygons.append(
            [
                None if outline is None else np.clip(outline / limit, 0, 1).astype(np.float32)
                for outline, kept in zip(polygons, keep, strict=True)
                if kept
            ]
        )

    def add_grouped(
        self,
        paths: Sequence[str],
        image_ids: Sequence[int],
        columns: Arrays,
        *,
        box: Callable[[int], tuple[np.ndarray, str]],
        noted: Mapping[int, Sequence[Problem]],
    ) -> None:
        """Add all images at once, with boxes in pixels that are already grouped by image.

        Args:
            columns: as returned by ``grouped``; ``sizes`` are 0 for images that cannot be read.
            box: returns (4,) xyxy as in the labels, with file and place, of a box by its position
                in ``order``.
            noted: problems of images that were found earlier.
        """
        self._paths, self._ids, self._columns = list(paths), list(image_ids), columns
        rows, kept = np.diff(columns["row_offsets"]), np.diff(columns["offsets"])
        is_known = columns["sizes"].all(1)
        is_lost = (rows > 0) & (kept == 0) & is_known
        missing = {index for index, path in enumerate(paths) if not os.path.isfile(path)}
        unknown = set(np.flatnonzero((rows > 0) & ~is_known).tolist())
        doubts = columns["doubts"]
        owners = np.searchsorted(columns["row_offsets"], doubts, side="right") - 1
        for index in sorted({*noted, *missing, *unknown, *owners.tolist()}):
            path, size = paths[index], columns["sizes"][index]
            self.problems += noted.get(index, ())
            if index in missing:
                self.report("missing image", path, "no such image")
            if index in unknown:
                self._size_of(path)  # reports why
            first, last = np.searchsorted(owners, [index, index + 1])
            for row in doubts[first:last]:
                its, where = box(int(row))
                limit = np.tile(size[::-1], 2).astype(np.float64)
                _, inside, _, far = clipped_boxes(its[None], limit, self._tolerance)
                self._report_odd(its, where, is_inside=inside[0], is_far=far[0])
            if is_lost[index]:
                self.report("lost boxes", path, f"none of {rows[index]} box(es) is left")

    def finish(
        self,
        *,
        cache: bool | str = False,
        strict: bool = True,
        dataset_class: type[Dataset] = Dataset,
    ) -> Dataset:
        """Create the data set and log how many boxes were repaired.

        Args:
            cache: as in ``Dataset``.
            strict: raise an error if there are faults; otherwise list them in ``Dataset.problems``.
            dataset_class: the class to create.

        Raises: MissingFileError or DataError that lists the first faults; DataError if there is no
            image.
        """
        counts = Counter(problem.kind for problem in self.problems if not problem.fatal)
        for kind in sorted(counts):
            first = next(problem for problem in self.problems if problem.kind == kind)
            logger.warning(
                "%s: %d x %s, the first: %s: %s",
                self.name,
                counts[kind],
                kind,
                shown(first.where, _LONGEST),
                shown(first.message, _LONGEST),
            )
        if strict:
            raise_faults(self.name, self.problems)
            if not self._paths:
                kinds = ", ".join(IMAGE_SUFFIXES)
                raise DataError(f"{self.name}: wanted at least one image, got none ({kinds})")
        return dataset_class(
            self.name,
            self.class_names,
            self._paths,
            self._ids,
            annotations=self._annotations,
            sizes=self._sizes,
            columns=self._columns,
            relative=self._relative,
            cache=cache,
            problems=self.problems,
            polygons=self._polygons,
        )

    def _well_formed(
        self, boxes: np.ndarray, labels: np.ndarray, where: Sequence[str]
    ) -> np.ndarray:
        """Return which boxes have a known class and finite numbers, (N,) bool; report the
        others.
        """
        keep = np.ones(len(boxes), bool)
        last = len(self.class_names) - 1
        for row, (box, label, place) in enumerate(zip(boxes, labels, where, strict=True)):
            if not 0 <= label <= last:
                message = f"wanted a class index 0..{last}, got {label}"
                message += "; does numbering start at 1? It must be 0" if label == last + 1 else ""
                self.report("class out of range", place, message)
                keep[row] = False
            elif not np.isfinite(box).all():
                message = f"wanted finite numbers, got {box.tolist()}"
                self.report("malformed label", place, message)
                keep[row] = False
        return keep

    def _size_of(self, path: str) -> tuple[int, int] | None:
        """Return (height, width) from the file; None, with a report, if it cannot be read."""
        try:
            return image_size(path)
        except MissingFileError:
            return None  # already reported
        except DataError as error:
            self.report("broken image", path, str(error))
            return None

    def _repair(
        self, boxes: np.ndarray, limit: np.ndarray, keep: np.ndarray, where: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Clip boxes (N, 4) to 0..``limit``, and return which still have an area, (N,) bool."""
        finite = np.nan_to_num(boxes)
        clipped, inside, outside, far = clipped_boxes(finite, limit, self._tolerance)
        for row in np.flatnonzero(keep & (~inside | outside)):
            self._report_odd(boxes[row], where[row], is_inside=inside[row], is_far=far[row])
        return clipped, inside

    def _report_odd(self, box: np.ndarray, where: str, *, is_inside: bool, is_far: bool) -> None:
        """Report that a box (4,) was clipped or dropped."""
        text = "(" + ", ".join(f"{value:g}" for value in box) + ")"
        if not is_inside:
            self.report("dropped box", where, f"box {text} xyxy has no area inside the image")
        else:
            self.report("clipped box", where, f"box {text} xyxy reaches outside the image")
        if is_far:
            self.report("far box", where, f"box {text} xyxy: are these in other units?")


def clipped_boxes(
    boxes: np.ndarray, limits: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Clip boxes (N, 4) to 0..``limits`` ((4,) or (N, 4)). Also returns three times (N,) bool:
    which still have an area, which extended outside by more than ``tolerance``, and which by more
    than the limit itself.
    """
    clipped = np.clip(boxes, 0, limits)
    inside = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    distance = np.abs(boxes - clipped)
    return clipped, inside, (distance > tolerance).any(1), (distance > limits).any(1)


def _is_scaled(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether both sizes have the same aspect ratio, so that one may be a scaled copy of the
    other.
    """
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(*size, *other)


def raise_faults(name: str, problems: Iterable[Problem]) -> None:
    """Raise an error with the first fatal problems, if there are any.

    Raises: MissingFileError if missing files are the only problem, otherwise DataError.
    """
    faults = [problem for problem in problems if problem.fatal]
    if not faults:
        return
    lines = [
        f"  {shown(fault.where, _LONGEST)}: {shown(fault.message, _LONGEST)}"
        for fault in faults[:5]
    ]
    if len(faults) > 5:
        lines.append(f"  ... and {len(faults) - 5} more; run `mindyolo-ext check-data` for all")
    missing = all(fault.kind.startswith("missing") for fault in faults)
    error = MissingFileError if missing else DataError
    raise error(
        f"{name}: {len(faults)} fault{'s' if len(faults) > 1 else ''} in the data:\n"
        + "\n".join(lines)
    )

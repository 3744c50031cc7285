"""Data sets of photos with boxes, independent of file formats. Uses NumPy and OpenCV only."""

import contextlib
import copy
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from mindyolo_ext import former_names
from mindyolo_ext.data.arrays import Arrays
from mindyolo_ext.data.image_cache import ImageCache, open_cache
from mindyolo_ext.data.image_file import image_size, read_image
from mindyolo_ext.data.types import Annotations, Problem, Sample, unseen
from mindyolo_ext.errors import DataError, UserError, shown

__getattr__ = former_names.attributes(__name__)
_UNPACKED = ("_sizes", "_offsets", "_boxes", "_labels", "_ignore", "_points", "_first_points")


class Dataset:
    """Photos with boxes, indexed from 0. Readers create one through ``Collector``.

    Args:
        name: name of the data set in messages.
        class_names: one name per label.
        paths: image files.
        image_ids: one unique integer per image.
        annotations: per image (boxes (N, 4) xyxy, labels (N,), ignore (N,)).
        sizes: per image (height, width), or None to read it from the file when needed.
        relative: whether the boxes are fractions of the image's width and height instead of
            pixels.
        cache: where to keep decoded images (3 bytes per pixel) for all processes of the machine:
            in memory (``ram``, or True), in a file (``disk``), or ``none``.
        problems: repairs and faults from reading.
        polygons: per image the outline of each box, (points, 2) fractions of width and height, or
            None for a box without; None if no box has one.
        columns: replaces sizes, annotations and polygons: ``sizes`` (n, 2), ``offsets`` (n + 1,),
            concatenated ``boxes``, ``labels`` and ``ignore`` of all images, and, if any box has an
            outline, ``points`` (P, 2) and ``first_points`` (boxes + 1,).

    Raises: ValueError if the lengths differ, DataError if image ids repeat.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        paths: Sequence[str],
        image_ids: Sequence[int],
        *,
        annotations: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]] = (),
        sizes: Sequence[tuple[int, int] | None] = (),
        relative: bool = False,
        cache: str | bool = False,
        problems: Sequence[Problem] = (),
        polygons: Sequence[Sequence[np.ndarray | None]] | None = None,
        columns: Arrays | None = None,
    ):
        counts = [len(annotations), len(sizes)]
        if columns is not None:
            counts = [len(columns["offsets"]) - 1, len(columns["sizes"])]
        if not len(paths) == len(image_ids) == counts[0] == counts[1]:
            raise ValueError(
                f"{name}: wanted as many ids, annotations and sizes as images, got {len(paths)} "
                f"images, {len(image_ids)}, {counts[0]} and {counts[1]}"
            )
        if len(set(image_ids)) != len(image_ids):
            raise DataError(f"{name}: image ids must be unique, got duplicates")
        self.name = name
        self.class_names = list(class_names)
        self.category_ids = list(range(1, len(class_names) + 1))
        self.paths = [str(path) for path in paths]
        self.image_ids = [int(image_id) for image_id in image_ids]
        self.problems = list(problems)
        self._relative = relative
        self._columns = _columns(name, annotations, sizes, polygons) if columns is None else columns
        self._unpack()
        self._images = self._open_cache(cache)

    def _open_cache(self, kind: str | bool) -> ImageCache | None:
        known = self._sizes if kind in (False, "none") else self._known_sizes()
        return open_cache(kind, self.name, self.paths, known)

    def _unpack(self) -> None:
        """Name the columns."""
        columns = self._columns
        self._sizes, self._offsets = columns["sizes"], columns["offsets"]
        self._boxes, self._labels = columns["boxes"], columns["labels"]
        self._ignore = columns["ignore"].view(bool)
        self._points = columns.get("points")  # (points, 2) of all outlines
        self._first_points = columns.get("first_points")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a worker process, which maps columns of a file again."""
        return {name: its for name, its in self.__dict__.items() if name not in _UNPACKED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._unpack()

    def with_classes(self, class_names: Sequence[str]) -> "Dataset":
        """Return the same images with labels in the order of ``class_names``; this data set if it
        already has that order.

        ``category_ids`` follow too, so ``coco_ground_truth`` keeps its ids and label i is
        ``class_names[i]`` everywhere. Paths, sizes and decoded images are shared.

        Args:
            class_names: the names of this data set in another order, such as a network's.

        Raises: DataError that lists the difference unless the names are the same.
        """
        wanted = list(class_names)
        if wanted == self.class_names:
            return self
        difference = _difference(wanted, self.class_names)
        if difference:
            raise DataError(f"{self.name}: {difference}")
        other = copy.copy(self)
        label_of = {name: label for label, name in enumerate(self.class_names)}
        old_label = [label_of[name] for name in wanted]
        other.class_names = wanted
        other.category_ids = [self.category_ids[label] for label in old_label]
        other._columns = self._columns.changed(labels=np.argsort(old_label)[self._labels])
        other._unpack()
        return other

    def relabeled(
        self, label_of: np.ndarray, class_names: Sequence[str], category_ids: Sequence[int]
    ) -> "Dataset":
        """Return the same images with other classes.

        Args:
            label_of: new label of each old one, -1 to drop its boxes.
            class_names: one name per new label.
            category_ids: id of each new label, for ``coco_ground_truth``.

        Shape: label_of (K,) int64.
        """
        other = copy.copy(self)
        other.class_names, other.category_ids = list(class_names), list(category_ids)
        labels = label_of[self._labels]
        other._columns = self._picked_boxes(labels >= 0).changed(labels=labels[labels >= 0])
        other._unpack()
        return other

    def only_images(self, indices: np.ndarray) -> "Dataset":
        """Return a data set of some of the images, without a cache.

        Args:
            indices: unique image indices, in the new order.
        """
        other = copy.copy(self)
        other.paths = [self.paths[index] for index in indices]
        other.image_ids = [self.image_ids[index] for index in indices]
        other._images = None
        counts = np.diff(self._offsets)[indices]
        ends = _ends(counts)
        rows = np.repeat(self._offsets[:-1][indices] - ends[:-1], counts) + np.arange(ends[-1])
        other._columns = self._picked_boxes(rows).changed(sizes=self._sizes[indices], offsets=ends)
        other._unpack()
        return other

    def with_cache(self, kind: str | bool) -> "Dataset":
        """Return the same data set with its own cache of decoded images, ``kind`` as in
        ``open_cache``.
        """
        other = copy.copy(self)
        other._images = other._open_cache(kind)
        return other

    def _picked_boxes(self, rows: np.ndarray) -> Arrays:
        """Return the columns with some of the boxes: a bool per box, which keeps the images, or
        int64 box numbers, for which the caller sets ``offsets``.
        """
        columns = {name: self._columns[name][rows] for name in ("boxes", "labels", "ignore")}
        if rows.dtype == bool:
            columns["offsets"] = _ends(rows)[self._offsets]
            rows = np.flatnonzero(rows)
        if self._points is not None and self._first_points is not None:
            counts = np.diff(self._first_points)[rows]
            ends = _ends(counts)
            first = np.repeat(self._first_points[:-1][rows] - ends[:-1], counts)
            columns["points"] = self._points[first + np.arange(ends[-1])]
            columns["first_points"] = ends
        return self._columns.changed(**columns)

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name}: {len(self)} images, {len(self._labels)} boxes, "
            f"{len(self.class_names)} classes)"
        )

    def size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of image ``index``, from its header if the labels do not state
        it.
        """
        if not self._sizes[index].any():
            self._sizes[index] = image_size(self.paths[index])
        return int(self._sizes[index, 0]), int(self._sizes[index, 1])

    def _known_sizes(self) -> np.ndarray:
        """Return height and width of all images, (n, 2), 0 for unreadable ones."""
        for index in np.flatnonzero(~self._sizes.any(1)).tolist():
            with contextlib.suppress(UserError):  # raised again when the image is loaded
                self.size(index)
        return self._sizes

    def annotations(self, index: int) -> Annotations:
        """Return the boxes of image ``index`` in photo pixels, without decoding the image."""
        height, width = self.size(index)
        rows = slice(self._offsets[index], self._offsets[index + 1])
        boxes = self._boxes[rows].copy()
        if self._relative:
            boxes *= np.array([width, height, width, height], np.float32)
        return Annotations(
            boxes, self._labels[rows].copy(), self._ignore[rows].copy(), height, width
        )

    def labels(self, index: int) -> np.ndarray:
        """Return the labels of image ``index``, (N,) int64, including ignored boxes; opens no
        file.
        """
        return self._labels[self._offsets[index] : self._offsets[index + 1]].copy()

    @property
    def has_polygons(self) -> bool:
        """Whether any box has an outline."""
        return self._points is not None

    def polygons(self, index: int) -> list[np.ndarray | None]:
        """Return the outlines of the boxes of image ``index``, (points, 2) float32 fractions of
        width and height, without repeating the first point; None for a box without outline. Opens
        no file.
        """
        first, last = self._offsets[index], self._offsets[index + 1]
        if self._points is None or self._first_points is None:
            return [None] * int(last - first)
        ends = self._first_points[first : last + 1]
        return [
            self._points[start:end].copy() if end > start else None
            for start, end in zip(ends, ends[1:], strict=False)
        ]

    def max_boxes(self) -> int:
        """Return the largest number of boxes in an image, without ignored ones; opens no file."""
        return int(self.boxes_per_image().max(initial=0))

    @property
    def relative(self) -> bool:
        """Whether the labels are fractions of the images' sides instead of pixels."""
        return self._relative

    def boxes_per_image(self) -> np.ndarray:
        """Return the number of boxes in each image, (n,), without ignored ones; opens no file."""
        kept = np.concatenate([[0], np.cumsum(~self._ignore)])[self._offsets]
        return np.diff(kept)

    def class_counts(self) -> np.ndarray:
        """Return the number of boxes of each class, (K,), without ignored ones; opens no file."""
        return np.bincount(self._labels[~self._ignore], minlength=len(self.class_names))

    def problem_counts(self) -> Counter[str]:
        """Count the problems of each kind."""
        return Counter(problem.kind for problem in self.problems)

    def load(self, index: int) -> Sample:
        """Load image ``index`` with its boxes. A cached image is read-only.

        Raises: MissingFileError for a missing image, DataError for a broken one, or one of another
            size than its labels were made for.
        """
        path = self.paths[index]
        image = None if self._images is None else self._images.get(index, path)
        if image is None:
            image = read_image(path)
            if not self._sizes[index].any():
                self._sizes[index] = image.shape[:2]
            elif tuple(self._sizes[index]) != image.shape[:2]:
                height, width = self._sizes[index]
                raise DataError(
                    f"{self.paths[index]}: the image is {image.shape[1]}x{image.shape[0]} (width "
                    f"x height), its labels were made for {width}x{height}"
                )
            if self._images is not None:
                self._images.put(index, path, image)
                image.flags.writeable = False
        found = self.annotations(index)
        return Sample(
            image, found.boxes, found.labels, found.ignore, self.image_ids[index], self.paths[index]
        )

    def load_unseen(self, index: int) -> Sample:
        """Load like ``load`` without decoding: the image is ``unseen``, of the photo's size."""
        found = self.annotations(index)
        return Sample(
            unseen(found.height, found.width),
            found.boxes,
            found.labels,
            found.ignore,
            self.image_ids[index],
            self.paths[index],
        )

    def coco_ground_truth(self) -> dict[str, list[dict[str, Any]]]:
        """Return the boxes in the form of pycocotools, ignored ones as crowds."""
        images: list[dict[str, Any]] = []
        rows: list[dict[str, Any]] = []
        for index, image_id in enumerate(self.image_ids):
            found = self.annotations(index)
            images.append(
                {
                    "id": image_id,
                    "file_name": os.path.basename(self.paths[index]),
                    "height": found.height,
                    "width": found.width,
                }
            )
            for box, label, ignore in zip(
                found.boxes.tolist(), found.labels, found.ignore, strict=True
            ):
                width, height = box[2] - box[0], box[3] - box[1]
                rows.append(
                    {
                        "id": len(rows) + 1,
                        "image_id": image_id,
                        "category_id": self.category_ids[label],
                        "bbox": [box[0], box[1], width, height],
                        "area": width * height,
                        "iscrowd": int(ignore),
                    }
                )
        categories = [
            {"id": i, "name": name}
            for i, name in zip(self.category_ids, self.class_names, strict=True)
        ]
        return {"images": images, "annotations": rows, "categories": categories}


def _difference(wanted: Sequence[str], got: Sequence[str]) -> str:
    """Explain why the names ``got`` cannot be reordered to ``wanted``; empty if they can."""
    known, named = set(got), set(wanted)
    missing = [name for name in wanted if name not in known]
    more = [name for name in got if name not in named]
    if not missing and not more and len(wanted) == len(got) == len(known):
        return ""
    found = [
        f"{word} {', '.join(shown(name) for name in names[:5])}{', ...' if len(names) > 5 else ''}"
        for word, names in (("lacks", missing), ("has in addition", more))
        if names
    ]
    return (
        f"wanted the {len(wanted)} classes {_listed(wanted)}, got {len(got)}: {_listed(got)}"
        f" ({'; '.join(found) or 'duplicate name'})"
    )


def _listed(names: Sequence[str]) -> str:
    """List the first names, for a message."""
    return ", ".join(shown(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")


def _columns(
    name: str,
    annotations: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    sizes: Sequence[tuple[int, int] | None],
    polygons: Sequence[Sequence[np.ndarray | None]] | None,
) -> Arrays:
    """Build the columns of a ``Dataset``: flat arrays are small and fast to send to worker
    processes.

    Raises: ValueError if there are not as many outlines as boxes.
    """
    columns = {
        "sizes": np.array([size or (0, 0) for size in sizes], np.int32).reshape(-1, 2),
        "offsets": _ends([len(labels) for _, labels, _ in annotations]),
        "boxes": _joined([a[0] for a in annotations], (0, 4), np.float32),
        "labels": _joined([a[1] for a in annotations], (0,), np.int64),
        "ignore": _joined([a[2] for a in annotations], (0,), bool),
    }
    outlines = [outline for rows in polygons or () for outline in rows]
    if any(outline is not None for outline in outlines):
        count = len(columns["labels"])
        if len(outlines) != count:
            raise ValueError(
                f"{name}: wanted an outline or None for each of {count} boxes, got {len(outlines)}"
            )
        points = [np.zeros((0, 2)) if outline is None else outline for outline in outlines]
        columns["points"] = _joined(points, (0, 2), np.float32)
        columns["first_points"] = _ends([len(its) for its in points])
    return Arrays(columns)


def _ends(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the cumulative sums of ``counts``, beginning with 0."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _joined(
    arrays: Sequence[np.ndarray], empty: tuple[int, ...], dtype: type[np.generic] | type[bool]
) -> np.ndarray:
    """Concatenate the arrays; return one of shape ``empty`` if there are none."""
    return np.concatenate([np.zeros(empty, dtype), *arrays]).astype(dtype)

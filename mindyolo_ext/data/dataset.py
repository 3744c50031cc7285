"""Photos with boxes, whatever the files they come from. NumPy and OpenCV only.

``build_dataset`` reads COCO json, YOLO text, darknet ``.data`` lists or VOC xml into one class,
``Dataset``. All labels are read and checked at once, pictures only when asked for.
"""

import difflib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.data.image_file import image_size, read_image

logger = logging.getLogger(__name__)

# not fatal
WARNINGS = ("clipped box", "dropped box", "duplicate box", "no label file", "odd box", "odd size")


@dataclass
class Sample:
    """One photo with its boxes.

    Args:
        image: uint8 BGR (h, w, 3).
        boxes: (N, 4) float32 xyxy in pixels of ``image``.
        labels: (N,) int64, contiguous from 0.
        ignore: (N,) bool, crowd or difficult: neither trained on nor counted as missed.
        image_id: the id in ``Dataset.coco_ground_truth``.
        path: the picture's file.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    image_id: int
    path: str


@dataclass(frozen=True)
class Annotations:
    """The boxes of one photo without the picture: ``boxes`` (N, 4) float32 xyxy photo pixels,
    ``labels`` (N,) int64, ``ignore`` (N,) bool, and the photo's ``height`` and ``width``.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    height: int
    width: int


@dataclass(frozen=True)
class Problem:
    """Something wrong in a data set: its ``kind``, the file (and line) ``where``, and a
    ``message``.
    """

    kind: str
    where: str
    message: str

    @property
    def fatal(self) -> bool:
        """Whether training would stop at it."""
        return self.kind not in WARNINGS


class Dataset:
    """Photos with boxes, indexed from 0. ``Collector`` makes one; the readers use it.

    Args:
        name: what messages call the data set.
        class_names: one name per label.
        paths: picture files.
        image_ids: one integer per picture, all different.
        annotations: per picture (boxes (N, 4) xyxy, labels (N,), ignore (N,)).
        sizes: per picture (height, width), or None to look into the file when needed.
        relative: whether the boxes are fractions of the picture's width and height instead of
            pixels.
        cache: keep decoded pictures in memory (3 bytes a pixel, in every worker process).
        problems: what was repaired or found wrong while reading.
        polygons: per picture the outline of each box, (points, 2) fractions of width and height, or
            None for a box without; None if no box has one.

    Raises: ValueError if the lengths differ or image ids repeat.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        paths: Sequence[str],
        image_ids: Sequence[int],
        *,
        annotations: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
        sizes: Sequence[tuple[int, int] | None],
        relative: bool = False,
        cache: bool = False,
        problems: Sequence[Problem] = (),
        polygons: Sequence[Sequence[np.ndarray | None]] | None = None,
    ):
        if not len(paths) == len(image_ids) == len(annotations) == len(sizes):
            raise ValueError(
                f"{name}: wanted as many ids, annotations and sizes as pictures, got {len(paths)} "
                f"pictures, {len(image_ids)}, {len(annotations)} and {len(sizes)}"
            )
        if len(set(image_ids)) != len(image_ids):
            raise ValueError(f"{name}: image ids must differ, got some twice")
        self.name = name
        self.class_names = list(class_names)
        self.category_ids = list(range(1, len(class_names) + 1))
        self.paths = [str(path) for path in paths]
        self.image_ids = [int(image_id) for image_id in image_ids]
        self.problems = list(problems)
        self._relative = relative
        self._sizes = np.array([size or (0, 0) for size in sizes], np.int32).reshape(-1, 2)
        counts = [len(labels) for _, labels, _ in annotations]
        self._offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        # flat arrays: small, and quick to hand to worker processes
        self._boxes = np.concatenate(
            [np.zeros((0, 4), np.float32)] + [a[0] for a in annotations]
        ).astype(np.float32)
        self._labels = np.concatenate([np.zeros(0, np.int64)] + [a[1] for a in annotations]).astype(
            np.int64
        )
        self._ignore = np.concatenate([np.zeros(0, bool)] + [a[2] for a in annotations]).astype(
            bool
        )
        self._images: dict[int, np.ndarray] | None = {} if cache else None
        flat = [outline for rows in polygons or () for outline in rows]
        self._points: np.ndarray | None = None  # (points, 2) of all outlines
        if any(outline is not None for outline in flat):
            if len(flat) != len(self._labels):
                raise ValueError(
                    f"{name}: wanted an outline or None for each of {len(self._labels)} boxes, got "
                    f"{len(flat)}"
                )
            empty = np.zeros((0, 2), np.float32)
            flat = [
                empty if outline is None else np.asarray(outline, np.float32) for outline in flat
            ]
            self._points = np.concatenate(flat)
            self._first_points = np.concatenate(
                [[0], np.cumsum([len(outline) for outline in flat])]
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name}: {len(self)} pictures, {len(self._labels)} boxes, "
            f"{len(self.class_names)} classes)"
        )

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of picture ``index``, from its header where the labels do not say."""
        if not self._sizes[index].any():
            self._sizes[index] = image_size(self.paths[index])
        return int(self._sizes[index, 0]), int(self._sizes[index, 1])

    def annotations(self, index: int) -> Annotations:
        """The boxes of picture ``index`` in photo pixels, without decoding the picture."""
        height, width = self.size(index)
        rows = slice(self._offsets[index], self._offsets[index + 1])
        boxes = self._boxes[rows].copy()
        if self._relative:
            boxes *= np.array([width, height, width, height], np.float32)
        return Annotations(
            boxes, self._labels[rows].copy(), self._ignore[rows].copy(), height, width
        )

    def labels(self, index: int) -> np.ndarray:
        """(N,) int64 labels of picture ``index``, ignored boxes included; opens no file."""
        return self._labels[self._offsets[index] : self._offsets[index + 1]].copy()

    @property
    def has_polygons(self) -> bool:
        """Whether any box has an outline."""
        return self._points is not None

    def polygons(self, index: int) -> list[np.ndarray | None]:
        """The outlines of the boxes of picture ``index``, (points, 2) float32 fractions of width
        and height, without a line back to the first point; None for a box without. Opens no file.
        """
        first, last = self._offsets[index], self._offsets[index + 1]
        if self._points is None:
            return [None] * int(last - first)
        ends = self._first_points[first : last + 1]
        return [
            self._points[start:end].copy() if end > start else None
            for start, end in zip(ends, ends[1:], strict=False)
        ]

    def max_boxes(self) -> int:
        """The largest number of boxes in one picture, ignored ones left out; opens no file."""
        kept = np.concatenate([[0], np.cumsum(~self._ignore)])[self._offsets]
        return int(np.diff(kept).max(initial=0))

    def load(self, index: int) -> Sample:
        """Picture ``index`` with its boxes. A cached image is read-only: augmentations must not
        write into it.

        Raises: FileNotFoundError or ValueError for a missing or broken picture, and ValueError if
            its size is not the one its labels were made for.
        """
        image = None if self._images is None else self._images.get(index)
        if image is None:
            image = read_image(self.paths[index])
            if not self._sizes[index].any():
                self._sizes[index] = image.shape[:2]
            elif tuple(self._sizes[index]) != image.shape[:2]:
                height, width = self._sizes[index]
                raise ValueError(
                    f"{self.paths[index]}: the picture is {image.shape[1]}x{image.shape[0]} (width "
                    f"x height), its labels were made for {width}x{height}"
                )
            if self._images is not None:
                image.flags.writeable = False
                self._images[index] = image
        found = self.annotations(index)
        return Sample(
            image, found.boxes, found.labels, found.ignore, self.image_ids[index], self.paths[index]
        )

    def coco_ground_truth(self) -> dict[str, list[dict[str, Any]]]:
        """The boxes as pycocotools wants them; category ids are ``category_ids``, ignored boxes
        become crowds.
        """
        images, rows = [], []
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


class Collector:
    """Gathers pictures and boxes while a reader goes through its files; repairs odd boxes and keeps
    count.

    Boxes outside the picture are clipped, boxes without area dropped; ``finish`` warns with the
    counts. Faults are collected too, so that one run reports them all.

    Args:
        name: what messages call the data set.
        class_names: one name per label.
        relative: boxes are fractions of width and height; the limits are then 1 and no size is
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
        if not self.class_names:
            raise ValueError(f"{name}: wanted at least one class name, got none")

    def report(self, kind: str, where: str, message: str) -> None:
        """Notes a problem."""
        self.problems.append(Problem(kind, where, message))

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
        """Adds a picture.

        Args:
            where: the place of each box in the files.
            polygons: the outline (points, 2) of each box in the boxes' units, None for a box
                without; they are clipped like the boxes.
        """
        if not os.path.isfile(path):
            self.report("missing image", path, "no such image")
        boxes = np.array(list(boxes), np.float64).reshape(-1, 4)
        labels, ignore = np.array(list(labels), np.int64), np.array(list(ignore), bool)
        keep = np.ones(len(boxes), bool)
        for row, (label, place) in enumerate(zip(labels, where, strict=True)):
            if not 0 <= label < len(self.class_names):
                self.report(
                    "class out of range",
                    place,
                    f"wanted a class index 0..{len(self.class_names) - 1}, got {label}",
                )
                keep[row] = False
            elif not np.isfinite(boxes[row]).all():
                self.report(
                    "malformed label", place, f"wanted finite numbers, got {boxes[row].tolist()}"
                )
                keep[row] = False
        if len(boxes) and not self._relative and size is None:
            size = self._size_of(path)
        limit = np.array((1.0, 1.0) if self._relative or size is None else size[::-1], np.float64)
        if self._relative or size is not None:
            boxes, inside = self._repair(boxes, np.tile(limit, 2), keep, where)
            keep &= inside
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

    def finish(
        self, cache: bool = False, strict: bool = True, dataset_class: type[Dataset] = Dataset
    ) -> Dataset:
        """The data set, with a warning that counts the repairs.

        Args:
            cache: as in ``Dataset``.
            strict: raise at faults; otherwise they only stand in ``Dataset.problems``.
            dataset_class: the class to make.

        Raises: FileNotFoundError or ValueError that lists the first faults; ValueError without any
        picture.
        """
        counts = Counter(problem.kind for problem in self.problems if not problem.fatal)
        for kind in sorted(counts):
            first = next(problem for problem in self.problems if problem.kind == kind)
            logger.warning(
                "%s: %d x %s, the first: %s: %s",
                self.name,
                counts[kind],
                kind,
                first.where,
                first.message,
            )
        if strict:
            raise_faults(self.name, self.problems)
            if not self._paths:
                raise ValueError(f"{self.name}: wanted at least one picture, got none")
        return dataset_class(
            self.name,
            self.class_names,
            self._paths,
            self._ids,
            annotations=self._annotations,
            sizes=self._sizes,
            relative=self._relative,
            cache=cache,
            problems=self.problems,
            polygons=self._polygons,
        )

    def _size_of(self, path: str) -> tuple[int, int] | None:
        """(height, width) from the file, None with a note where it cannot be read."""
        try:
            return image_size(path)
        except FileNotFoundError:
            return None  # already noted
        except ValueError as error:
            self.report("broken image", path, str(error))
            return None

    def _repair(
        self, boxes: np.ndarray, limit: np.ndarray, keep: np.ndarray, where: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, 4) clipped to 0..``limit``, and (N,) bool: which still have an area."""
        clipped = np.clip(np.nan_to_num(boxes), 0, limit)
        inside = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
        outside = (np.abs(np.nan_to_num(boxes) - clipped) > self._tolerance).any(1)
        for row in np.flatnonzero(keep & (~inside | outside)):
            box = "(" + ", ".join(f"{value:g}" for value in boxes[row]) + ")"
            if not inside[row]:
                self.report(
                    "dropped box", where[row], f"box {box} xyxy has no area inside the picture"
                )
            else:
                self.report(
                    "clipped box", where[row], f"box {box} xyxy reaches outside the picture"
                )
        return clipped, inside


def raise_faults(name: str, problems: Iterable[Problem]) -> None:
    """Raises FileNotFoundError (only files missing) or ValueError that lists the first fatal
    problems, if any.
    """
    faults = [problem for problem in problems if problem.fatal]
    if not faults:
        return
    lines = [f"  {fault.where}: {fault.message}" for fault in faults[:5]]
    if len(faults) > 5:
        lines.append(f"  ... and {len(faults) - 5} more; `mindyolo-ext check-data` lists all")
    missing = all(fault.kind.startswith("missing") for fault in faults)
    error = FileNotFoundError if missing else ValueError
    raise error(
        f"{name}: {len(faults)} fault{'s' if len(faults) > 1 else ''} in the data:\n"
        + "\n".join(lines)
    )


def build_dataset(
    config: Mapping[str, Any], data_root: str | Path = ".", *, strict: bool = True
) -> Dataset:
    """The data set that a configuration describes.

    Args:
        config: ``format`` (``coco``, ``yolo``, ``darknet`` or ``voc``), the keywords of that reader
            (``read_coco``, ``read_yolo``, ``read_darknet``, ``read_voc``), and ``cache``.
        data_root: folder to which relative paths refer.
        strict: see ``Collector.finish``.

    Raises: ValueError for an unknown format or key and for faulty labels, FileNotFoundError for
    missing files.
    """
    from mindyolo_ext.data.coco import read_coco
    from mindyolo_ext.data.darknet import read_darknet
    from mindyolo_ext.data.voc import read_voc
    from mindyolo_ext.data.yolo_text import read_yolo

    readers = {
        "coco": (read_coco, ("images", "annotations"), ("polygons",)),
        "yolo": (
            read_yolo,
            (),
            ("data", "split", "images", "labels", "names", "missing_labels", "polygons"),
        ),
        "darknet": (read_darknet, ("data", "split"), ()),
        "voc": (
            read_voc,
            ("names",),
            ("root", "split", "sets", "first_pixel", "difficult", "min_area"),
        ),
    }
    settings = dict(config)
    format_name = settings.pop("format", None)
    if format_name not in readers:
        raise ValueError(f"data: format must be one of {', '.join(readers)}, got {format_name!r}")
    reader, required, optional = readers[format_name]
    for key in settings:
        if key not in (*required, *optional, "cache"):
            raise ValueError(
                f"data (format {format_name}): unknown key {key}"
                f"{did_you_mean(key, (*required, *optional, 'cache'))}"
            )
    missing = [key for key in required if settings.get(key) is None]
    if missing:
        raise ValueError(
            f"data (format {format_name}): wanted the keys {', '.join(required)}, "
            f"got no {', '.join(missing)}"
        )
    for key in ("cache", "polygons"):
        if not isinstance(settings.get(key, False), bool):
            raise ValueError(f"data: {key} must be true or false, got {settings[key]!r}")
    return reader(data_root=data_root, strict=strict, **settings)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``, did you mean X?`` for a near miss, otherwise the list of known words."""
    known = sorted(known)
    near = difflib.get_close_matches(str(word), known, n=1)
    return f", did you mean {near[0]}?" if near else f"; known: {', '.join(known) or 'none'}"


def find_path(text: str | Path | Sequence[str], *folders: str | Path) -> Path:
    """The file or folder ``text``: as it is when absolute, otherwise in the first of ``folders``
    that has it.

    A list names alternatives, the first that exists is taken; a name with ``*`` stands for the one
    file it matches.

    Raises: FileNotFoundError that lists the places tried; ValueError if a pattern matches several
    files.
    """
    texts = [text] if isinstance(text, (str, Path)) else list(text)
    places = list(
        dict.fromkeys(
            Path(os.path.normpath(Path(folder) / one)) for one in texts for folder in folders
        )
    )
    for place in places:
        if place.exists():
            return place
        matches = sorted(place.parent.glob(place.name)) if "*" in place.name else []
        if len(matches) > 1:
            names = ", ".join(match.name for match in matches[:4])
            raise ValueError(f"{place}: wanted one file, got {names}; name one of them")
        if matches:
            return matches[0]
    raise FileNotFoundError(f"no such file or folder: {', '.join(str(place) for place in places)}")


def read_lines(path: str | Path) -> list[tuple[int, str]]:
    """(line number from 1, stripped text) of the lines that are not blank; UTF-8, with or without a
    mark.

    Raises: FileNotFoundError without such a file; ValueError if it is not UTF-8 text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: wanted UTF-8 text, got byte {error.object[error.start]:#04x} at {error.start}"
        ) from error
    return [
        (number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()
    ]


def read_names(names: str | Path | Sequence[str], *folders: str | Path) -> list[str]:
    """Class names from a list, or from a file with one name per line (searched in ``folders``).

    Raises: ValueError without names or with a name twice.
    """
    if isinstance(names, (str, Path)):
        where = find_path(names, *folders)
        found = [line for _, line in read_lines(where)]
    else:
        where, found = "names", [str(name) for name in names]
    twice = [name for name, count in Counter(found).items() if count > 1]
    if not found or twice:
        raise ValueError(
            f"{where}: wanted different class names, got {f'{twice} twice' if twice else 'none'}"
        )
    return found


def ids_from_names(paths: Sequence[str]) -> list[int]:
    """Image ids: the numbers in the file names where all are different numbers (as in COCO),
    otherwise 1, 2, 3 ...
    """
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    if all(stem.isascii() and stem.isdigit() for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers) and max(numbers, default=0) < 2**53:
            return numbers
    return list(range(1, len(paths) + 1))

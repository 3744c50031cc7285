"""Read a COCO JSON file into columns of numbers, with its problems."""

import hashlib
import json
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.data.arrays import Arrays, packed
from mindyolo_ext.data.formats.coco_entries import (
    MAX_NUMBER,
    Image,
    checked_annotation,
    checked_categories,
    checked_image,
    finite_numbers,
    outline,
    place_of,
)
from mindyolo_ext.data.json_stream import NotStreamable, read_lists
from mindyolo_ext.data.text import MAX_INTEGER, read_text
from mindyolo_ext.data.types import Problem
from mindyolo_ext.errors import DataError
from mindyolo_ext.progress import bar

MAX_BYTES = 8 * 2**30  # Objects365, the largest known, has 5 GB
_LISTS = ("images", "annotations", "categories")
_CHUNK = 2000  # annotations that are converted to columns together
_FEW = 16  # groups of this size with an unusual annotation are checked one by one
_NONE = type(None)


@dataclass
class CocoTable:
    """The valid content of a COCO file as columns, and its problems.

    Args:
        arrays: n images, N annotations and K categories, in the file's order except for categories,
            which are sorted by id: ``image_ids`` (n,), ``image_sizes`` (n, 2) height and width, 0
            if unknown, ``names`` and ``name_ends``, their packed file names;
            ``row_ids`` (N,), ``row_images`` and ``row_labels``, the places of an annotation's image
            and category in ``image_ids`` and ``category_ids``, ``row_boxes`` (N, 4) float64 x, y,
            width, height, ``row_areas``, ``row_crowds``; where outlines are kept,
            ``outline_points`` (P, 2) float64 pixels, and of each annotation the first in
            ``outline_starts`` and their number in ``outline_counts``; ``category_ids`` (K,),
            ``category_names`` and ``category_name_ends``.
        file_names: file names of the images.
        categories: ``id`` and ``name``.
        problems: of images and annotations that are left out.
        size, digest: bytes of the file and their SHA-256; empty if it had to be read as a whole.
    """

    arrays: Arrays
    file_names: list[str]
    categories: list[dict[str, Any]]
    problems: list[Problem] = field(default_factory=list)
    size: int = 0
    digest: str = ""


def read_table(file: Path, *, polygons: bool = False) -> CocoTable:
    """Read and check a COCO file.

    Args:
        polygons: keep the outlines.

    Raises: DataError where the file as a whole or its categories cannot be used.
    """
    digest = hashlib.sha256()
    try:
        size = file.stat().st_size if file.is_file() else 0
        title, is_shown = "reading labels", sys.stderr.isatty()
        with bar(total=size, title=title, show=is_shown, in_bytes=True) as progress:
            parts = read_lists(
                file, _LISTS, most=MAX_BYTES, digest=digest, progress=progress.update
            )
            table = _Reader(file, polygons).table(parts)
    except NotStreamable:  # the same is said better, or read after all, below
        content = _read_json(file)
        return _Reader(file, polygons).table((key, content[key]) for key in _LISTS)
    table.size, table.digest = size, digest.hexdigest()
    return table


class _Reader:
    """Collects the entries of a file."""

    def __init__(self, file: Path, polygons: bool):
        self._file = file
        self._images: list[Image] = []
        self._image_ids: set[int] = set()
        self._image_number = 0
        self._categories: list[Any] = []
        self._rows = _Rows(polygons)
        self._problems: list[Problem] = []

    def table(self, parts: Iterable[tuple[str, list]]) -> CocoTable:
        """Build the table from all ``parts`` of a file. Raises: DataError for invalid
        categories.
        """
        add = {
            "images": self._add_images,
            "annotations": self._rows.add,
            "categories": self._categories.extend,
        }
        for key, entries in parts:
            add[key](entries)
        categories = checked_categories(self._categories, self._file)
        image_ids = np.array([image.id for image in self._images], np.int64)
        category_ids = np.array([category["id"] for category in categories], np.int64)
        rows, faults = self._rows.finish(image_ids, category_ids)
        for number, entry, problem in faults:
            place = f"{self._file}: {place_of('annotation', entry, number)}"
            self._problems.append(Problem("malformed label", place, problem))
        file_names = [image.file_name for image in self._images]
        names, name_ends = packed(file_names)
        category_names, category_name_ends = packed([its["name"] for its in categories])
        sizes = np.array([image.size or (0, 0) for image in self._images], np.int64)
        columns = {
            "image_ids": image_ids,
            "image_sizes": sizes.reshape(-1, 2),
            "names": names,
            "name_ends": name_ends,
            "category_ids": category_ids,
            "category_names": category_names,
            "category_name_ends": category_name_ends,
            **rows,
        }
        return CocoTable(Arrays(columns), file_names, categories, self._problems)

    def _add_images(self, entries: list) -> None:
        for entry in entries:
            self._image_number += 1
            image, problem = checked_image(entry, self._image_ids)
            if image is None:
                place = f"{self._file}: {place_of('image', entry, self._image_number)}"
                self._problems.append(Problem("malformed image entry", place, problem))
            else:
                self._image_ids.add(image.id)
                self._images.append(image)


class _Rows:
    """Collects annotations as columns; unusual ones are kept unchanged until images and categories
    are known.

    Args:
        polygons: keep the outlines.
    """

    def __init__(self, polygons: bool):
        self._polygons = polygons
        self._count = 0  # annotations so far
        self._chunks: list[dict[str, np.ndarray]] = []
        self._points = array("d")  # grows without a second copy
        self._unusual: list[tuple[int, Any]] = []

    def add(self, entries: list) -> None:
        """Add the next annotations."""
        for begin in range(0, len(entries), _CHUNK):
            some = entries[begin : begin + _CHUNK]
            self._add(some, self._count)
            self._count += len(some)

    def _add(self, entries: list, before: int) -> None:
        """Add annotations that follow ``before`` others."""
        columns = _plain(entries, before)
        if columns is not None:
            self._add_columns(columns, entries)
        elif len(entries) <= _FEW:
            for number, entry in enumerate(entries, before + 1):
                if isinstance(entry, dict) and not self._polygons:
                    entry.pop("segmentation", None)
                self._unusual.append((number, entry))
        else:
            half = len(entries) // 2
            self._add(entries[:half], before)
            self._add(entries[half:], before + half)

    def _add_columns(self, columns: dict[str, np.ndarray], entries: Sequence[dict]) -> None:
        """Add columns, and the outlines of their entries."""
        if self._polygons:
            points, starts, counts = _outlines([entry.get("segmentation") for entry in entries])
            columns["outline_starts"] = starts + len(self._points) // 2
            columns["outline_counts"] = counts
            self._points.frombytes(points.tobytes())
        self._chunks.append(columns)

    def finish(
        self, image_ids: np.ndarray, category_ids: np.ndarray
    ) -> tuple[dict[str, np.ndarray], list[tuple[int, Any, str]]]:
        """Return the columns of the valid annotations, and index, entry and problem of the others.

        Args:
            image_ids: (n,), unique.
            category_ids: (K,) rising.
        """
        known = set(image_ids.tolist()), set(category_ids.tolist())
        faults = self._add_unusual(*known)
        columns = {
            name: np.concatenate([chunk[name] for chunk in self._chunks])
            for name in self._chunks[-1]
        }
        self._chunks.clear()
        columns["row_images"], is_image = _places(columns["image_id"], image_ids)
        columns["row_labels"], is_category = _places(columns["category_id"], category_ids)
        is_sound = is_image & is_category
        for row in np.flatnonzero(~is_sound):
            entry: dict[str, Any] = {"bbox": columns["row_boxes"][row].tolist()}
            entry |= {key: int(columns[key][row]) for key in ("image_id", "category_id")}
            if columns["has_id"][row]:
                entry["id"] = int(columns["row_ids"][row])
            faults.append(
                (int(columns["number"][row]), entry, checked_annotation(entry, *known)[1])
            )
        order = np.argsort(columns["number"], kind="stable")
        order = order[is_sound[order]]
        for name in ("number", "has_id", "image_id", "category_id"):
            del columns[name]
        columns = {name: column[order] for name, column in columns.items()}
        if self._polygons:
            columns["outline_points"] = np.frombuffer(self._points, np.float64).reshape(-1, 2)
        return columns, sorted(faults, key=lambda fault: fault[0])

    def _add_unusual(
        self, image_ids: set[int], category_ids: set[int]
    ) -> list[tuple[int, Any, str]]:
        """Add the valid ones of the unusual annotations; return the others as ``finish`` does."""
        faults, numbers, sound = [], [], []
        for number, entry in self._unusual:
            row, problem = checked_annotation(entry, image_ids, category_ids)
            if row is None:
                faults.append((number, entry, problem))
            else:
                row["id"] = number if row["id"] is None else row["id"]
                numbers.append(number)
                sound.append(row)
        keys = ("id", "image_id", "category_id", "area", "iscrowd")
        values = [[row[key] for row in sound] for key in keys]
        self._add_columns(_columns(numbers, [row["bbox"] for row in sound], *values), sound)
        return faults


def _plain(entries: list, before: int) -> dict[str, np.ndarray] | None:
    """Convert annotations to columns; None unless all are plain: numbers have number types, and id,
    area and crowd are present in all of them or in none.
    """
    try:
        values = {
            key: [entry[key] for entry in entries] for key in ("bbox", "image_id", "category_id")
        }
        for key in ("id", "area", "iscrowd"):
            values[key] = [entry.get(key) for entry in entries]
    except (TypeError, KeyError, AttributeError):
        return None
    if not _has_plain_types(values):
        return None
    numbers, boxes = range(before + 1, before + 1 + len(entries)), values["bbox"]
    has_id = values["id"][0] is not None
    ids = values["id"] if has_id else numbers
    areas, crowds = values["area"], values["iscrowd"]
    if areas[0] is None:
        areas = [box[2] * box[3] for box in boxes]
    if crowds[0] is None:
        crowds = [0] * len(entries)
    refers = values["image_id"], values["category_id"]
    try:
        columns = _columns(numbers, boxes, ids, *refers, areas, crowds)
    except OverflowError:
        return None
    columns["has_id"] = np.full(len(entries), has_id)
    is_plain = (  # False for NaN
        (np.abs(columns["row_boxes"]) <= MAX_NUMBER).all()
        and (np.abs(columns["row_areas"]) <= MAX_NUMBER**2).all()
        and -MAX_INTEGER <= columns["row_ids"].min() <= columns["row_ids"].max() <= MAX_INTEGER
    )
    return columns if is_plain else None


def _has_plain_types(values: dict[str, list]) -> bool:
    """Whether the values of annotations, by key, have the plain types."""
    kinds = {key: {*map(type, column)} for key, column in values.items()}
    return (
        kinds["bbox"] == {list}
        and {*map(len, values["bbox"])} == {4}
        and {*map(type, chain.from_iterable(values["bbox"]))} <= {int, float}
        and kinds["image_id"] == kinds["category_id"] == {int}
        and kinds["id"] in ({int}, {_NONE})
        and (kinds["area"] <= {int, float} or kinds["area"] == {_NONE})
        and (kinds["iscrowd"] == {_NONE} or kinds["iscrowd"] == {int})
        and {*values["iscrowd"]} <= {0, 1, None}
    )


def _columns(
    numbers: Sequence[int],
    boxes: Sequence[list[float]],
    ids: Sequence[int],
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    areas: Sequence[float],
    crowds: Sequence[int],
) -> dict[str, np.ndarray]:
    """Convert lists to columns. Raises: OverflowError for an integer of more than 64 bits."""
    sides = list(chain.from_iterable(boxes))
    return {
        "number": np.array(numbers, np.int64),
        "has_id": np.ones(len(numbers), bool),
        "row_boxes": np.array(sides, np.float64).reshape(-1, 4),
        "row_ids": np.array(ids, np.int64),
        "image_id": np.array(image_ids, np.int64),
        "category_id": np.array(category_ids, np.int64),
        "row_areas": np.array(areas, np.float64),
        "row_crowds": np.array(crowds, np.uint8),
    }


def _places(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the position of each value in ``known``, whose values are unique, (N,) int32, and
    whether it is one of them.
    """
    if not len(known):
        return np.zeros(len(values), np.int32), np.zeros(len(values), bool)
    order = np.argsort(known)
    found = np.searchsorted(known, values, sorter=order)
    places = order[np.minimum(found, len(known) - 1)]
    return places.astype(np.int32), known[places] == values


def _outlines(segmentations: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the points (P, 2) of outlines, and the start and number of each one's points, 0 for
    None.
    """
    starts, counts = np.zeros((2, len(segmentations)), np.int64)
    single = [number for number, its in enumerate(segmentations) if _is_single(its)]
    parts = [segmentations[number][0] for number in single]
    numbers = finite_numbers(list(chain.from_iterable(parts)))
    blocks = [np.zeros(0) if numbers is None else numbers]
    if numbers is None:  # one of them contains something else
        single = []
    else:
        counts[single] = [len(part) // 2 for part in parts]
        starts[single] = np.cumsum(counts[single]) - counts[single]
    total, known = len(blocks[0]) // 2, set(single)
    for number, segmentation in enumerate(segmentations):
        if number in known or (points := outline(segmentation)) is None:
            continue
        blocks.append(points.reshape(-1))
        starts[number], counts[number] = total, len(points)
        total += len(points)
    return np.concatenate(blocks).reshape(-1, 2), starts, counts


def _is_single(segmentation: Any) -> bool:
    """Whether it may be an outline with a single part."""
    if type(segmentation) is not list or len(segmentation) != 1:
        return False
    part = segmentation[0]
    return type(part) is list and len(part) >= 6 and len(part) % 2 == 0


def _read_json(file: Path) -> dict[str, list]:
    """Read the three lists of a COCO file."""
    try:
        content = json.loads(read_text(file, most=MAX_BYTES))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file}:{error.lineno}: wanted json, got a file that breaks off or is damaged: "
            f"{error.msg}"
        ) from error
    except RecursionError:
        raise DataError(f"{file}: wanted json of COCO, got lists nested too deep") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: wanted json: {str(error).split(';')[0]}") from error
    keys = ("images", "annotations", "categories")
    if isinstance(content, dict):
        missing = [key for key in keys if not isinstance(content.get(key), list)]
        got = f"no {', '.join(missing)}"
    else:
        missing, got = list(keys), f"a {type(content).__name__}"
        if isinstance(content, list) and content and "score" in str(content[0])[:1000]:
            got = "a list of detections"
    if missing:
        raise DataError(
            f"{file}: wanted COCO's lists images, annotations and categories, got {got}"
        )
    return content

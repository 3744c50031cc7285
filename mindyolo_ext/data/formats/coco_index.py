"""Cache the columns of a large COCO file in an index file beside it or in a cache folder.

The first process that reads the annotations writes the index; all others, and all later starts, map
it. It is identified by the file's content (SHA-256), not its name or date, and is checked byte by
byte before use. An index that fails the check is rebuilt.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.data.arrays import (
    Arrays,
    DamagedArrays,
    is_rising,
    open_arrays,
    unpacked,
    write_arrays,
)
from mindyolo_ext.data.formats.coco_entries import MAX_NUMBER
from mindyolo_ext.data.formats.coco_table import MAX_BYTES, CocoTable, read_table
from mindyolo_ext.data.grouped import LARGEST_SIDE, Rows, grouped
from mindyolo_ext.data.sharing import alone, cache_folder

logger = logging.getLogger(__name__)
BOX_TOLERANCE = 0.5  # pixels; COCO rounds its boxes
LEAST_BYTES = 16 * 2**20  # of a file; a smaller one is read in less than a second or two
_VERSION = 1  # of the columns and how they are made
_MOST_GROWTH = 4  # maximum size relative to the file; the shortest annotations take half of it
_SCHEMA = {
    "image_ids": ("<i8", 0),
    "image_sizes": ("<i8", 2),
    "names": ("|u1", 0),
    "name_ends": ("<i8", 0),
    "category_ids": ("<i8", 0),
    "category_names": ("|u1", 0),
    "category_name_ends": ("<i8", 0),
    "row_ids": ("<i8", 0),
    "row_images": ("<i4", 0),
    "row_labels": ("<i4", 0),
    "row_boxes": ("<f8", 4),
    "row_areas": ("<f8", 0),
    "row_crowds": ("|u1", 0),
    "order": ("<i8", 0),
    "row_offsets": ("<i8", 0),
    "doubts": ("<i8", 0),
    "sizes": ("<i4", 2),
    "offsets": ("<i8", 0),
    "boxes": ("<f4", 4),
    "labels": ("<i8", 0),
    "ignore": ("|u1", 0),
    "points": ("<f4", 2),
    "first_points": ("<i8", 0),
}
_OPTIONAL = {"points", "first_points"}


def indexed_table(file: Path, *, polygons: bool, index: Path | bool = True) -> CocoTable:
    """Return the table of a COCO file, with the columns of ``grouped`` if it comes from an index.

    An index is written for a file of at least ``LEAST_BYTES`` without faults, all of whose images
    have sizes.

    Args:
        polygons: keep the outlines.
        index: folder of the index; True means the file's own folder, or a cache folder if that is
            not writable; False reads the file itself.

    Raises: DataError if the file as a whole or its categories cannot be used.
    """
    size = file.stat().st_size if file.is_file() else 0
    if index is False or not LEAST_BYTES <= size <= MAX_BYTES:
        return read_table(file, polygons=polygons)
    places = _places(file, polygons, index)
    for place in places:
        if (table := _opened(place, file, polygons)) is not None:
            return table
    for place in places:
        with alone(place, file) as is_ours:
            if is_ours:
                return _opened(place, file, polygons) or _made(place, file, polygons)
    logger.info("%s: no writable folder for an index; every start reads the annotations", file)
    return read_table(file, polygons=polygons)


def _places(file: Path, polygons: bool, index: Path | bool) -> list[Path]:
    """Return possible places of the index, in the order to try."""
    kind = "outlines" if polygons else "boxes"
    ending = f".{kind}.index"
    name = hashlib.sha256(str(file.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    stem = file.stem[:40]
    if isinstance(index, Path):
        return [index / f"{stem}-{name}{ending}"]
    beside = file.parent / f".{stem}-{hashlib.sha256(os.fsencode(file.name)).hexdigest()[:8]}"
    places = [beside.with_name(beside.name + ending)]
    cache = cache_folder("annotations")
    return places if cache is None else [*places, cache / f"{stem}-{name}{ending}"]


def _opened(place: Path, file: Path, polygons: bool) -> CocoTable | None:
    """Return the table of a valid index of the file's content; None if there is none."""
    try:
        if not place.is_file():
            return None
        size = file.stat().st_size
        if place.stat().st_size > _MOST_GROWTH * size + 2**20:
            raise DamagedArrays("too large for these annotations")
        about = _about(size, _digest(file), polygons)
        arrays = open_arrays(place, about, _SCHEMA, _bounds)
        if not _OPTIONAL | set(arrays) == set(_SCHEMA) or not _fits(arrays):
            raise DamagedArrays("its columns do not fit each other")
        file_names = unpacked(arrays["names"], arrays["name_ends"])
        names = unpacked(arrays["category_names"], arrays["category_name_ends"])
    except (OSError, DamagedArrays, UnicodeDecodeError) as error:
        logger.debug("%s: not used: %s", place, error)
        return None
    ids = arrays["category_ids"].tolist()
    categories = [{"id": id_, "name": name} for id_, name in zip(ids, names, strict=True)]
    return CocoTable(arrays, file_names, categories)


def _about(size: int, digest: str, polygons: bool) -> dict[str, Any]:
    """Return the description that identifies an index."""
    return {"version": _VERSION, "bytes": size, "sha256": digest, "outlines": polygons}


def _digest(file: Path) -> str:
    """SHA-256 of a file. Raises: OSError."""
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _bounds(lengths: Mapping[str, int]) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest value of the columns."""
    images, rows, boxes, classes, points = (
        lengths.get(name, 0) for name in ("image_ids", "row_ids", "boxes", "category_ids", "points")
    )
    return {
        "image_sizes": (0, LARGEST_SIDE),
        "name_ends": (0, lengths.get("names", 0)),
        "category_name_ends": (0, lengths.get("category_names", 0)),
        "row_images": (0, images - 1),
        "row_labels": (0, classes - 1),
        "row_boxes": (-MAX_NUMBER, MAX_NUMBER),
        "row_areas": (-(MAX_NUMBER**2), MAX_NUMBER**2),
        "row_crowds": (0, 1),
        "order": (0, rows - 1),
        "row_offsets": (0, rows),
        "doubts": (0, rows - 1),
        "sizes": (0, LARGEST_SIDE),
        "offsets": (0, boxes),
        "boxes": (0, MAX_NUMBER),
        "labels": (0, classes - 1),
        "ignore": (0, 1),
        "points": (0, 1),
        "first_points": (0, points),
    }


def _fits(arrays: Arrays) -> bool:
    """Whether the columns of an index have consistent lengths."""
    images, rows, boxes = (len(arrays[name]) for name in ("image_ids", "row_ids", "boxes"))
    lengths = (
        (images, ("image_sizes", "sizes")),
        (images + 1, ("name_ends", "row_offsets", "offsets")),
        (rows, ("row_images", "row_labels", "row_boxes", "row_areas", "row_crowds", "order")),
        (boxes, ("labels", "ignore")),
        (len(arrays["category_ids"]) + 1, ("category_name_ends",)),
    )
    return (
        all(len(arrays[name]) == length for length, names in lengths for name in names)
        and is_rising(arrays["name_ends"], len(arrays["names"]))
        and is_rising(arrays["category_name_ends"], len(arrays["category_names"]))
        and is_rising(arrays["row_offsets"], rows)
        and is_rising(arrays["offsets"], boxes)
        and bool((np.diff(arrays["doubts"]) > 0).all())
        and bool((np.diff(arrays["category_ids"]) > 0).all())
        and len(np.unique(arrays["image_ids"])) == images
        and ("points" in arrays) == ("first_points" in arrays)
        and (
            "points" not in arrays
            or (
                len(arrays["first_points"]) == boxes + 1
                and is_rising(arrays["first_points"], len(arrays["points"]))
            )
        )
    )


def _made(place: Path, file: Path, polygons: bool) -> CocoTable:
    """Read the table of the file; if it is large enough, write an index at ``place`` and map
    that.
    """
    table = read_table(file, polygons=polygons)
    sizes = table.arrays["image_sizes"]
    is_sound = table.digest and not table.problems and table.categories
    if not is_sound or not sizes.all() or sizes.max(initial=1) > LARGEST_SIDE:
        return table
    columns = grouped(rows_of(table.arrays, polygons), sizes, BOX_TOLERANCE)
    columns["ignore"] = columns["ignore"].view(np.uint8)
    names = [name for name in table.arrays if not name.startswith("outline_")]
    columns |= table.arrays.only(*names)
    about = _about(table.size, table.digest, polygons)
    try:
        write_arrays(place, about, columns)
        arrays = open_arrays(place, about, _SCHEMA, _bounds)
    except (OSError, DamagedArrays) as error:  # such as a full disk
        logger.warning("%s: cannot keep an index of the annotations (%s)", place, error)
        return table
    logger.info("%s: index written to %s for the next start", file, place)
    return CocoTable(arrays, table.file_names, table.categories)


def rows_of(arrays: Arrays, polygons: bool) -> Rows:
    """Return the annotations of a table as input of ``grouped``."""
    outlines = None
    if polygons:
        outlines = (
            arrays["outline_points"],
            arrays["outline_starts"],
            arrays["outline_counts"],
        )
    return Rows(
        corners(arrays["row_boxes"]),
        arrays["row_images"],
        arrays["row_labels"],
        arrays["row_crowds"],
        outlines,
    )


def corners(boxes: np.ndarray) -> np.ndarray:
    """Convert boxes (N, 4) x, y, width, height to xyxy."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

"""Data sets in COCO's JSON form."""

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.text import find_path, read_text, whole
from mindyolo_ext.data.types import Problem
from mindyolo_ext.errors import DataError, shown
from mindyolo_ext.progress import bar

_BOX_TOLERANCE = 0.5  # pixels; COCO rounds its boxes
_MAX_BYTES = 8 * 2**30  # Objects365, the largest known, has 5 GB
_HEADERS = 2000  # looked at before a training; the others are when they are loaded
_MAX_NUMBER = 1e9  # pixels; a coordinate beyond it is a mistake
_CROWD: dict[Any, int] = {
    0: 0,
    1: 1,
    "0": 0,
    "1": 1,
}  # also 0.0, 1.0, false and true, which equal them


class CocoDataset(Dataset):
    """A data set whose ground truth is the JSON file itself, with its ids, areas, crowds and
    unclipped boxes.
    """

    annotation_file: Path

    def coco_ground_truth(self) -> dict[str, list[dict[str, Any]]]:
        """The file's images, boxes and categories; segmentations and faulty rows are left out."""
        content = _read(self.annotation_file)
        images = []
        for index, image in enumerate(content.images):
            height, width = image.size or self.size(index)
            name = {"id": image.id, "file_name": image.file_name}
            images.append({**name, "height": height, "width": width})
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        return {
            "images": images,
            "annotations": [{key: row[key] for key in keys} for row in content.rows],
            "categories": content.categories,
        }


def read_coco(
    *,
    images: str | Sequence[str],
    annotations: str | Sequence[str],
    data_root: str | Path = ".",
    polygons: bool = False,
    cache: bool = False,
    strict: bool = True,
) -> CocoDataset:
    """Read a COCO JSON file and its folder of images.

    Labels are contiguous in the order of the sorted category ids; ``category_ids[label]`` leads
    back. Crowds are kept with ``ignore``. Images without boxes are kept. ``null`` counts as
    missing: an area then is that of the box, a crowd is none, ids of annotations are their numbers.
    Whole numbers may be written as floats or texts. Sizes are compared with the images' headers:
    with ``strict`` those of some 2,000 images all over the set, because a training does not want
    to open every file before it begins; otherwise all.

    Args:
        images: folder of the images (``file_name`` is relative to it), or a list of places to
            look for it.
        annotations: json file, likewise; ``*`` may stand in its name.
        data_root: folder to which both refer.
        polygons: keep the objects' outlines (8 bytes a point), for augmentations that follow them
            or cut them out.
        cache, strict: see ``Collector.finish``.

    Raises: MissingFileError, or DataError that names the file and the annotation.
    """
    folder = find_path(images, data_root, key="images")
    file = find_path(annotations, data_root, key="annotations")
    content = _read(file)
    label_of = {category["id"]: label for label, category in enumerate(content.categories)}
    names = [category["name"] for category in content.categories]
    collector = Collector(str(file), names, relative=False, tolerance=_BOX_TOLERANCE)
    collector.problems += content.problems
    rows_of: dict[int, list[dict[str, Any]]] = {image.id: [] for image in content.images}
    for row in content.rows:
        rows_of[row["image_id"]].append(row)
    apart = max(len(content.images) // _HEADERS, 1) if strict else 1
    shown_images = bar(content.images, title="reading labels", show=sys.stderr.isatty())
    for index, image in enumerate(shown_images):
        path, rows = _image_path(folder, image.file_name), rows_of[image.id]
        size = image.size
        if size is None or index % apart == 0:
            where = f"{file}: image {image.id}"
            size = collector.checked_size(path, size, where, must_fit=True)
        boxes = [row["bbox"] for row in rows]
        collector.add(
            path,
            image.id,
            size,
            boxes=[(x, y, x + width, y + height) for x, y, width, height in boxes],
            labels=[label_of[row["category_id"]] for row in rows],
            ignore=[bool(row["iscrowd"]) for row in rows],
            where=[f"{file}: annotation {row['id']}" for row in rows],
            polygons=[outline(row.get("segmentation")) if polygons else None for row in rows],
        )
    dataset = collector.finish(cache=cache, strict=strict, dataset_class=CocoDataset)
    assert isinstance(dataset, CocoDataset)
    dataset.annotation_file = file
    dataset.category_ids = [category["id"] for category in content.categories]
    return dataset


def _image_path(folder: Path, name: str) -> str:
    """The file of an image; a name that was written on Windows is found too."""
    path = str(folder / name)
    if "\\" in name and not os.path.isfile(path):
        return str(folder / name.replace("\\", "/"))
    return path


def outline(segmentation: Any) -> np.ndarray | None:
    """(points, 2) float64 pixels of COCO's lists of x, y, x, y ..., None for a mask in another form
    or without area.

    The parts of an object that is seen in pieces are joined by lines there and back, which hold no
    area.
    """
    if not isinstance(segmentation, list) or not all(
        isinstance(part, list) and len(part) % 2 == 0 and all(map(_is_number, part))
        for part in segmentation
    ):
        return None
    parts = [np.array(part, np.float64).reshape(-1, 2) for part in segmentation if len(part) >= 6]
    if len(parts) < 2:
        return parts[0] if parts else None
    home = parts[0][:1]
    return np.concatenate(
        [parts[0], home] + [block for part in parts[1:] for block in (part, part[:1], home)]
    )


# ---- the file --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Image:
    """An image of the file, ``size`` (height, width) if it says so."""

    id: int
    file_name: str
    size: tuple[int, int] | None


@dataclass
class _Content:
    """What is sound in a COCO file, every value in its type, and what is not.

    Args:
        images: in the file's order.
        categories: ``id`` and ``name``, by rising id.
        rows: the annotations, with ``id``, ``image_id``, ``category_id``, ``bbox``, ``area``,
            ``iscrowd`` and what else they hold.
        problems: of images and annotations that are left out.
    """

    images: list[_Image] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _read(file: Path) -> _Content:
    """Read and check a COCO file.

    Raises: DataError where the file as a whole or its categories cannot be used.
    """
    raw = _read_json(file)
    content = _Content(categories=_categories(raw["categories"], file))
    seen: set[int] = set()
    for number, entry in enumerate(raw["images"], 1):
        image, problem = _image(entry, seen)
        if image is None:
            place = f"{file}: {_place('image', entry, number)}"
            content.problems.append(Problem("malformed image entry", place, problem))
        else:
            seen.add(image.id)
            content.images.append(image)
    categories = {category["id"] for category in content.categories}
    for number, entry in enumerate(raw["annotations"], 1):
        row, problem = _annotation(entry, seen, categories)
        if row is None:
            place = f"{file}: {_place('annotation', entry, number)}"
            content.problems.append(Problem("malformed label", place, problem))
            continue
        if row["id"] is None:
            row["id"] = number
        content.rows.append(row)
    return content


def _place(what: str, entry: Any, number: int) -> str:
    """``annotation 17``, or its number in the list where it has no sound id."""
    id_ = whole(entry.get("id")) if isinstance(entry, dict) else None
    return f"{what} number {number}" if id_ is None else f"{what} {id_}"


def _read_json(file: Path) -> dict[str, list]:
    """The three lists of a COCO file."""
    try:
        content = json.loads(read_text(file, most=_MAX_BYTES))
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


def _categories(entries: list, file: Path) -> list[dict[str, Any]]:
    """``id`` and ``name`` of the categories, by rising id. Raises: DataError."""
    found: dict[int, str] = {}
    for number, entry in enumerate(entries, 1):
        where = f"{file}: category number {number}"
        if not isinstance(entry, dict):
            raise DataError(f"{where}: wanted an id and a name, got {shown(entry)}")
        id_, name = whole(entry.get("id")), entry.get("name")
        if id_ is None:
            raise DataError(f"{where}: wanted an integer id, got {shown(entry.get('id'))}")
        if isinstance(name, bool) or not isinstance(name, (str, int)) or not str(name).strip():
            raise DataError(f"{where} (id {id_}): wanted a name, got {shown(name)}")
        if id_ in found:
            raise DataError(f"{file}: category ids must differ, got {id_} twice")
        found[id_] = str(name)
    return [{"id": id_, "name": found[id_]} for id_ in sorted(found)]


def _image(entry: Any, seen: set[int]) -> tuple[_Image | None, str]:
    """An image of the file, or None and what is wrong with it."""
    if not isinstance(entry, dict):
        return None, f"wanted an id and a file_name, got {shown(entry)}"
    id_, name = whole(entry.get("id")), entry.get("file_name")
    if id_ is None or not isinstance(name, str) or not name:
        return None, f"wanted an integer id and a file_name, got {shown(entry, 200)}"
    if id_ in seen:
        return None, f"a second image with this id, {shown(name)}"
    sides = [entry.get("height"), entry.get("width")]
    if any(side in (None, 0, "") for side in sides if not isinstance(side, (list, dict))):
        return _Image(id_, name, None), ""
    height, width = (whole(side) for side in sides)
    if height is None or width is None or min(height, width) < 1:
        return None, f"wanted height and width in pixels, got {shown(sides)} ({shown(name)})"
    return _Image(id_, name, (height, width)), ""


def _annotation(
    entry: Any, image_ids: set[int], category_ids: set[int]
) -> tuple[dict[str, Any] | None, str]:
    """An annotation with every value in its type, or None and what is wrong with it."""
    if not isinstance(entry, dict):
        return None, f"wanted bbox, image_id and category_id, got {shown(entry)}"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return None, f"wanted bbox [x, y, width, height], got {shown(box)}"
    image_id, category_id = whole(entry.get("image_id")), whole(entry.get("category_id"))
    if image_id not in image_ids:
        return None, f"no image has the id {shown(entry.get('image_id'))}"
    if category_id not in category_ids:
        return None, f"no category has the id {shown(entry.get('category_id'))}"
    id_, area, crowd = entry.get("id"), entry.get("area"), entry.get("iscrowd")
    if id_ is not None and whole(id_) is None:
        return None, f"wanted an integer id, got {shown(id_)}"
    if area is None:
        area = box[2] * box[3]
    elif isinstance(area, str) and whole(area) is not None:
        area = whole(area)
    if not _is_number(area, _MAX_NUMBER**2):
        return None, f"wanted area in square pixels, got {shown(entry['area'])}"
    if crowd is not None and (isinstance(crowd, (list, dict)) or crowd not in _CROWD):
        return None, f"wanted iscrowd 0 or 1, got {shown(crowd)}"
    sound = {"id": whole(id_), "image_id": image_id, "category_id": category_id, "area": area}
    return {**entry, **sound, "bbox": box, "iscrowd": 0 if crowd is None else _CROWD[crowd]}, ""


def _is_number(value: Any, most: float = _MAX_NUMBER) -> bool:
    """Whether it is a finite number within reason, of type int or float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return (isinstance(value, int) or math.isfinite(value)) and abs(value) <= most

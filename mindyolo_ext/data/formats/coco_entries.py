"""Check the entries of a COCO file one by one."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.data.text import whole
from mindyolo_ext.errors import DataError, shown

MAX_NUMBER = 1e9  # pixels; a coordinate beyond this is a mistake
_CROWD: dict[Any, int] = {
    0: 0,
    1: 1,
    "0": 0,
    "1": 1,
}  # also 0.0, 1.0, false and true, which are equal to them


@dataclass(frozen=True)
class Image:
    """An image of the file; ``size`` is (height, width) if the file states it."""

    id: int
    file_name: str
    size: tuple[int, int] | None


def place_of(what: str, entry: Any, number: int) -> str:
    """Return ``annotation 17``, or its index in the list if it has no valid id."""
    id_ = whole(entry.get("id")) if isinstance(entry, dict) else None
    return f"{what} number {number}" if id_ is None else f"{what} {id_}"


def checked_categories(entries: list, file: Path) -> list[dict[str, Any]]:
    """Return ``id`` and ``name`` of the categories, sorted by id. Raises: DataError."""
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


def checked_image(entry: Any, seen: set[int]) -> tuple[Image | None, str]:
    """Check an image entry; return None and the problem if it is invalid."""
    if not isinstance(entry, dict):
        return None, f"wanted an id and a file_name, got {shown(entry)}"
    id_, name = whole(entry.get("id")), entry.get("file_name")
    if id_ is None or not isinstance(name, str) or not name:
        return None, f"wanted an integer id and a file_name, got {shown(entry, 200)}"
    if id_ in seen:
        return None, f"a second image with this id, {shown(name)}"
    sides = [entry.get("height"), entry.get("width")]
    if any(side in (None, 0, "") for side in sides if not isinstance(side, (list, dict))):
        return Image(id_, name, None), ""
    height, width = (whole(side) for side in sides)
    if height is None or width is None or min(height, width) < 1:
        return None, f"wanted height and width in pixels, got {shown(sides)} ({shown(name)})"
    return Image(id_, name, (height, width)), ""


def checked_annotation(
    entry: Any, image_ids: set[int], category_ids: set[int]
) -> tuple[dict[str, Any] | None, str]:
    """Check an annotation and convert its values; return None and the problem if it is invalid."""
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
    if not _is_number(area, MAX_NUMBER**2):
        return None, f"wanted area in square pixels, got {shown(entry['area'])}"
    if crowd is not None and (isinstance(crowd, (list, dict)) or crowd not in _CROWD):
        return None, f"wanted iscrowd 0 or 1, got {shown(crowd)}"
    sound = {"id": whole(id_), "image_id": image_id, "category_id": category_id, "area": area}
    return {**entry, **sound, "bbox": box, "iscrowd": 0 if crowd is None else _CROWD[crowd]}, ""


def _is_number(value: Any, most: float = MAX_NUMBER) -> bool:
    """Whether it is an int or float that is finite and not too large."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return (isinstance(value, int) or math.isfinite(value)) and abs(value) <= most


def outline(segmentation: Any) -> np.ndarray | None:
    """Convert COCO's lists of x, y, x, y ... to (points, 2) float64 pixels; None for a mask in
    another format or without area.

    Separate parts of an object are joined by lines back and forth, which enclose no area.
    """
    if not isinstance(segmentation, list) or not all(
        isinstance(part, list) and len(part) % 2 == 0 for part in segmentation
    ):
        return None
    numbers = [finite_numbers(part) for part in segmentation]
    if any(its is None for its in numbers):
        return None
    parts = [its.reshape(-1, 2) for its in numbers if its is not None and len(its) >= 6]
    if len(parts) < 2:
        return parts[0] if parts else None
    home = parts[0][:1]
    return np.concatenate(
        [parts[0], home] + [block for part in parts[1:] for block in (part, part[:1], home)]
    )


def finite_numbers(values: list) -> np.ndarray | None:
    """Convert to (n,) float64; None if a value is not an int or float, not finite, or too large."""
    if not {*map(type, values)} <= {int, float}:
        return None
    try:
        numbers = np.array(values, np.float64)
    except OverflowError:
        return None
    return numbers if (np.abs(numbers) <= MAX_NUMBER).all() else None

"""Data sets in COCO's JSON form."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.text import find_path, read_text
from mindyolo_ext.errors import DataError

_BOX_TOLERANCE = 0.5  # pixels; COCO rounds its boxes


class CocoDataset(Dataset):
    """A data set whose ground truth is the JSON file itself, with its ids, areas, crowds and
    unclipped boxes.
    """

    annotation_file: Path

    def coco_ground_truth(self) -> dict[str, list[dict[str, Any]]]:
        """The file's images, boxes and categories; segmentations are left out."""
        content = _read_json(self.annotation_file)
        for index, image in enumerate(content["images"]):
            if "height" not in image or "width" not in image:
                image["height"], image["width"] = self.size(index)
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        rows = []
        for number, row in enumerate(content["annotations"], 1):
            full = {"id": number, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3], **row}
            rows.append({key: full[key] for key in keys})
        return {
            "images": content["images"],
            "annotations": rows,
            "categories": content["categories"],
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
    back. Crowds are kept with ``ignore``. Images without boxes are kept.

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
    folder, file = find_path(images, data_root), find_path(annotations, data_root)
    content = _read_json(file)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    label_of = {category["id"]: label for label, category in enumerate(categories)}
    collector = Collector(
        str(file),
        [str(category["name"]) for category in categories],
        relative=False,
        tolerance=_BOX_TOLERANCE,
    )
    if len(label_of) != len(categories):
        raise DataError(f"{file}: category ids must differ, got some twice")

    boxes_of: dict[Any, list] = {image["id"]: [] for image in content["images"]}
    for number, row in enumerate(content["annotations"], 1):
        where = f"{file}: annotation {row.get('id', f'number {number}')}"
        problem = _problem(row, boxes_of, label_of)
        if problem:
            collector.report("malformed label", where, problem)
        else:
            x, y, width, height = row["bbox"]
            boxes_of[row["image_id"]].append(
                (
                    (x, y, x + width, y + height),
                    label_of[row["category_id"]],
                    bool(row.get("iscrowd", 0)),
                    where,
                    outline(row.get("segmentation")) if polygons else None,
                )
            )
    for image in content["images"]:
        found = boxes_of[image["id"]]
        size = (
            (image["height"], image["width"])
            if image.get("height") and image.get("width")
            else None
        )
        collector.add(
            str(folder / image["file_name"]),
            image["id"],
            size,
            boxes=[row[0] for row in found],
            labels=[row[1] for row in found],
            ignore=[row[2] for row in found],
            where=[row[3] for row in found],
            polygons=[row[4] for row in found],
        )
    dataset = collector.finish(cache=cache, strict=strict, dataset_class=CocoDataset)
    assert isinstance(dataset, CocoDataset)
    dataset.annotation_file = file
    dataset.category_ids = [category["id"] for category in categories]
    return dataset


def outline(segmentation: Any) -> np.ndarray | None:
    """(points, 2) float64 pixels of COCO's lists of x, y, x, y ..., None for a mask in another form
    or without area.

    The parts of an object that is seen in pieces are joined by lines there and back, which hold no
    area.
    """
    if not isinstance(segmentation, list) or not all(
        isinstance(part, list) and len(part) % 2 == 0 for part in segmentation
    ):
        return None
    parts = [np.array(part, np.float64).reshape(-1, 2) for part in segmentation if len(part) >= 6]
    if len(parts) < 2:
        return parts[0] if parts else None
    home = parts[0][:1]
    return np.concatenate(
        [parts[0], home] + [block for part in parts[1:] for block in (part, part[:1], home)]
    )


def _problem(row: dict, image_ids: dict, category_ids: dict) -> str:
    """What is wrong with an annotation, an empty text if nothing is."""
    box = row.get("bbox")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(isinstance(value, (int, float)) for value in box)
    ):
        return f"wanted bbox [x, y, width, height], got {box!r}"
    if row.get("image_id") not in image_ids:
        return f"no image has the id {row.get('image_id')!r}"
    if row.get("category_id") not in category_ids:
        return f"no category has the id {row.get('category_id')!r}"
    return ""


def _read_json(file: Path) -> dict[str, Any]:
    """The content of a COCO file with its three lists present."""
    try:
        content = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file}:{error.lineno}: wanted json, got a file that breaks off or is damaged: "
            f"{error.msg}"
        ) from error
    missing = [
        key
        for key in ("images", "annotations", "categories")
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if missing:
        raise DataError(
            f"{file}: wanted COCO's lists images, annotations and categories, got no "
            f"{', '.join(missing)}"
        )
    for image in content["images"]:
        if not isinstance(image.get("id"), int) or not isinstance(image.get("file_name"), str):
            raise DataError(
                f"{file}: wanted every image with an integer id and a file_name, got {image!r}"
            )
    return content

"""Read data sets in COCO's JSON format."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.data.arrays import Arrays, packed, unpacked
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.formats.coco_index import BOX_TOLERANCE, corners, indexed_table, rows_of
from mindyolo_ext.data.formats.coco_table import CocoTable
from mindyolo_ext.data.grouped import grouped
from mindyolo_ext.data.text import find_path
from mindyolo_ext.data.types import Problem
from mindyolo_ext.progress import bar

_UNUSUAL = re.compile(r"[/\\:]")  # in a file name
_HEADERS = 2000  # headers read before training; the others are read when their images are loaded


class CocoDataset(Dataset):
    """A data set whose ground truth is the JSON file itself, with its ids, areas, crowds and boxes
    before clipping.
    """

    annotation_file: Path

    def coco_ground_truth(self) -> dict[str, list[dict[str, Any]]]:
        """Return the file's images, boxes and categories, without segmentations and faulty rows."""
        columns = self._columns
        names = unpacked(columns["names"], columns["name_ends"])
        images = []
        for index, (name, told) in enumerate(
            zip(names, columns["image_sizes"].tolist(), strict=True)
        ):
            height, width = told if all(told) else self.size(index)
            entry = {"id": self.image_ids[index], "file_name": name}
            images.append({**entry, "height": height, "width": width})
        category_ids = columns["category_ids"].tolist()
        category_names = unpacked(columns["category_names"], columns["category_name_ends"])
        rows = zip(
            columns["row_ids"].tolist(),
            [self.image_ids[place] for place in columns["row_images"].tolist()],
            [category_ids[place] for place in columns["row_labels"].tolist()],
            columns["row_boxes"].tolist(),
            columns["row_areas"].tolist(),
            columns["row_crowds"].tolist(),
            strict=True,
        )
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        return {
            "images": images,
            "annotations": [dict(zip(keys, row, strict=True)) for row in rows],
            "categories": [
                {"id": id_, "name": name}
                for id_, name in zip(category_ids, category_names, strict=True)
            ],
        }

    def relabeled(
        self, label_of: np.ndarray, class_names: Sequence[str], category_ids: Sequence[int]
    ) -> "CocoDataset":
        """As in ``Dataset``; the ground truth also loses the rows of other classes."""
        found = super().relabeled(label_of, class_names, category_ids)
        assert isinstance(found, CocoDataset)  # a copy of this one
        ids = self._columns["category_ids"].tolist()
        labels = label_of[[self.category_ids.index(id_) for id_ in ids]]
        labels = labels[self._columns["row_labels"]]
        text, ends = packed(list(class_names))
        return found._with_rows(
            labels >= 0,
            row_labels=labels[labels >= 0],
            category_ids=np.array(category_ids, np.int64),
            category_names=text,
            category_name_ends=ends,
        )

    def only_images(self, indices: np.ndarray) -> "CocoDataset":
        """As in ``Dataset``; the ground truth also keeps only these images."""
        found = super().only_images(indices)
        assert isinstance(found, CocoDataset)  # a copy of this one
        place_of = np.full(len(self), -1)
        place_of[indices] = np.arange(len(indices))
        places = place_of[self._columns["row_images"]]
        names = unpacked(self._columns["names"], self._columns["name_ends"])
        text, ends = packed([names[index] for index in indices])
        return found._with_rows(
            places >= 0,
            row_images=places[places >= 0],
            names=text,
            name_ends=ends,
            image_sizes=self._columns["image_sizes"][indices],
        )

    def _with_rows(self, kept: np.ndarray, **changes: np.ndarray) -> "CocoDataset":
        """Change rows of the file and other columns of this new data set, and return it."""
        rows = {
            name: self._columns[name][kept]
            for name in (
                "row_ids",
                "row_images",
                "row_labels",
                "row_boxes",
                "row_areas",
                "row_crowds",
            )
        }
        self._columns = self._columns.changed(**{**rows, **changes})
        self._unpack()
        return self


def read_coco(
    *,
    images: str | Sequence[str],
    annotations: str | Sequence[str],
    data_root: str | Path = ".",
    polygons: bool = False,
    cache: bool | str = False,
    strict: bool = True,
    index: bool | str = True,
) -> CocoDataset:
    """Read a COCO JSON file and its folder of images.

    Labels are contiguous in the order of the sorted category ids; ``category_ids[label]`` is the
    inverse. Crowds are kept with ``ignore``. Images without boxes are kept. ``null`` counts as
    missing: the area is then the box's, ``iscrowd`` is 0, and the id of an annotation is its index.
    Integers may be written as floats or texts. Sizes are compared with the images' headers: with
    ``strict`` those of some 2,000 images all over the set, so that training does not have to open
    every file before it begins; otherwise all.

    Args:
        images: folder of the images (``file_name`` is relative to it), or a list of places to
            look for it.
        annotations: JSON file, likewise; its name may contain ``*``.
        data_root: folder that both refer to.
        polygons: keep the objects' outlines (8 bytes per point), for augmentations that use them.
        cache, strict: see ``Collector.finish``.
        index: where to cache the labels of a large file for the next start and other processes:
            True (beside the file, or in the user's cache folder), a folder, or False.

    Raises: MissingFileError, or DataError that names the file and the annotation.
    """
    folder = find_path(images, data_root, key="images")
    file = find_path(annotations, data_root, key="annotations")
    place = index if isinstance(index, bool) else Path(data_root) / index
    table = indexed_table(file, polygons=polygons, index=place)
    names = [category["name"] for category in table.categories]
    collector = Collector(str(file), names, relative=False, tolerance=BOX_TOLERANCE)
    collector.problems += table.problems
    paths = _image_paths(folder, table.file_names)
    sizes, noted = _looked_at(collector, table, paths, strict)
    columns = table.arrays
    if "order" not in columns:
        arranged = grouped(rows_of(columns, polygons), sizes, BOX_TOLERANCE)
        kept = [name for name in columns if not name.startswith("outline_")]
        columns = Arrays({**columns.only(*kept), **arranged})

    def box(row: int) -> tuple[np.ndarray, str]:
        number = columns["order"][row]
        where = f"{file}: annotation {columns['row_ids'][number]}"
        return corners(columns["row_boxes"][number, None])[0], where

    image_ids = columns["image_ids"].tolist()
    collector.add_grouped(paths, image_ids, columns, box=box, noted=noted)
    dataset = collector.finish(cache=cache, strict=strict, dataset_class=CocoDataset)
    assert isinstance(dataset, CocoDataset)
    dataset.annotation_file = file
    dataset.category_ids = [category["id"] for category in table.categories]
    return dataset


def _looked_at(
    collector: Collector, table: CocoTable, paths: list[str], strict: bool
) -> tuple[np.ndarray, dict[int, list[Problem]]]:
    """Return height and width of all images, (n, 2), after checking the headers of some, 0 if
    unknown, and the problems by image.
    """
    sizes, ids = np.array(table.arrays["image_sizes"]), table.arrays["image_ids"]
    apart = max(len(paths) // _HEADERS, 1) if strict else 1
    is_asked = ~sizes.all(1)
    is_asked[::apart] = True
    noted: dict[int, list[Problem]] = {}
    others, collector.problems = collector.problems, []
    asked = np.flatnonzero(is_asked).tolist()
    for index in bar(asked, title="reading headers", show=sys.stderr.isatty()):
        written = tuple(sizes[index].tolist()) if sizes[index].all() else None
        where = f"{collector.name}: image {ids[index]}"
        size = collector.checked_size(paths[index], written, where, must_fit=True)
        sizes[index] = size or (0, 0)
        if collector.problems:
            noted[index], collector.problems = collector.problems, []
    collector.problems = others
    return sizes, noted


def _image_paths(folder: Path, names: list[str]) -> list[str]:
    """Return the files of images."""
    start = str(folder / "x")[:-1]  # pathlib would be slow
    return [
        _image_path(folder, name) if _UNUSUAL.search(name) or name == "." else start + name
        for name in names
    ]


def _image_path(folder: Path, name: str) -> str:
    """Return the file of an image, also for a name that was written on Windows."""
    path = str(folder / name)
    if "\\" in name and not os.path.isfile(path):
        return str(folder / name.replace("\\", "/"))
    return path

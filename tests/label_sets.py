"""Small hand-written data sets of each format, for the tests of readers and checks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mindyolo_ext.data.image_file import write_image

HEIGHT, WIDTH = 40, 80
LINE = "0 0.5 0.5 0.25 0.5\n"  # (30, 10, 50, 30) in pixels
ITEM = (
    "<object><name>{name}</name>{more}<bndbox><xmin>31</xmin><ymin>11</ymin><xmax>50</xmax>"
    "<ymax>30</ymax></bndbox></object>"
)


def put(path: Path, content: str | bytes) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def image(path: Path, *, orientation: int = 1) -> Path:
    """Write an image of ``HEIGHT`` x ``WIDTH`` as stored, with an EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    if orientation == 1:
        write_image(path, pixels)
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(path, exif=exif)
    return path


def yolo(folder: Path, line: str = LINE, count: int = 1, **keys: Any) -> dict:
    """A set of ``count`` images with one label text each; returns its description."""
    for number in range(count):
        image(folder / f"images/{number}.jpg")
        put(folder / f"labels/{number}.txt", line)
    return {"format": "yolo", "images": "images", "names": ["cat", "dog"], **keys}


def coco(folder: Path, **changes: Any) -> dict:
    """A set of one image, 7, with one cat and one dog; ``changes`` replace the parts of the file,
    of ``row`` the keys of the first annotation. Returns its description.
    """
    image(folder / "img/a.jpg")
    row = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [30, 10, 20, 20], "iscrowd": 0}
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {**row, "area": 400, **changes.pop("row", {})},
            {**row, "area": 400, "id": 2, "category_id": 3},
        ],
        **changes,
    }
    put(folder / "ann.json", json.dumps(content))
    return {"format": "coco", "images": "img", "annotations": "ann.json"}


def voc(folder: Path, xml: str | bytes | None = None, stem: str = "a", **keys: Any) -> dict:
    """A set of one image with one object; returns its description."""
    if xml is None:
        xml = f"<annotation>{ITEM.format(name='cat', more='')}</annotation>"
    image(folder / f"V/JPEGImages/{stem}.jpg")
    put(folder / f"V/Annotations/{stem}.xml", xml)
    put(folder / "V/ImageSets/Main/train.txt", f"{stem}\n")
    return {"format": "voc", "root": "V", "split": "train", "names": ["cat", "dog"], **keys}

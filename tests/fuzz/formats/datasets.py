"""Data sets: COCO's JSON, YOLO's data.yaml, labels and names, darknet's .data file."""

import json
from random import Random
from typing import Any

from ..mutate import Files, dumps, mutate_bytes, mutate_lines, mutate_tree, odd_value
from .images import NAMES, photos
from .yaml_files import changed_yaml, written

COCO: dict[str, Any] = json.loads("""{
  "info": {"year": 2017},
  "images": [
    {"id": 1, "file_name": "000001.png", "height": 6, "width": 8},
    {"id": 2, "file_name": "000002.png", "height": 6, "width": 8}
  ],
  "annotations": [
    {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1.0, 1.0, 4.0, 3.0], "area": 12.0,
     "iscrowd": 0, "segmentation": [[1, 1, 5, 1, 5, 4]]},
    {"id": 2, "image_id": 2, "category_id": 5, "bbox": [0, 0, 8, 6], "area": 48,
     "iscrowd": 1, "segmentation": {"size": [6, 8], "counts": [0, 48]}}
  ],
  "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog", "supercategory": "animal"}]
}""")
YAML: dict[str, Any] = {
    "path": ".",
    "train": "images",
    "val": ["images"],
    "nc": 2,
    "names": {0: "cat", 1: "dog"},
}
LIST = "".join(f"images/{name}.png\n" for name in NAMES)
LABELS = "0 0.5 0.5 0.25 0.5\n1 0.25 0.5 0.5 0.5\n1 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9"
DATA = """[name]
model_name=coco
[train-configure]
epochs=300
steps=150,250
batch_size=64
subdivisions=1
learning_rate=0.001
[model-configure]
pre_weights=None
classes=2
width=352
height=352
anchor_num=3
anchors=12.6,19.3, 37.8,51.4, 55.7,138.3, 126.9,78.2, 131.5,214.5, 279.9,258.8
[data-configure]
train=train.txt
val=train.txt
names=all.names
"""


def coco_set(random: Random, sound: bool) -> Files:
    content = json.dumps(COCO).encode()
    if not sound:
        content = dumps(mutate_tree(random, COCO, raw=True), random)
        if random.random() < 0.15:
            content = mutate_bytes(random, content)
    return {"instances.json": content, **photos(random, "images", sound)}


def yolo_set(random: Random, sound: bool) -> Files:
    """A data.yaml with labels; one of the two is mutated."""
    files = {
        "data.yaml": written(YAML),
        "labels/000001.txt": LABELS.encode(),
        "labels/000002.txt": LABELS.encode(),
        **photos(random, "images", sound),
    }
    if not sound and random.random() < 0.5:
        files["data.yaml"] = changed_yaml(random, YAML)
    elif not sound:
        files["labels/000001.txt"] = mutate_lines(random, LABELS)
    return files


def names_set(random: Random, sound: bool) -> Files:
    """A list of images and a file of names; one of the two is mutated."""
    texts = {"list.txt": LIST, "my.names": "cat\ndog"}
    files = {
        **{name: text.encode() for name, text in texts.items()},
        "labels/000001.txt": LABELS.encode(),
        **photos(random, "images", sound),
    }
    if not sound:
        name = random.choice(list(texts))
        files[name] = mutate_lines(random, texts[name])
    return files


def darknet_set(random: Random, sound: bool) -> Files:
    """A .data file, its list, its names and its labels; usually the .data file is mutated."""
    texts = {"my.data": DATA, "train.txt": LIST, "all.names": "cat\ndog\n"}
    texts |= {"images/000001.txt": LABELS, "images/000002.txt": ""}
    files = {name: text.encode() for name, text in texts.items()}
    files |= photos(random, "images", sound)
    if not sound:
        name = random.choice((*texts, "my.data", "my.data", "my.data"))
        files[name] = _changed_data(random, texts[name])
    return files


def _changed_data(random: Random, text: str) -> bytes:
    """Lines changed as a whole, or the value of a key."""
    lines = text.split("\n")
    row = random.randrange(len(lines))
    key, equals, _ = lines[row].partition("=")
    if equals and random.random() < 0.6:
        lines[row] = f"{key}={odd_value(random)}"
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    return mutate_lines(random, text)

"""Data sets: COCO's json, YOLO's data.yaml and labels, darknet's .data file, VOC's XML."""

import json
from random import Random
from typing import Any
from xml.sax.saxutils import escape

from ..mutate import TEXTS, Files, dumps, mutate_bytes, mutate_lines, mutate_tree, odd_value
from .images import image_file, picture
from .yaml_files import changed_yaml, written

PHOTOS = ("000001", "000002")
COCO: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [
        {"id": 1, "file_name": "000001.png", "height": 6, "width": 8},
        {"id": 2, "file_name": "000002.png", "height": 6, "width": 8},
    ],
    "annotations": [
        {
            **{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1.0, 1.0, 4.0, 3.0]},
            **{"area": 12.0, "iscrowd": 0, "segmentation": [[1, 1, 5, 1, 5, 4]]},
        },
        {
            **{"id": 2, "image_id": 2, "category_id": 5, "bbox": [0, 0, 8, 6], "area": 48},
            **{"iscrowd": 1, "segmentation": {"size": [6, 8], "counts": [0, 48]}},
        },
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog", "supercategory": "animal"}],
}
YAML: dict[str, Any] = {
    "path": ".",
    "train": "images",
    "val": ["images"],
    "nc": 2,
    "names": {0: "cat", 1: "dog"},
}
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
XML = ("annotation", [
    ("folder", "x"), ("filename", "000001.png"),
    ("size", [("width", "8"), ("height", "6"), ("depth", "3")]),
    ("object", [
        ("name", "cat"), ("difficult", "0"),
        ("bndbox", [("xmin", "1"), ("ymin", "1"), ("xmax", "4"), ("ymax", "5")]),
        ("part", [("name", "head"), ("bndbox", [("xmin", "1"), ("ymin", "1")])]),
    ]),
    ("object", [
        ("name", "dog"), ("bndbox", [("xmin", "2.5"), ("ymin", "1"), ("xmax", "8"), ("ymax", "6")]),
    ]),
])  # fmt: skip
ENTITIES = (
    '<!DOCTYPE annotation [<!ENTITY a "{}">'.format("x" * 1000)
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 30}">' for old, new in zip("abcd", "bcde"))
    + "]>",
    '<!DOCTYPE annotation [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE annotation SYSTEM "http://localhost:9/x.dtd">',
)


def _photos(random: Random, folder: str, sound: bool) -> Files:
    """Two images, now and then a damaged one."""
    files = {f"{folder}/{name}.png": picture() for name in PHOTOS}
    if not sound and random.random() < 0.05:
        files[f"{folder}/{PHOTOS[0]}.png"] = next(iter(image_file(random, False).values()))
    return files


def coco_set(random: Random, sound: bool) -> Files:
    content = json.dumps(COCO).encode()
    if not sound:
        content = dumps(mutate_tree(random, COCO, raw=True), random)
        if random.random() < 0.15:
            content = mutate_bytes(random, content)
    return {"instances.json": content, **_photos(random, "images", sound)}


def yolo_set(random: Random, sound: bool) -> Files:
    """A data.yaml with labels beside it; one of the two is changed."""
    change = "" if sound else random.choice(("yaml", "labels", "labels"))
    yaml = changed_yaml(random, YAML) if change == "yaml" else written(YAML)
    labels = mutate_lines(random, LABELS) if change == "labels" else LABELS.encode()
    return {
        **{"data.yaml": yaml, "labels/000001.txt": labels, "labels/000002.txt": LABELS.encode()},
        **_photos(random, "images", sound),
    }


def names_set(random: Random, sound: bool) -> Files:
    """A list of images and a file of names; one of the two is changed."""
    files = {"list.txt": "".join(f"images/{name}.png\n" for name in PHOTOS), "my.names": "cat\ndog"}
    changed = "" if sound else random.choice(list(files))
    return {
        **{
            name: mutate_lines(random, text) if name == changed else text.encode()
            for name, text in files.items()
        },
        "labels/000001.txt": LABELS.encode(),
        **_photos(random, "images", sound),
    }


def darknet_set(random: Random, sound: bool) -> Files:
    """A .data file, its list, its names and its labels; mostly the first is changed."""
    files = {
        "my.data": DATA,
        "train.txt": "".join(f"images/{name}.png\n" for name in PHOTOS),
        "all.names": "cat\ndog\n",
        "images/000001.txt": LABELS,
        "images/000002.txt": "",
    }
    changed = "" if sound else random.choice((*files, "my.data", "my.data", "my.data"))
    return {
        **{
            name: _changed_data(random, text) if name == changed else text.encode()
            for name, text in files.items()
        },
        **_photos(random, "images", sound),
    }


def _changed_data(random: Random, text: str) -> bytes:
    """Lines changed as a whole, or the value of a key."""
    lines = text.split("\n")
    row = random.randrange(len(lines))
    key, equals, _ = lines[row].partition("=")
    if equals and random.random() < 0.6:
        value = odd_value(random)
        lines[row] = f"{key}={'9' * 5000 if value == 10**400 else value}"
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    return mutate_lines(random, text)


def voc_set(random: Random, sound: bool) -> Files:
    """An annotation whose elements go, come again, nest or say something else."""
    text = _xml(XML) if sound else _changed_xml(random)
    encodings = ("utf-8", "utf-8", "utf-8", "utf-16", "gbk", "latin-1", "utf-7", "x\x1b")
    encoding = "utf-8" if sound else random.choice(encodings)
    head = f'<?xml version="1.0" encoding="{encoding}"?>' if random.random() < 0.5 else ""
    content = (head + text).encode(encoding if encoding in encodings[:6] else "utf-8", "replace")
    if not sound and random.random() < 0.2:
        content = mutate_bytes(random, content)
    listed = "000001\n000002 1\n"
    changed = not sound and random.random() < 0.15
    return {
        "VOC/Annotations/000001.xml": content,
        "VOC/Annotations/000002.xml": _xml(XML).encode(),
        "VOC/ImageSets/Main/train.txt": mutate_lines(random, listed)
        if changed
        else listed.encode(),
        **_photos(random, "VOC/JPEGImages", sound),
    }


def _xml(node: Any) -> str:
    name, content = node
    inner = escape(content) if isinstance(content, str) else "".join(map(_xml, content))
    return f"<{name}>{inner}</{name}>"


def _changed_xml(random: Random) -> str:
    tree = json.loads(json.dumps(XML))  # lists, which can be changed
    for _ in range(random.choice((1, 1, 2, 3))):
        siblings = tree[1]
        while True:
            row = random.randrange(len(siblings))
            below = siblings[row][1]
            if not isinstance(below, list) or not below or random.random() < 0.3:
                break
            siblings = below
        kind = random.randrange(6)
        if kind == 0 and len(siblings) > 1:
            del siblings[row]
        elif kind == 1:
            siblings[row:row] = [siblings[row]] * random.choice((1, 2, 300))
        elif kind == 2:
            siblings[row][0] = random.choice(
                ("object", "bndbox", "size", "{x}name", "ns:object", "A")
            )
        elif kind == 3:
            siblings[row] = ["object", "&lt;" * random.choice((1, 10, 3000))]
        else:
            siblings[row][1] = str("9" * 5000 if random.random() < 0.05 else _short(random))
    text = _xml(tree)
    if random.random() < 0.1:
        text = random.choice(ENTITIES) + text.replace("cat", "&e;")
    if random.random() < 0.05:
        text = "<a>" * 50_000 + text
    if random.random() < 0.1:
        text = text.replace("<annotation>", '<annotation xmlns="http://x" xmlns:ns="y">')
    return text


def _short(random: Random) -> str:
    return random.choice((*TEXTS[:-1], "0", "-5", "1e300", "inf", "nan", "3.5", "2147483648"))

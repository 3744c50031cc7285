"""Randomly damaged files give a data set or an error that a user can fix, and nothing else."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from label_sets import ITEM, LINE, coco, put, voc, yolo

from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.check import check_dataset
from mindyolo_ext.data.readiness import check_before_training
from mindyolo_ext.errors import UserError

MUTANTS = 60  # of each kind
PIECES = b'\0|\xff\xfe|nan|1e999|99999999999999999999|-|[|{|"|&a |*a|<<: |!!int |\n|: |#|=|,|<|null'
VALUES = [
    *(None, -1, 0, 1, 2**70, 10**300, 1.5, float("nan"), float("inf"), 1e300, True),
    *("x", "", "1", "\ud800", "a\0b", "x" * 3000),
    *([], {}, [1], [[1]], {"a": 1}, [None] * 4, [2**70] * 4, ["1"] * 4, [True] * 4),
]
YAML = b"path: .\ntrain: images\nnc: 2\nnames: [cat, dog]\nkpt_shape: [4, 2]\n"
DATA = b"[x]\nepochs=3\nsteps=1,2\nclasses=2\nanchors=1,2,3,4\ntrain=l.txt\nvalid=l.txt\nnames=n\n"
XML = (
    '<?xml version="1.0" encoding="utf-8"?>\n<annotation><size><width>80</width><height>40</height>'
    f"</size>{ITEM.format(name='cat', more='<difficult>0</difficult>')}</annotation>"
).encode()


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Change, insert, delete or duplicate a few bytes, or cut off the end."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        place, length = rng.randrange(len(content) + 1), rng.randrange(1, 20)
        head, tail = content[:place], content[place:]
        content = rng.choice(
            [
                head + bytes([rng.randrange(256)]) + tail[1:],
                head + rng.choice(PIECES.split(b"|")) + tail,
                head + tail[length:],
                head + tail[:length] + tail,
                head,
            ]
        )
    return content


def places(value: Any, above: tuple = ()) -> Iterator[tuple]:
    """The key paths below a JSON value."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, below in value.items() if isinstance(value, dict) else ():
        yield (*above, key)
        yield from places(below, (*above, key))


def changed(content: dict, rng: random.Random) -> dict:
    """The content with one value replaced or removed."""
    content = copy.deepcopy(content)
    *above, last = rng.choice(list(places(content)))
    owner: Any = content
    for key in above:
        owner = owner[key]
    if rng.random() < 0.2:
        del owner[last]
    else:
        owner[last] = rng.choice(VALUES)
    return content


def try_it(folder: Path, description: dict, name: str) -> None:
    """Read and check the set, in strict mode and in the other."""
    try:
        build_dataset(description, folder).coco_ground_truth()
    except UserError as error:
        assert name in str(error), f"the message names no file: {error}"
        str(error).encode()
    try:
        dataset = build_dataset(description, folder, strict=False)
    except UserError as error:
        assert name in str(error)
        return
    report = check_dataset(dataset, progress=False)
    report.problems += check_before_training(dataset, dataset)
    report.table().encode()


def file_of(kind: str, folder: Path) -> tuple[dict, Path, str]:
    """The configuration of a valid set, the file to damage, and a part of the path that errors
    name.
    """
    described = yolo(folder)
    put(folder / "n", "cat\ndog\n")
    put(folder / "d.yaml", YAML)
    put(folder / "x.data", DATA)
    put(folder / "l.txt", "images/0.jpg\n")
    by_names = {**described, "names": "n"}
    darknet = {"format": "darknet", "data": "x.data", "split": "train"}
    by_yaml = {"format": "yolo", "data": "d.yaml", "split": "train"}
    table: dict[str, Callable[[], tuple[dict, str, str]]] = {
        "label": lambda: (described, "labels/0.txt", "0.txt"),
        "names": lambda: (by_names, "n", str(folder)),
        "yaml": lambda: (by_yaml, "d.yaml", str(folder)),
        "data": lambda: (darknet, "x.data", str(folder)),
        "list": lambda: (darknet, "l.txt", ""),
        "xml": lambda: (voc(folder, XML), "V/Annotations/a.xml", "a.xml"),
        "voc list": lambda: (voc(folder), "V/ImageSets/Main/train.txt", str(folder)),
        "json": lambda: (coco(folder), "ann.json", "ann.json"),
    }
    description, file, name = table[kind]()
    return description, folder / file, name


@pytest.mark.parametrize(
    "kind", ["label", "names", "yaml", "data", "list", "xml", "voc list", "json"]
)
def test_bytes(tmp_path: Path, kind: str) -> None:
    rng = random.Random(kind)
    description, file, name = file_of(kind, tmp_path)
    assert file.is_file()
    whole = file.read_bytes()
    for _ in range(MUTANTS):
        file.write_bytes(damaged(whole, rng))
        try_it(tmp_path, description, name)


def test_values_of_a_json_file(tmp_path: Path) -> None:
    rng = random.Random(0)
    description, file, name = file_of("json", tmp_path)
    sound = json.loads(file.read_text(encoding="utf-8"))
    for _ in range(4 * MUTANTS):
        file.write_text(json.dumps(changed(sound, rng)), encoding="utf-8")
        try_it(tmp_path, {**description, "polygons": True}, name)


def test_the_line_is_sound(tmp_path: Path) -> None:
    for kind in ("label", "names", "json", "xml"):
        description, _, _ = file_of(kind, tmp_path / kind)
        dataset = build_dataset(description, tmp_path / kind)
        assert dataset.annotations(0).boxes[0].tolist() == [30, 10, 50, 30], LINE

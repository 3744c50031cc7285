"""The files to read: a function per format, ``(random, sound) -> files``.

A sound file must be accepted, which a test checks; every other file is a mutant.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from ..mutate import Files
from .datasets import coco_set, darknet_set, names_set, yolo_set
from .images import image_file
from .torch_files import pickle_file, stream_file, tar_file, zip_file
from .voc import voc_set
from .weights import ckpt_file, mindir_file, safetensors_file
from .yaml_files import recipe

MAKERS: dict[str, Callable[[Random, bool], Files]] = {
    "zip": zip_file,
    "pickle": pickle_file,
    "stream": stream_file,
    "tar": tar_file,
    "safetensors": safetensors_file,
    "ckpt": ckpt_file,
    "mindir": mindir_file,
    "coco": coco_set,
    "yolo": yolo_set,
    "names": names_set,
    "darknet": darknet_set,
    "voc": voc_set,
    "recipe": recipe,
    "image": image_file,
}


def make(name: str, seed: int, number: int) -> Files:
    """The files of a mutant, the same for every call."""
    return MAKERS[name](Random(f"{name} {seed} {number}"), False)


def sound(name: str, number: int) -> Files:
    """Files of format ``name`` that every reader should accept."""
    return MAKERS[name](Random(f"{name} {number}"), True)


def write(files: Files, folder: Path) -> None:
    """Write ``files`` into a new ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

"""The calls for the files of each format: all calls that a command would make.

A reading returns the texts it would show to the user.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from mindyolo_ext.checkpoint.convert import convert
from mindyolo_ext.checkpoint.inspect import describe
from mindyolo_ext.checkpoint.reader import read_checkpoint
from mindyolo_ext.checkpoint.store import load_checkpoint
from mindyolo_ext.class_match import listed
from mindyolo_ext.config import load_config
from mindyolo_ext.config.describe import recipe_text
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.check import check_dataset
from mindyolo_ext.data.formats.darknet import parse_data_file
from mindyolo_ext.data.image_file import image_size, read_image

Reading = Callable[[], list[str]]

DATASETS = {
    "coco": {
        "format": "coco",
        "images": "images",
        "annotations": "instances.json",
        "polygons": True,
    },
    "yolo": {"format": "yolo", "data": "data.yaml", "split": "train", "polygons": True},
    "names": {"format": "yolo", "images": "list.txt", "names": "my.names"},
    "darknet": {"format": "darknet", "data": "my.data", "split": "train"},
    "voc": {"format": "voc", "root": "VOC", "split": "train", "names": ["cat", "dog"]},
}


def readings(name: str, folder: Path) -> Iterator[Reading]:
    """The calls for the files of format ``name`` in ``folder``."""
    if name in DATASETS:
        yield lambda: _trained_on(DATASETS[name], folder)
        yield lambda: _checked(DATASETS[name], folder)
        if name == "darknet":
            yield lambda: [repr(parse_data_file(folder / "my.data"))]
    elif name == "recipe":
        yield lambda: [recipe_text(load_config(folder / "recipe.yaml"))]
    elif name == "image":
        yield lambda: _image(next(folder.glob("photo.*")))
    else:
        path = next(folder.glob("weights.*"))
        yield lambda: _described(path)
        if name == "mindir":
            return
        yield lambda: read_checkpoint(path, prefer_ema=False).warnings
        yield lambda: [convert(path, folder / "converted.ckpt").table()]
        if path.suffix in (".ckpt", ".safetensors"):
            yield lambda: [listed(load_checkpoint(path)[1].class_names)]


def _described(path: Path) -> list[str]:
    info = describe(path)
    info.to_json()
    return [info.table()]


def _trained_on(config: dict[str, object], folder: Path) -> list[str]:
    """Read a data set as ``train.py`` and ``test.py`` do."""
    dataset = build_dataset(config, folder)
    for index in range(len(dataset)):
        dataset.load(index)
    dataset.coco_ground_truth()
    return []


def _checked(config: dict[str, object], folder: Path) -> list[str]:
    """Read it as ``mindyolo-ext check-data`` does."""
    return [check_dataset(build_dataset(config, folder, strict=False), progress=False).table()]


def _image(path: Path) -> list[str]:
    """Make sure that the size in the header is that of the pixels."""
    image = read_image(path)
    size = image_size(path)
    assert size == image.shape[:2], f"image_size says {size}, the pixels are {image.shape[:2]}"
    return []

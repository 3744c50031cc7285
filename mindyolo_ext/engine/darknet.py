"""Convert a ``.data`` file of Yolo-FastestV2 into changes of a recipe."""

import json
from pathlib import Path

from mindyolo_ext.data.formats.darknet import parse_data_file


def recipe_overrides(path: str | Path) -> list[str]:
    """Translate the settings of a ``.data`` file into ``section.key=value`` strings.

    The image lists are looked up in the working folder, as in the original, and then beside the
    file. ``batch_size`` is divided by ``subdivisions``, which become micro batches. As in the
    original, ``pre_weights`` are used only if the file exists.

    Raises: as ``parse_data_file``.
    """
    file = parse_data_file(path)
    size = [file.height, file.width] if file.width and file.height else None
    anchors = (
        None
        if file.anchors is None
        else [list(p) for p in zip(file.anchors[::2], file.anchors[1::2])]
    )
    batch = None if file.batch_size is None else max(1, file.batch_size // (file.subdivisions or 1))
    weight = file.pre_weights if file.pre_weights and Path(file.pre_weights).is_file() else None
    where = str(Path(path).resolve())
    values = {
        "data.num_classes": file.classes,
        "input.size": size,
        "model.keywords.anchors": anchors,
        "train.epochs": file.epochs,
        "train.per_batch_size": batch,
        "train.optimizer.accumulate": file.subdivisions,
        "train.optimizer.lr": file.learning_rate,
        "train.weight": weight,
        "train.schedule.milestones": None if file.steps is None else [int(s) for s in file.steps],
        "data.train": {"format": "darknet", "data": where, "split": "train"}
        if file.train
        else None,
        "data.val": {"format": "darknet", "data": where, "split": "val"} if file.val else None,
    }
    values = {key: value for key, value in values.items() if value is not None}
    # The lists are not looked up in the recipe's own folder, because another data set may have
    # lists with the same names there.
    place = (
        ['data.root="."', "data.class_names=[]"] if {"data.train", "data.val"} & set(values) else []
    )
    return [*place, *(f"{key}={json.dumps(value)}" for key, value in values.items())]

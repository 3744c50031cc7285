"""Create the data sets, the workers, the input and the NMS options of a recipe. No framework."""

from dataclasses import asdict, replace

from mindyolo_ext.config import Config, EvalConfig, InputConfig
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.cores import own_cores
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.selection import selected
from mindyolo_ext.engine.classes import in_recipe_order
from mindyolo_ext.errors import ConfigError
from mindyolo_ext.evaluation.nms import NMSOptions
from mindyolo_ext.input_spec import InputSpec


def split_dataset(config: Config, split: str) -> Dataset:
    """Open the ``train``, ``val`` or ``test`` data set of a recipe: the selected part, with classes
    in the order of ``data.class_names`` if the recipe sets it.

    Raises: ConfigError if the recipe has no such data set, or its classes are not
        ``data.class_names``; as ``selected``.
    """
    sections = {"train": config.data.train, "val": config.data.val, "test": config.data.test}
    description = sections[split]
    if not description:
        raise ConfigError(
            f"config: data.{split} is empty; describe it, for example "
            f"--set data.{split}='{{format: yolo, images: images/{split}, labels: labels/{split}}}'"
        )
    dataset = selected(
        build_dataset({**description, "cache": "none"}, config.data.root),
        classes=config.data.classes,
        single_cls=config.data.single_cls,
        fraction=config.data.fraction if split == "train" else 1.0,
        seed=config.train.seed,
    ).with_cache(description.get("cache", config.data.cache))
    names = config.data.class_names
    return in_recipe_order(names, dataset, data=f"data.{split}") if names else dataset


def worker_count(config: Config, ranks: int) -> int:
    """``data.workers`` of this rank; ``auto`` means one per core.

    Args:
        ranks: number of ranks on this machine, ``backend.launch.world().local_size``.
    """
    wanted = config.data.workers
    return own_cores(ranks) if wanted == "auto" else wanted


def with_input(spec: InputSpec, changes: InputConfig) -> InputSpec:
    """``spec`` with the fields that the recipe's ``input`` section sets."""
    untouched = asdict(InputConfig())
    return replace(
        spec, **{name: value for name, value in asdict(changes).items() if value != untouched[name]}
    )


def nms_options(config: EvalConfig) -> NMSOptions:
    """The recipe's NMS settings."""
    return NMSOptions(
        conf_thres=config.conf_thres,
        iou_thres=config.iou_thres,
        max_detections=config.max_detections,
        max_candidates=config.max_candidates,
        multi_label=config.multi_label,
        class_agnostic=config.class_agnostic,
    )

"""``mindyolo-ext anchors``, ``check-data`` and ``assign``: inspect a data set before training."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.cli.arguments import add_device, add_recipe, add_seed
from mindyolo_ext.cli.recipe import input_size, read_recipe

if TYPE_CHECKING:
    from mindyolo_ext.config import Config
    from mindyolo_ext.data.dataset import Dataset
    from mindyolo_ext.data.types import Problem

logger = logging.getLogger("mindyolo_ext")


def add_anchors(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``anchors``."""
    add_recipe(parser, model_default="none is needed beside --data or --traintxt")
    parser.add_argument(
        "--traintxt",
        metavar="FILE",
        help="list of images with labels beside them or in labels/, as for genanchors.py (default: "
        "the training images of the recipe or of --data)",
    )
    parser.add_argument(
        "--num_clusters", type=int, default=6, help="number of anchors; 0 tries 1 to 10"
    )
    parser.add_argument("--input_width", type=int, default=352, help="network width, in pixels")
    parser.add_argument("--input_height", type=int, default=352, help="network height, in pixels")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("."), help="folder for the text files"
    )
    add_seed(parser)


def anchors(options: argparse.Namespace) -> None:
    """Cluster the boxes of a data set into anchors and write them to text files."""
    from mindyolo_ext.atomic import write_text
    from mindyolo_ext.data.anchors import generate_anchors, sizes_from_list

    if options.traintxt:
        source = sizes_from_list(options.traintxt)
    else:
        from mindyolo_ext.data.build import build_dataset

        config = read_recipe(options, extra=options.set, instead="--data FILE or --traintxt FILE")
        source = _selected(build_dataset(config.data.train, config.data.root), config, "train")
    size = input_size(options) or (options.input_height, options.input_width)
    for count in [options.num_clusters] if options.num_clusters else range(1, 11):
        result = generate_anchors(source, num_anchors=count, input_size=size, seed=options.seed)
        path = options.output_dir / f"anchors{count}.txt"
        write_text(path, result.text)
        logger.info(
            "%d anchors, mean best IoU %.6f: %s\n%s",
            count,
            result.mean_iou,
            path,
            result.text.splitlines()[0],
        )


def _selected(dataset: "Dataset", config: "Config", split: str) -> "Dataset":
    """Return the part of a data set that the recipe selects."""
    from mindyolo_ext.data.selection import selected

    return selected(
        dataset,
        classes=config.data.classes,
        single_cls=config.data.single_cls,
        fraction=config.data.fraction if split == "train" else 1.0,
        seed=config.train.seed,
    )


def add_check_data(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``check-data``."""
    add_recipe(parser, model_default="none is needed beside --data")
    parser.add_argument(
        "--split", default="train", choices=["train", "val"], help="images to check"
    )


def check_data(options: argparse.Namespace) -> None:
    """Read every image and label. Raises: DataError if training would stop at one."""
    from mindyolo_ext.data.check import check_dataset
    from mindyolo_ext.errors import DataError

    config = read_recipe(options, extra=options.set, instead="--data FILE")
    sets, problems = _read_splits(config, options.split)
    report = check_dataset(sets[options.split])
    report.problems += problems + _problems_of_sets(config, sets, options.split)
    logger.info("\n%s", report.table())
    if not report.ok:
        faults = sum(problem.fatal for problem in report.problems)
        raise DataError(
            f"check-data: {faults} fault{'s' if faults > 1 else ''} must be fixed before training"
        )


def _read_splits(config: "Config", chosen: str) -> tuple[dict[str, "Dataset"], list["Problem"]]:
    """Build the chosen data set, and the other one if training reads it too, as the recipe selects
    them. Return both with the problems found in the other one.

    Training needs both splits; an evaluation may have no training images.

    Raises: ConfigError if the recipe does not describe the chosen split; as ``build_dataset``.
    """
    from mindyolo_ext.data.build import build_dataset
    from mindyolo_ext.data.collector import raise_faults
    from mindyolo_ext.data.types import Problem
    from mindyolo_ext.errors import ConfigError, UserError

    described = {"train": config.data.train, "val": config.data.val}
    if not described[chosen]:
        raise ConfigError(f"config: data.{chosen} is empty; nothing to check")

    def read(split: str) -> "Dataset":
        found = build_dataset(described[split], config.data.root, strict=False)
        return _selected(found, config, split)

    sets = {chosen: read(chosen)}
    other = "val" if chosen == "train" else "train"
    if not described[other] or (other == "val" and not config.train.run_eval):
        return sets, []
    if described[other] == described[chosen]:
        return {**sets, other: sets[chosen]}, []
    try:
        sets[other] = read(other)
        name = f"{sets[other].name}, see `check-data --split {other}`"
        raise_faults(name, sets[other].problems)
    except UserError as error:
        kind = "other split" if other == "val" else "doubtful set"
        return sets, [Problem(kind, f"data.{other}", str(error).replace("\n", " "))]
    return sets, []


def _problems_of_sets(config: "Config", sets: dict[str, "Dataset"], chosen: str) -> list["Problem"]:
    """Find problems within the chosen data set, and between the two data sets."""
    from mindyolo_ext.data.readiness import (
        check_before_evaluation,
        check_before_training,
        check_recipe_classes,
    )

    names, count = config.data.class_names, config.data.num_classes
    found = check_recipe_classes(sets[chosen], names, count)
    if chosen == "train":
        return found + check_before_training(sets["train"], sets.get("val"))
    return found + check_before_evaluation(sets["val"], sets.get("train"))


def add_assign(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``assign``."""
    add_recipe(parser, model_default="the one of --config, else of --weight")
    parser.add_argument("--weight", type=Path, help="checkpoint (default: random weights)")
    parser.add_argument(
        "--split", default="train", choices=["train", "val"], help="where the images come from"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--image",
        nargs="+",
        default=[],
        metavar="NAME",
        help="file names, or quoted patterns (default: --count images)",
    )
    which.add_argument(
        "--index",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="image numbers, from 0 (default: --count images)",
    )
    which.add_argument(
        "--count", type=int, default=4, help="number of images, spread over the data set"
    )
    parser.add_argument(
        "--augment",
        action="store_true",
        help="augment the images as in the first epoch of training",
    )
    add_device(parser)
    parser.add_argument(
        "--save_dir", type=Path, default=Path("runs/assign"), help="folder for the pictures"
    )


def assign(options: argparse.Namespace) -> None:
    """Draw which predictions are assigned to which box in a few images."""
    config = read_recipe(options, extra=options.set, weight=options.weight)
    from mindyolo_ext.backend import launch
    from mindyolo_ext.backend.graph_options import GraphOptions

    compiler = GraphOptions.of(config.train)
    launch.start(options.device_target, seed=config.train.seed, options=compiler)
    from mindyolo_ext.engine.assign import assign as run
    from mindyolo_ext.engine.assign import choose_pictures
    from mindyolo_ext.engine.build import split_dataset
    from mindyolo_ext.engine.check import check_recipe

    check_recipe(config)
    dataset = split_dataset(config, options.split)
    indices = choose_pictures(
        dataset, image=options.image, index=options.index, count=options.count
    )
    written = run(
        config,
        indices,
        options.save_dir,
        dataset=dataset,
        weight=options.weight,
        augment=options.augment,
    )
    logger.info("\nwritten: %d, in %s", len(written), options.save_dir)

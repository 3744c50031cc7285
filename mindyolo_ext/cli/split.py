"""``mindyolo-ext split``: split a data set into folds for cross-validation."""

import argparse
import logging
import shlex
from pathlib import Path

from mindyolo_ext.cli.arguments import add_recipe, add_seed
from mindyolo_ext.cli.recipe import read_recipe

logger = logging.getLogger("mindyolo_ext")


def add_split(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``split``."""
    add_recipe(parser, model_default="none is needed beside --data")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="number of folds")
    parser.add_argument(
        "--split",
        default="train",
        choices=["train", "val", "test"],
        help="images to split: data.train, data.val or data.test",
    )
    add_seed(parser)
    parser.add_argument(
        "--save_dir",
        type=Path,
        default=Path("folds"),
        metavar="DIR",
        help="folder for the files; must not hold folds yet",
    )


def split(options: argparse.Namespace) -> None:
    """Write a recipe and annotations for each fold.

    Raises: ConfigError if the recipe does not describe the images; as ``assign_folds`` and
        ``write_folds``.
    """
    from mindyolo_ext.data.build import build_dataset
    from mindyolo_ext.data.folds import assign_folds, folds_table, write_folds
    from mindyolo_ext.errors import ConfigError

    config = read_recipe(options, extra=options.set, instead="--data FILE")
    data = config.data
    description = {"train": data.train, "val": data.val, "test": data.test}[options.split]
    if not description:
        raise ConfigError(f"config: data.{options.split} is empty; nothing to split")
    dataset = build_dataset(description, data.root)
    fold_of = assign_folds(dataset, options.folds, options.seed)
    recipes = write_folds(
        dataset,
        fold_of,
        options.save_dir,
        description=description,
        data_root=Path(data.root),
        title=f"{dataset.name}, seed {options.seed}",
    )
    logger.info("%s: evaluate each fold once\n%s", dataset, folds_table(dataset, fold_of))
    logger.info(
        "written: %s ... %s. Next: mindyolo-ext train --config RECIPE --config %s --save_dir "
        "runs/fold0, and so on",
        recipes[0],
        recipes[-1],
        shlex.quote(str(recipes[0])),
    )

"""``mindyolo-ext compare``: two checkpoints, or two results, on the same images."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.cli.arguments import add_machine, add_recipe, add_seed, add_split
from mindyolo_ext.cli.recipe import digest, read_recipe, start

if TYPE_CHECKING:
    from mindyolo_ext.config import Config
    from mindyolo_ext.data.dataset import Dataset
    from mindyolo_ext.evaluation.coco_map import CocoResult

logger = logging.getLogger("mindyolo_ext")
_CHECKPOINTS = (".ckpt", ".safetensors")


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``compare``."""
    for name in ("A", "B"):
        parser.add_argument(
            name,
            type=Path,
            help="checkpoint (.ckpt, .safetensors), folder written by test.py, or a file of "
            "detections in COCO results format",
        )
    add_recipe(parser, model_default="the one of --config, else of the first checkpoint")
    add_machine(parser)
    add_split(parser)
    parser.add_argument(
        "--pictures", type=int, default=8, help="number of images to draw, most different first"
    )
    parser.add_argument(
        "--save_dir", type=Path, default=Path("runs/compare"), help="folder for table and pictures"
    )
    add_seed(parser)


def compare(options: argparse.Namespace) -> None:
    """Compare two checkpoints or results: table, classes, pictures."""
    both = [options.A, options.B]
    checkpoints = [path for path in both if path.suffix in _CHECKPOINTS]
    own = checkpoints[0] if checkpoints else None
    config = read_recipe(options, extra=options.set, weight=own)
    if checkpoints:
        start(options, options.seed, config, "".join(map(digest, checkpoints)))
    from mindyolo_ext.engine.check import check_recipe
    from mindyolo_ext.engine.compare import FILES, save_comparison
    from mindyolo_ext.engine.compare import compare as compared
    from mindyolo_ext.engine.datasets import split_dataset
    from mindyolo_ext.evaluation.coco_backends import check_backend

    check_recipe(config)
    check_backend(config.eval.backend)
    dataset = split_dataset(config, options.split)
    first, second = (_result(path, config, dataset, options.split) for path in both)
    if first is None or second is None:
        return  # a rank other than 0
    comparison = compared(first, second, (str(options.A), str(options.B)))
    pictures = save_comparison(
        options.save_dir, comparison, dataset, pictures=max(options.pictures, 0)
    )
    logger.info("\n%s", comparison.table())
    logger.info("%s, %s, %d pictures: %s", *FILES[:2], len(pictures), options.save_dir)


def _result(path: Path, config: "Config", dataset: "Dataset", split: str) -> "CocoResult | None":
    """Compute COCO metrics of a checkpoint or of a file of detections; None except on rank 0."""
    from mindyolo_ext.engine.compare import read_results
    from mindyolo_ext.evaluation.coco_map import evaluate_coco

    if path.suffix not in _CHECKPOINTS:
        records = read_results(path, dataset)
        return evaluate_coco(dataset.coco_ground_truth(), records, backend=config.eval.backend)
    from mindyolo_ext.backend.launch import world
    from mindyolo_ext.engine.datasets import worker_count
    from mindyolo_ext.engine.evaluate import evaluate
    from mindyolo_ext.engine.evaluate_file import load_for_test

    loaded = load_for_test(path, config, dataset, split=split)
    return evaluate(
        loaded.predictor,
        loaded.dataset,
        config.eval,
        workers=worker_count(config, world().local_size),
        worker_kind=config.data.worker_kind,
        class_names=loaded.class_names,
    ).coco

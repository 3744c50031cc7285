"""``mindyolo-ext compare``: two checkpoints, or two results, on the same images."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.cli.arguments import add_machine, add_recipe, add_seed
from mindyolo_ext.cli.recipe import digest, read_recipe, start

if TYPE_CHECKING:
    from mindyolo_ext.config import Config
    from mindyolo_ext.data.dataset import Dataset
    from mindyolo_ext.evaluation.coco_map import CocoResult

logger = logging.getLogger("mindyolo_ext")
_CHECKPOINTS = (".ckpt", ".safetensors")


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``compare``."""
    for name in ("A", "B"):
        parser.add_argument(
            name,
            type=Path,
            help="checkpoint (.ckpt, .safetensors), folder that test.py wrote, or a file of "
            "detections in COCO's results format",
        )
    add_recipe(parser)
    add_machine(parser)
    parser.add_argument(
        "--split",
        default="val",
        choices=["train", "val", "test"],
        help="which images: data.train, data.val or data.test of the recipe",
    )
    parser.add_argument(
        "--pictures", type=int, default=8, help="images to draw, those that differ most"
    )
    parser.add_argument(
        "--save_dir", type=Path, default=Path("runs/compare"), help="folder for table and pictures"
    )
    add_seed(parser)


def compare(options: argparse.Namespace) -> None:
    """Compare two checkpoints or results: table, classes, pictures."""
    config = read_recipe(options, extra=options.set)
    both = [options.A, options.B]
    checkpoints = [path for path in both if path.suffix in _CHECKPOINTS]
    if checkpoints:
        start(options, options.seed, config, "".join(map(digest, checkpoints)))
    from mindyolo_ext.engine.compare import FILES, save_comparison
    from mindyolo_ext.engine.compare import compare as compared
    from mindyolo_ext.evaluation.coco_backends import check_backend

    check_backend(config.eval.backend)
    dataset = _dataset(config, options.split)
    first, second = (_result(path, config, dataset) for path in both)
    if first is None or second is None:
        return  # a rank other than 0
    comparison = compared(first, second, (str(options.A), str(options.B)))
    pictures = save_comparison(
        options.save_dir, comparison, dataset, pictures=max(options.pictures, 0)
    )
    logger.info("\n%s", comparison.table())
    logger.info("%s, %s, %d pictures: %s", *FILES[:2], len(pictures), options.save_dir)


def _dataset(config: "Config", split: str) -> "Dataset":
    from mindyolo_ext.engine.build import split_dataset

    return split_dataset(config, split)


def _result(path: Path, config: "Config", dataset: "Dataset") -> "CocoResult | None":
    """COCO's metrics of a checkpoint or of a file of detections; None on ranks other than 0."""
    from mindyolo_ext.evaluation.coco_map import evaluate_coco

    if path.suffix in _CHECKPOINTS:
        return _evaluated(path, config, dataset)
    from mindyolo_ext.engine.compare import read_results

    records = read_results(path, dataset)
    return evaluate_coco(dataset.coco_ground_truth(), records, backend=config.eval.backend)


def _evaluated(path: Path, config: "Config", dataset: "Dataset") -> "CocoResult | None":
    """Metrics of a checkpoint, its classes matched with the data set's by name."""
    from mindyolo_ext.class_match import are_known
    from mindyolo_ext.engine.build import load_model
    from mindyolo_ext.engine.classes import in_order_of
    from mindyolo_ext.engine.evaluate import evaluate
    from mindyolo_ext.engine.routing import new_predictor
    from mindyolo_ext.engine.thresholds import choose_threshold

    model, metadata = load_model(path, config)
    threshold = choose_threshold(
        model, metadata, where=path, easy=None, dy_thres=config.eval.dy_thres
    )
    ordered = in_order_of(metadata.class_names, dataset, owner=path, data="the data set")
    known = ordered.class_names if are_known(metadata.class_names) else None
    return evaluate(
        new_predictor(model, fold=config.eval.fold, dy_thres=threshold),
        ordered,
        config.eval,
        workers=config.data.workers,
        worker_kind=config.data.worker_kind,
        class_names=known,
    ).coco

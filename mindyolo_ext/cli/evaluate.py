"""``mindyolo-ext test``, also ``test.py``, and ``mindyolo-ext thresholds``."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.cli.arguments import add_bool, add_machine, add_recipe, add_route
from mindyolo_ext.cli.recipe import digest, given, read_recipe, start

if TYPE_CHECKING:
    from mindyolo_ext.config import Config
    from mindyolo_ext.contracts import Predictor
    from mindyolo_ext.data.dataset import Dataset
    from mindyolo_ext.engine.routing import RoutedPredictor

logger = logging.getLogger("mindyolo_ext")


def add_test(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``test``."""
    add_recipe(parser, config_required=True)
    add_machine(parser)
    parser.add_argument(
        "--weight",
        type=Path,
        required=True,
        help="checkpoint of train.py or `mindyolo-ext convert`",
    )
    parser.add_argument("--per_batch_size", type=int, help="images per rank and batch")
    add_bool(
        parser,
        "--rectangular",
        "batches of images of like shape, as narrow as they allow (eval.rectangular); compiles "
        "once per shape",
    )
    parser.add_argument(
        "--coco_backend",
        choices=["pycocotools", "faster_coco_eval"],
        help="what computes COCO's metrics (eval.backend); the second is quicker and an extra "
        "package",
    )
    add_route(parser)
    add_bool(
        parser,
        "--curve",
        "of a routed model: both exits on every image, then AP over GFLOPs and speed for 0, 10, "
        "... 100 %% hard images; instead of the usual metrics",
        default=False,
    )
    parser.add_argument("--save_dir", type=Path, default=Path("runs_test"))
    parser.add_argument("--seed", type=int, default=0)


def test(options: argparse.Namespace) -> None:
    """Evaluate ``--weight`` on the validation images of ``--config``."""
    config = read_recipe(
        options,
        extra=[
            *given(
                options,
                per_batch_size="eval.per_batch_size",
                coco_backend="eval.backend",
                rectangular="eval.rectangular",
                dy_thres="eval.dy_thres",
            ),
            *options.set,
        ],
    )
    this = start(options, options.seed, config, digest(options.weight))
    from mindyolo_ext.backend import precision
    from mindyolo_ext.backend.launch import device
    from mindyolo_ext.class_match import are_known
    from mindyolo_ext.engine.build import load_model, split_dataset
    from mindyolo_ext.engine.check import check_recipe
    from mindyolo_ext.engine.classes import in_order_of
    from mindyolo_ext.engine.routing import new_predictor
    from mindyolo_ext.engine.thresholds import check_router, choose_threshold
    from mindyolo_ext.errors import UsageError

    check_recipe(config)
    model, metadata = load_model(options.weight, config)
    if options.curve:
        check_router(model, options.weight)
    threshold = choose_threshold(
        model,
        metadata,
        where=options.weight,
        easy=options.easy,
        dy_thres=config.eval.dy_thres if options.easy is None else None,
    )
    dataset = split_dataset(config, "val")
    if len(dataset.class_names) != metadata.num_classes:
        raise UsageError(
            f"{options.weight}: has {metadata.num_classes} classes, but data.val has "
            f"{len(dataset.class_names)} ({', '.join(dataset.class_names[:5])}"
            f"{', ...' if len(dataset.class_names) > 5 else ''})"
        )
    dataset = in_order_of(metadata.class_names, dataset, owner=options.weight, data="data.val")
    what = f"{metadata.model}, {len(dataset)} images, {device()}"
    if this.is_main:
        logger.info("%s: %s, input %s", options.weight, what, model.input_spec.size)
        options.save_dir.mkdir(parents=True, exist_ok=True)
    predictor = new_predictor(model, fold=config.eval.fold, dy_thres=threshold)
    precision.apply(predictor.network, config.train.amp_level, config.train.amp_dtype)
    if options.curve:
        _draw_tradeoff(predictor, dataset, config, options.save_dir, what)
    else:
        known = dataset.class_names if are_known(metadata.class_names) else None
        _write_metrics(predictor, dataset, config, options.save_dir, known)


def _write_metrics(
    predictor: "Predictor",
    dataset: "Dataset",
    config: "Config",
    folder: Path,
    class_names: Sequence[str] | None,
) -> None:
    """Evaluate on all ranks; rank 0 writes and logs the tables and curves."""
    from mindyolo_ext.atomic import write_text
    from mindyolo_ext.backend.launch import world
    from mindyolo_ext.engine.build import worker_count
    from mindyolo_ext.engine.evaluate import evaluate
    from mindyolo_ext.visual.curves import plot_f1_curves, plot_pr_curves

    result = evaluate(
        predictor,
        dataset,
        config.eval,
        save_dir=folder,
        workers=worker_count(config),
        worker_kind=config.data.worker_kind,
        class_names=class_names,
    )
    if not world().is_main:
        return
    if result.routing is not None:
        result.routing.count_gflops(predictor.network, predictor.input_spec.size)
    text = result.table()
    plot_pr_curves(result.coco, folder / "pr_curves.png")
    plot_f1_curves(result.coco, folder / "f1_curves.png")
    write_text(folder / "metrics.txt", text + "\n")
    logger.info("\n%s", text)
    logger.info("detections.json, metrics.txt, pr_curves.png, f1_curves.png: %s", folder)


def _draw_tradeoff(
    predictor: "RoutedPredictor", dataset: "Dataset", config: "Config", folder: Path, title: str
) -> None:
    """Run both exits on all ranks; rank 0 writes and logs accuracy over cost."""
    from mindyolo_ext.backend.launch import world
    from mindyolo_ext.engine.accuracy_speed import FILES, accuracy_over_speed
    from mindyolo_ext.engine.build import worker_count

    curve = accuracy_over_speed(
        predictor,
        dataset,
        config.eval,
        workers=worker_count(config),
        worker_kind=config.data.worker_kind,
    )
    if world().is_main:
        curve.save(folder, title)
        logger.info("\n%s\n%s: %s", curve.table(), ", ".join(FILES), folder)


def add_thresholds(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``thresholds``."""
    add_recipe(parser, config_required=True)
    add_machine(parser)
    parser.add_argument(
        "--weight", type=Path, required=True, help="checkpoint of a routed model with its router"
    )
    parser.add_argument("--split", default="val", choices=["train", "val"])
    parser.add_argument("--output", type=Path, help="checkpoint to write; the same if not given")
    parser.add_argument("--per_batch_size", type=int, help="images per rank and batch")
    add_bool(parser, "--rectangular", "as in test.py")
    parser.add_argument("--seed", type=int, default=0)


def thresholds(options: argparse.Namespace) -> None:
    """Measure the easiness of a data set and store the thresholds in a checkpoint."""
    config = read_recipe(
        options,
        extra=[
            *given(options, per_batch_size="eval.per_batch_size", rectangular="eval.rectangular"),
            *options.set,
        ],
    )
    this = start(options, options.seed, config, digest(options.weight))
    from mindyolo_ext.engine.check import check_recipe
    from mindyolo_ext.engine.thresholds import find_thresholds

    check_recipe(config)
    found = find_thresholds(config, options.weight, split=options.split, output=options.output)
    if this.is_main:
        logger.info(
            "\n%s\n\nthresholds: %s, histogram: %s. Next: test.py or predict with --weight %s "
            "--easy 0.5",
            found.table(),
            found.checkpoint,
            found.picture,
            found.checkpoint,
        )

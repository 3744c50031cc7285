"""``mindyolo-ext test``, also ``test.py``, and ``mindyolo-ext thresholds``."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from mindyolo_ext.cli.arguments import (
    add_bool,
    add_machine,
    add_recipe,
    add_route,
    add_runtime,
    add_seed,
    add_setting,
    add_split,
    add_switch,
)
from mindyolo_ext.cli.mindyolo import add_mindyolo, apply_mindyolo
from mindyolo_ext.cli.options import add_flag, add_selection
from mindyolo_ext.cli.recipe import digest, read_recipe, start
from mindyolo_ext.errors import UsageError

if TYPE_CHECKING:
    from mindyolo_ext.config import Config
    from mindyolo_ext.data.dataset import Dataset
    from mindyolo_ext.engine.routing import RoutedPredictor

logger = logging.getLogger("mindyolo_ext")


def add_test(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``test``."""
    add_recipe(parser, model_default="the one of --config, else of --weight")
    add_machine(parser)
    parser.add_argument(
        "--weight",
        type=Path,
        required=True,
        help="checkpoint of train.py or `mindyolo-ext convert`, or a file of `mindyolo-ext export`",
    )
    add_runtime(parser)
    add_setting(parser, "--per_batch_size", "eval.per_batch_size", type=int)
    add_switch(parser, "--rectangular", "eval.rectangular")
    add_flag(parser, "--augment", "eval.augment")
    add_selection(parser, fraction=False)
    add_setting(
        parser,
        "--coco_backend",
        "eval.backend",
        choices=["auto", "faster_coco_eval", "pycocotools"],
    )
    add_split(parser)
    add_bool(
        parser,
        "--save_txt",
        "write labels/NAME.txt for each image: class, center x and y, width, height in 0..1, score",
        default=False,
    )
    add_bool(parser, "--save_json", "write detections.json in COCO results format", default=True)
    add_route(parser)
    add_bool(
        parser,
        "--curve",
        "run both exits of a routed model on every image, then report AP over GFLOPs and speed for "
        "0, 10, ... 100 %% hard images, in place of the usual metrics",
        default=False,
    )
    parser.add_argument(
        "--save_dir", type=Path, default=Path("runs_test"), help="folder for tables and curves"
    )
    add_seed(parser)
    add_mindyolo(parser, "test")


def test(options: argparse.Namespace) -> None:
    """Evaluate ``--weight`` on the validation images of the recipe, or of ``--data``."""
    translated = apply_mindyolo(options)
    config = read_recipe(options, extra=[*translated, *options.set], weight=options.weight)
    device = framework_beside(options)
    this = start(options, options.seed, config, digest(options.weight))
    from mindyolo_ext.engine.build import split_dataset
    from mindyolo_ext.engine.check import check_recipe
    from mindyolo_ext.engine.evaluate_file import load_for_test, run_test

    check_recipe(config)
    dataset = split_dataset(config, options.split)
    loaded = load_for_test(
        options.weight,
        config,
        dataset,
        split=options.split,
        easy=options.easy,
        needs_router=options.curve,
        runtime=options.runtime,
        device=device,
    )
    if this.is_main:
        size = loaded.predictor.input_spec.size
        logger.info("%s: %s, input %s", options.weight, loaded.title, size)
        options.save_dir.mkdir(parents=True, exist_ok=True)
    if options.curve:
        _draw_tradeoff(loaded.predictor, loaded.dataset, config, options.save_dir, loaded.title)
    else:
        run_test(
            loaded,
            config,
            options.save_dir,
            save_json=options.save_json,
            save_txt=options.save_txt,
        )


def framework_beside(options: argparse.Namespace) -> str:
    """Return the device of the framework. If another runtime runs ``--weight``, the framework only
    gathers results between ranks and stays on the CPU.

    Raises: UsageError for an option that does not apply to an exported file.
    """
    from mindyolo_ext.runtimes.names import EXPORTED, devices_of, runtime_of

    runtime = runtime_of(options.weight, options.runtime)
    if runtime in EXPORTED and options.ms_amp_level not in (None, "O0"):
        raise UsageError(
            f"--ms_amp_level {options.ms_amp_level}: {runtime} runs a file in the precision of "
            "its export; leave it out"
        )
    device, options.device_target = devices_of(
        options.weight, options.runtime, options.device_target
    )
    return device


def _draw_tradeoff(
    predictor: "RoutedPredictor", dataset: "Dataset", config: "Config", folder: Path, title: str
) -> None:
    """Run both exits on all ranks; rank 0 writes and logs accuracy over cost."""
    from mindyolo_ext.backend.launch import world
    from mindyolo_ext.engine.accuracy_speed import FILES, accuracy_over_speed
    from mindyolo_ext.engine.datasets import worker_count

    curve = accuracy_over_speed(
        predictor,
        dataset,
        config.eval,
        workers=worker_count(config, world().local_size),
        worker_kind=config.data.worker_kind,
    )
    if world().is_main:
        curve.save(folder, title)
        logger.info("\n%s\n%s: %s", curve.table(), ", ".join(FILES), folder)


def add_thresholds(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``thresholds``."""
    add_recipe(parser, model_default="the one of --config, else of --weight")
    add_machine(parser)
    parser.add_argument(
        "--weight", type=Path, required=True, help="checkpoint of a routed model and its router"
    )
    add_runtime(parser)
    parser.add_argument(
        "--split", default="val", choices=["train", "val"], help="images to measure"
    )
    parser.add_argument("--output", type=Path, help="checkpoint to write (default: --weight)")
    add_setting(parser, "--per_batch_size", "eval.per_batch_size", type=int)
    add_switch(parser, "--rectangular", "eval.rectangular")
    add_seed(parser)


def thresholds(options: argparse.Namespace) -> None:
    """Measure the easiness of a data set and store the thresholds in a checkpoint."""
    _refuse_exported(options.weight)
    config = read_recipe(options, extra=options.set, weight=options.weight)
    device = framework_beside(options)
    this = start(options, options.seed, config, digest(options.weight))
    from mindyolo_ext.engine.check import check_recipe
    from mindyolo_ext.engine.network import network_for_test
    from mindyolo_ext.engine.thresholds import find_thresholds
    from mindyolo_ext.runtimes.names import EXPORTED

    check_recipe(config)
    network = (
        network_for_test(options.weight, config, runtime=options.runtime, device=device)
        if options.runtime in EXPORTED
        else None
    )
    found = find_thresholds(
        config,
        options.weight,
        split=options.split,
        output=options.output,
        predictor=network and network.predictor,
    )
    if this.is_main:
        logger.info(
            "\n%s\n\nthresholds: %s, histogram: %s. Next: test.py or predict with --weight %s "
            "--easy 0.5",
            found.table(),
            found.checkpoint,
            found.picture,
            found.checkpoint,
        )


def _refuse_exported(weight: Path) -> None:
    """Raises: UsageError for a file that cannot keep thresholds."""
    from mindyolo_ext.runtimes.names import is_exported

    if is_exported(weight):
        raise UsageError(
            f"{weight}: thresholds are stored in a checkpoint; pass the checkpoint (and --runtime "
            "to measure with another runtime), then export it again"
        )

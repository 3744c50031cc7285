"""``mindyolo-ext test``, also ``test.py``, and ``mindyolo-ext thresholds``."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
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
    from mindyolo_ext.contracts import Predictor
    from mindyolo_ext.data.dataset import Dataset
    from mindyolo_ext.engine.evaluate import EvalResult
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
        _write_metrics(loaded, config, options)


def framework_beside(options: argparse.Namespace) -> str:
    """Return the device of the framework. If another runtime runs ``--weight``, the framework only
    gathers results between ranks and stays on the CPU.

    Raises: UsageError for an option that does not apply to an exported file.
    """
    from mindyolo_ext.runtimes.names import EXPORTED, runtime_of

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


def devices_of(
    weight: Path, runtime: str | None, device_target: str | None
) -> tuple[str, str | None]:
    """Return the device of a runtime that is not a framework, and that of the framework.

    Raises: UsageError as ``runtime_of``.
    """
    from mindyolo_ext.runtimes.names import EXPORTED, runtime_of

    is_beside = runtime_of(weight, runtime) in EXPORTED
    return device_target or "CPU", "CPU" if is_beside else device_target


@dataclass(frozen=True)
class Loaded:
    """A checkpoint or exported file, ready for evaluation.

    Args:
        predictor: its network; a checkpoint's in the recipe's precision.
        dataset: with the classes in the order of the checkpoint.
        class_names: names of the classes if the file stores them, else None.
        title: model, number of images, what runs it.
    """

    predictor: "Predictor"
    dataset: "Dataset"
    class_names: Sequence[str] | None
    title: str


def load_for_test(
    weight: Path,
    config: "Config",
    dataset: "Dataset",
    *,
    split: str,
    easy: float | None = None,
    needs_router: bool = False,
    runtime: str | None = None,
    device: str = "CPU",
) -> Loaded:
    """Load a checkpoint or exported file for an evaluation on ``dataset``. If the network has more
    classes than the recipe's ``data.classes``, only those are evaluated.

    Args:
        split: name of the split, for messages.
        easy: target share of easy images of a routed model.
        needs_router: whether a model without a router is an error.
        runtime: one of ``runtimes.names.RUNTIMES``; None takes the file's usual one.
        device: device of a runtime that is not a framework.

    Raises: UsageError if the data set has another number of classes; as ``network_for_test`` and
        ``in_order_of``.
    """
    from mindyolo_ext.class_match import are_known
    from mindyolo_ext.engine.classes import in_order_of
    from mindyolo_ext.engine.network import network_for_test
    from mindyolo_ext.engine.part_of_classes import PartOfClasses, columns_of

    network = network_for_test(
        weight, config, runtime=runtime, device=device, easy=easy, needs_router=needs_router
    )
    predictor, metadata = network.predictor, network.metadata
    names = metadata.class_names
    part = None
    if config.data.classes and not needs_router:
        part = columns_of(dataset.class_names, names)
    if part is not None:
        predictor, names = PartOfClasses(predictor, part), dataset.class_names
    elif len(dataset.class_names) != metadata.num_classes:
        raise UsageError(
            f"{weight}: has {metadata.num_classes} classes, but data.{split} has "
            f"{len(dataset.class_names)} ({', '.join(dataset.class_names[:5])}"
            f"{', ...' if len(dataset.class_names) > 5 else ''})"
            + ("; was it trained with --single_cls True?" if metadata.num_classes == 1 else "")
        )
    dataset = in_order_of(names, dataset, owner=weight, data=f"data.{split}")
    known = dataset.class_names if are_known(names) else None
    title = f"{metadata.model}, {len(dataset)} images, {network.place}"
    return Loaded(predictor, dataset, known, title)


def _write_metrics(loaded: Loaded, config: "Config", options: argparse.Namespace) -> None:
    """Evaluate on all ranks; rank 0 writes and logs the tables and curves."""
    run_test(
        loaded, config, options.save_dir, save_json=options.save_json, save_txt=options.save_txt
    )


def run_test(
    loaded: Loaded,
    config: "Config",
    folder: Path | None,
    *,
    save_json: bool = True,
    save_txt: bool = False,
) -> "EvalResult":
    """Evaluate on all ranks; rank 0 writes and logs the tables and curves if ``folder`` is set.

    Args:
        save_json: whether to write ``detections.json``.
        save_txt: whether to write a label file for each image.
    """
    from mindyolo_ext.backend.launch import world
    from mindyolo_ext.engine.datasets import worker_count
    from mindyolo_ext.engine.evaluate import evaluate
    from mindyolo_ext.engine.evaluation_report import write_labels, write_report
    from mindyolo_ext.evaluation.coco_backends import check_backend
    from mindyolo_ext.evaluation.confusion import warn_without_supervision

    check_backend(config.eval.backend)
    if folder is not None and world().is_main:
        folder.mkdir(parents=True, exist_ok=True)
        warn_without_supervision()
    predictor = loaded.predictor
    result = evaluate(
        predictor,
        loaded.dataset,
        config.eval,
        save_dir=folder if save_json else None,
        workers=worker_count(config, world().local_size),
        worker_kind=config.data.worker_kind,
        class_names=loaded.class_names,
    )
    if not world().is_main or folder is None:
        return result
    if result.routing is not None:
        network = vars(predictor).get("network")  # None for an exported file
        if network is not None:
            result.routing.count_gflops(network, predictor.input_spec.size)
    written = ["detections.json"] if save_json else []
    if save_txt:
        write_labels(folder / "labels", result.detections, loaded.dataset)
        written.append("labels")
    text, files = write_report(folder, result)
    logger.info("\n%s", text)
    logger.info("%s: %s", ", ".join([*written, *files]), folder)
    return result


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

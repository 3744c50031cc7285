"""Evaluate a checkpoint or an exported file on a data set, as ``test.py`` does."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mindyolo_ext.backend.launch import world
from mindyolo_ext.class_match import are_known
from mindyolo_ext.config import Config
from mindyolo_ext.contracts import Predictor
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.classes import in_order_of
from mindyolo_ext.engine.datasets import worker_count
from mindyolo_ext.engine.evaluate import EvalResult, evaluate
from mindyolo_ext.engine.evaluation_report import write_labels, write_report
from mindyolo_ext.engine.network import network_for_test
from mindyolo_ext.engine.part_of_classes import PartOfClasses, columns_of
from mindyolo_ext.errors import UsageError
from mindyolo_ext.evaluation.coco_backends import check_backend
from mindyolo_ext.evaluation.confusion import warn_without_supervision

logger = logging.getLogger("mindyolo_ext")


@dataclass(frozen=True)
class Loaded:
    """A checkpoint or exported file, ready for evaluation.

    Args:
        predictor: its network; a checkpoint's in the recipe's precision.
        dataset: with the classes in the order of the checkpoint.
        class_names: names of the classes if the file stores them, else None.
        title: model, number of images, what runs it.
    """

    predictor: Predictor
    dataset: Dataset
    class_names: Sequence[str] | None
    title: str


def load_for_test(
    weight: Path,
    config: Config,
    dataset: Dataset,
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


def run_test(
    loaded: Loaded,
    config: Config,
    folder: Path | None,
    *,
    save_json: bool = True,
    save_txt: bool = False,
) -> EvalResult:
    """Evaluate on all ranks; rank 0 writes and logs the tables and curves if ``folder`` is set.

    Args:
        save_json: whether to write ``detections.json``.
        save_txt: whether to write a label file for each image.
    """
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

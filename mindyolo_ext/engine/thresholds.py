"""Thresholds of a routed model: map the share of easy images to a threshold on the easiness."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from mindyolo_ext.backend.distributed import barrier, gather_rows
from mindyolo_ext.backend.launch import world
from mindyolo_ext.checkpoint.store import (
    CheckpointMetadata,
    check_suffix,
    load_checkpoint,
    save_checkpoint,
)
from mindyolo_ext.config import Config, EvalConfig
from mindyolo_ext.contracts import Model, Routed, RoutingPredictor
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.build import load_model, split_dataset
from mindyolo_ext.engine.classes import in_order_of
from mindyolo_ext.engine.datasets import worker_count
from mindyolo_ext.engine.evaluate import EvaluationBatches, by_picture, easiness_rows
from mindyolo_ext.engine.flops import RoutedGflops, routed_gflops
from mindyolo_ext.engine.routing import RoutedPredictor
from mindyolo_ext.errors import DataError, UsageError
from mindyolo_ext.evaluation.routing import checked_threshold, is_hard, threshold_for
from mindyolo_ext.visual.tradeoff import plot_easiness

logger = logging.getLogger(__name__)
METADATA_KEY = "thresholds"  # in ``CheckpointMetadata.extra``
NEXT_STEP = "mindyolo-ext thresholds --config RECIPE.yaml --weight"


@dataclass
class Thresholds:
    """The result of ``find_thresholds``.

    Args:
        easiness: (N,) of each image.
        values: (11,), see ``thresholds_of``.
        size: (height, width) that ``gflops`` were counted for.
        gflops: of the two exits.
        picture: histogram of the easiness.
        checkpoint: file in which the thresholds were stored.
    """

    easiness: np.ndarray
    values: np.ndarray
    size: tuple[int, int]
    gflops: RoutedGflops
    picture: Path
    checkpoint: Path

    def table(self) -> str:
        """A row per threshold, and a summary of the easiness."""
        rows = []
        for i, threshold in enumerate(self.values):
            share = 1.0 - is_hard(self.easiness, threshold).mean()
            rows.append(
                (
                    f"{100 - 10 * i}",
                    f"{10 * i}",
                    f"{threshold:.6f}",
                    f"{100 * share:.1f}",
                    f"{self.gflops.mean(share):.4g}",
                )
            )
        head = (
            "easy, %",
            "hard, %",
            "threshold",
            "easy here, %",
            f"mean GFLOPs at {self.size[0]}x{self.size[1]}",
        )
        low, middle, high = np.percentile(self.easiness, (0, 50, 100))
        return (
            tabulate(rows, head, disable_numparse=True, stralign="right")
            + f"\n\neasiness of {len(self.easiness)} images: {low:.6f} to {high:.6f}, median "
            f"{middle:.6f}"
        )


def thresholds_of(easiness: np.ndarray) -> np.ndarray:
    """Thresholds for 0, 10, ... 100 % hard images.

    Shape: (N,) -> (11,) float64: 0, the percentiles 10 to 90 (interpolated linearly), 1.
    Raises: ValueError if ``easiness`` is empty or not finite.
    Source: original ``get_dynamic_thres.py``.
    """
    easiness = np.asarray(easiness, np.float64).reshape(-1)
    if not len(easiness) or not np.isfinite(easiness).all():
        raise DataError(
            "thresholds: wanted the easiness of at least one image and finite numbers, got "
            f"{easiness}"
        )
    return np.concatenate([[0.0], np.percentile(easiness, np.arange(10, 100, 10)), [1.0]])


def choose_threshold(
    model: Model,
    metadata: CheckpointMetadata,
    *,
    where: str | Path,
    dy_thres: float | None = None,
    easy: float | None = None,
) -> float | None:
    """The threshold that the user requests, None if there is no request.

    Args:
        model, metadata: of the checkpoint ``where``.
        dy_thres: the threshold itself.
        easy: target share of easy images, which the checkpoint's thresholds map to a threshold.

    Raises: ValueError if both are given, one is outside 0..1, the model is not routed, or the
        checkpoint holds no thresholds.
    """
    if dy_thres is None and easy is None:
        return None
    flag = "dy_thres" if easy is None else "easy"
    if dy_thres is not None and easy is not None:
        raise UsageError(f"{where}: dy_thres and easy exclude each other; set only one")
    if not isinstance(model, Routed):
        raise UsageError(
            f"{where}: {metadata.model} is not routed, all images take the same exit; "
            f"leave {flag} out"
        )
    if easy is None:
        return checked_threshold(dy_thres)
    stored = metadata.extra.get(METADATA_KEY) or {}
    if 0 < easy < 1:
        check_router(model, where)
        if not stored:
            raise UsageError(
                f"{where}: holds no thresholds yet, so the one for {100 * easy:g} % easy images is "
                f"unknown; measure them first: {NEXT_STEP} {where}"
            )
        size = list(model.input_spec.size)
        if size != stored["size"]:
            logger.warning(
                "%s: its thresholds were measured with input %s, not %s: the share of easy images "
                "may differ",
                where,
                stored["size"],
                size,
            )
    return threshold_for(easy, stored)


def check_router(model: Model, where: str | Path) -> None:
    """Check that ``model`` has a router. Raises: ValueError."""
    if not isinstance(model, Routed):
        raise UsageError(
            f"{where}: {type(model).__name__} is not routed, all images take the same exit"
        )
    if not model.has_router:
        raise UsageError(
            f"{where}: has no router yet (it is the cascade of the first training step), so all "
            "images are hard; train the router first, or evaluate one detector: dy_thres 0 is the "
            "first, 1 the second"
        )


def measure_easiness(
    predictor: RoutingPredictor,
    dataset: Dataset,
    config: EvalConfig,
    *,
    workers: int = 2,
    worker_kind: str = "thread",
) -> np.ndarray:
    """Easiness (N,) float32 of every image of ``dataset``; the ranks share the work."""
    batches, rows = (
        EvaluationBatches(dataset, config, predictor.input_spec),
        [np.zeros((0, 2), np.float32)],
    )
    for batch in batches.epoch("easiness", workers=workers, worker_kind=worker_kind):
        if batch.valid:
            predictor.glance(batch.images)
        rows.append(easiness_rows(batch, predictor))
    return by_picture(gather_rows(np.concatenate(rows)), len(dataset))


def store_thresholds(weight: str | Path, output: str | Path, stored: Mapping[str, Any]) -> None:
    """Copy the checkpoint ``weight`` to ``output``, which may be the same file, with ``stored`` in
    its metadata.

    Raises: FileNotFoundError; ValueError for a file that is not a checkpoint of this project.
    """
    values, metadata = load_checkpoint(weight)
    save_checkpoint(
        output, values, replace(metadata, extra={**metadata.extra, METADATA_KEY: dict(stored)})
    )


def find_thresholds(
    config: Config,
    weight: str | Path,
    *,
    split: str = "val",
    output: str | Path | None = None,
    predictor: RoutingPredictor | None = None,
) -> Thresholds:
    """Measure the easiness of a whole data set and write the thresholds into a checkpoint.

    Args:
        config: recipe; its ``data``, ``input`` and ``eval`` sections are used.
        weight: checkpoint of a routed model with its router.
        split: ``train`` or ``val``.
        output: checkpoint to write, default ``weight`` itself. A histogram is written beside it.
        predictor: measures the easiness; None: the checkpoint's network on the framework.

    Raises: FileNotFoundError; ValueError if the model has no router.
    """
    target = Path(weight if output is None else output)
    check_suffix(target)
    model, metadata = load_model(weight, config)
    check_router(model, weight)
    dataset = in_order_of(
        metadata.class_names, split_dataset(config, split), owner=weight, data=f"data.{split}"
    )
    easiness = measure_easiness(
        predictor or RoutedPredictor(model, fold=config.eval.fold),
        dataset,
        config.eval,
        workers=worker_count(config, world().local_size),
        worker_kind=config.data.worker_kind,
    )
    size = model.input_spec.size
    found = Thresholds(
        easiness,
        thresholds_of(easiness),
        size,
        routed_gflops(model, size),
        target.with_name(f"{target.stem}-easiness.png"),
        target,
    )
    if world().is_main:
        store_thresholds(
            weight,
            target,
            {
                "values": found.values.tolist(),
                "lowest": float(easiness.min()),
                "highest": float(easiness.max()),
                "pictures": len(easiness),
                "data": dataset.name,
                "split": split,
                "size": list(size),
                "rectangular": config.eval.rectangular,
            },
        )
        plot_easiness(easiness, found.values, found.picture)
    barrier()
    return found

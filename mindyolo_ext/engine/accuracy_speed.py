"""Accuracy over speed of a routed model: run both exits on every image once, then compute AP for
every threshold.
"""

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from mindyolo_ext import atomic, progress
from mindyolo_ext.backend.distributed import gather_rows
from mindyolo_ext.backend.launch import world
from mindyolo_ext.config import EvalConfig
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.evaluate import (
    EvaluationBatches,
    by_picture,
    check_evaluation,
    dataset_records,
    detection_rows,
    easiness_rows,
    nms_options,
    rows_by_picture,
)
from mindyolo_ext.engine.flops import RoutedGflops, routed_gflops
from mindyolo_ext.engine.routing import RoutedPredictor, images_per_second
from mindyolo_ext.engine.thresholds import thresholds_of
from mindyolo_ext.evaluation.coco_map import evaluate_coco
from mindyolo_ext.evaluation.collect import detections_to_photo
from mindyolo_ext.evaluation.routing import is_hard
from mindyolo_ext.visual.tradeoff import plot_tradeoff

EXITS = ("first", "second")
FILES = ("tradeoff.csv", "tradeoff.json", "tradeoff.png")


@dataclass
class Tradeoff:
    """The result of ``accuracy_over_speed``.

    Args:
        pictures: number of images.
        size: (height, width) that ``gflops`` were counted for.
        gflops: of the two exits.
        milliseconds: of the network's parts per image, measured on this machine.
        rows: per threshold, from all images easy to none: ``easy`` (share), ``threshold``,
            ``gflops``, ``images_per_second`` and the 12 COCO values.
    """

    pictures: int
    size: tuple[int, int]
    gflops: RoutedGflops
    milliseconds: dict[str, float]
    rows: list[dict[str, float]]

    def table(self) -> str:
        """A row per threshold, and the milliseconds of the parts."""
        rows = [
            (
                f"{100 * r['easy']:.1f}/{100 - 100 * r['easy']:.1f}",
                f"{r['threshold']:.6f}",
                f"{r['gflops']:.4g}",
                f"{r['images_per_second']:.2f}",
                *(f"{100 * r[name]:.2f}" for name in ("AP", "AP50", "AP75")),
            )
            for r in self.rows
        ]
        head = (
            "easy/hard, %",
            "threshold",
            f"GFLOPs at {self.size[0]}x{self.size[1]}",
            "images/s",
            "AP",
            "AP50",
            "AP75",
        )
        parts = ", ".join(f"{part} {value:.2f}" for part, value in self.milliseconds.items())
        return (
            tabulate(rows, head, disable_numparse=True, stralign="right")
            + f"\n\n{self.pictures} images; images/s from milliseconds of the network's parts: "
            f"{parts}"
        )

    def save(self, folder: Path, title: str) -> None:
        """Write the table as CSV, everything as JSON, and a picture; ``title`` names the model."""
        table, description, picture = (folder / name for name in FILES)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(self.rows[0]))
        writer.writeheader()
        writer.writerows(self.rows)
        atomic.write_text(table, text.getvalue())
        atomic.write_text(description, json.dumps({"title": title, **asdict(self)}, indent=1))
        plot_tradeoff(self.rows, picture, title=title)


def accuracy_over_speed(
    predictor: RoutedPredictor,
    dataset: Dataset,
    config: EvalConfig,
    *,
    workers: int = 2,
    worker_kind: str = "thread",
) -> Tradeoff | None:
    """Run both exits over ``dataset`` once and compute AP for 0, 10, ... 100 % hard images.

    The thresholds are percentiles of this data set. Speeds are computed from the time that each
    part takes for whole batches.

    Args:
        predictor: of a model with its router.

    Returns: None on ranks other than 0.
    Raises: ValueError as ``evaluate``.
    """
    check_evaluation(predictor, dataset, config)
    batches = EvaluationBatches(dataset, config, predictor.input_spec)
    options = nms_options(config)
    easiness, rows = [], {part: [] for part in EXITS}
    predictor.reset()
    for batch in batches.epoch("both exits", workers=workers, worker_kind=worker_kind):
        if not batch.valid:
            continue
        tensors = predictor.glance(batch.images)
        easiness.append(easiness_rows(batch, predictor))
        for part in EXITS:
            rows[part].append(detection_rows(batch, *predictor.leave(part, tensors), options))
    together = by_picture(_gathered(easiness, 2), len(dataset))
    places, detections = batches.places(), {}
    for part in EXITS:
        found = rows_by_picture(_gathered(rows[part], 7), len(dataset))
        detections[part] = [
            detections_to_photo(d, p, clip=config.clip) for d, p in zip(found, places)
        ]
    if not world().is_main:
        return None
    size = predictor.input_spec.size
    result = Tradeoff(
        len(dataset),
        size,
        routed_gflops(predictor.network, size),
        {part: meter.milliseconds for part, meter in predictor.meters.items()},
        [],
    )
    truth = dataset.coco_ground_truth()
    for threshold in progress.bar(thresholds_of(together), title="AP"):
        hard = is_hard(together, threshold)
        chosen = [
            second if is_second else first
            for is_second, first, second in zip(hard, detections["first"], detections["second"])
        ]
        share = 1.0 - float(hard.mean())
        coco = evaluate_coco(truth, dataset_records(chosen, dataset), backend=config.backend)
        result.rows.append(
            {
                "easy": share,
                "threshold": float(threshold),
                "gflops": result.gflops.mean(share),
                "images_per_second": images_per_second(result.milliseconds, share),
                **{name: float(v) for name, v in coco.stats.items()},
            }
        )
    return result


def _gathered(rows: list[np.ndarray], columns: int) -> np.ndarray:
    """All ranks' rows (n, columns)."""
    return gather_rows(np.concatenate([np.zeros((0, columns), np.float32), *rows]))

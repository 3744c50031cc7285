"""Detections and metrics of a network on a data set, over all ranks."""
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tabulate import tabulate

from mindyolo_ext import progress
from mindyolo_ext.backend.distributed import gather_rows
from mindyolo_ext.backend.launch import world
from mindyolo_ext.config import EvalConfig
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.data.rectangles import rectangular_batches
from mindyolo_ext.engine.predictor import Predictor
from mindyolo_ext.evaluation.coco_map import CocoResult, evaluate_coco, write_detections
from mindyolo_ext.evaluation.collect import coco_records, detections_to_photo
from mindyolo_ext.evaluation.darknet_metric import DarknetResult, evaluate_darknet
from mindyolo_ext.evaluation.nms import NMSOptions, batched_nms
from mindyolo_ext.input_spec import InputSpec

logger = logging.getLogger(__name__)
METRICS = ("darknet",)


@dataclass
class EvalResult:
    """What ``evaluate`` found; metrics are None on ranks other than 0.

    Args:
        detections: per picture of the data set (N, 6) x1, y1, x2, y2 in photo pixels, score, class.
        coco: the 12 COCO values and the table by class.
        darknet: AP50 at the evaluation's confidence; precision, recall and F1 at ``report_conf``.
        milliseconds: per picture, by phase: waiting for data, network, NMS.
    """

    detections: list[np.ndarray]
    coco: CocoResult | None = None
    darknet: DarknetResult | None = None
    darknet_at_report: DarknetResult | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """Metrics by name as one flat row."""
        row: dict[str, float] = {} if self.coco is None else dict(self.coco.stats)
        if self.darknet is not None and self.darknet_at_report is not None:
            at = self.darknet_at_report
            row |= {"own_AP50": self.darknet.ap, "own_precision": at.precision, "own_recall": at.recall,
                    "own_F1": at.f1}
        return row

    def table(self) -> str:
        """All metrics, by class and in total, and the time per picture, as text."""
        parts = [] if self.coco is None else [self.coco.class_table(), self.coco.table()]
        if self.darknet is not None and self.darknet_at_report is not None:
            at = self.darknet_at_report
            parts.append("The original's own metric (IoU 0.5; precision, recall and F1 above the report confidence):\n"
                         + tabulate([[self.darknet.ap, at.precision, at.recall, at.f1]],
                                    ["AP50", "precision", "recall", "F1"], floatfmt=".4f"))
        parts.append(tabulate([list(self.milliseconds.values())], [f"{k}, ms/image" for k in self.milliseconds],
                              floatfmt=".2f"))
        return "\n\n".join(parts)


def nms_options(config: EvalConfig) -> NMSOptions:
    """The recipe's NMS settings."""
    return NMSOptions(conf_thres=config.conf_thres, iou_thres=config.iou_thres, max_detections=config.max_detections,
                      max_candidates=config.max_candidates, multi_label=config.multi_label,
                      class_agnostic=config.class_agnostic)


def evaluate(predictor: Predictor, dataset: Dataset, config: EvalConfig, *, workers: int = 2,
             worker_kind: str = "thread", save_dir: Path | None = None) -> EvalResult:
    """Run the network over ``dataset`` and compute the metrics.

    Every rank takes its own pictures; detections are gathered, so all pictures count once.

    Args:
        save_dir: where rank 0 writes ``detections.json``.

    Raises: ValueError if the data set's classes do not fit the network's, or for an unknown metric.
    """
    unknown = [m for m in config.metrics if m not in METRICS]
    if unknown:
        raise ValueError(f"config: eval.metrics has {unknown}, known beside COCO are {list(METRICS)}")
    if len(dataset.class_names) != predictor.num_classes:
        raise ValueError(f"{dataset.name}: has {len(dataset.class_names)} classes, but the network has "
                         f"{predictor.num_classes}")
    batches = _Batches(dataset, config, predictor.input_spec)
    rows, milliseconds = _run(predictor, batches, config, workers=workers, worker_kind=worker_kind)
    gathered = gather_rows(rows)
    found = _by_picture(gathered, len(dataset))                                 # network pixels
    places = [batches.spec_of(i).place(*dataset.size(i)) for i in range(len(dataset))]
    detections = [detections_to_photo(d, p, clip=config.clip) for d, p in zip(found, places)]
    result = EvalResult(detections, milliseconds=milliseconds)
    if not world().is_main:
        return result
    records = [record for found_here, image_id in zip(detections, dataset.image_ids)
               for record in coco_records(found_here, image_id, dataset.category_ids)]
    if save_dir is not None:
        write_detections(Path(save_dir) / "detections.json", records)
    result.coco = evaluate_coco(dataset.coco_ground_truth(), records)
    if "darknet" in config.metrics:
        targets = [_network_targets(dataset, i, place) for i, place in enumerate(places)]
        result.darknet = evaluate_darknet(found, targets)
        result.darknet_at_report = evaluate_darknet([d[d[:, 4] > config.report_conf] for d in found], targets)
    return result


class _Batches:
    """The pictures in batches of the recipe's kind: all of the spec's size, or rectangular."""

    def __init__(self, dataset: Dataset, config: EvalConfig, input_spec: InputSpec):
        self.dataset, self.input_spec, self.batch_size = dataset, input_spec, config.per_batch_size
        self.order: np.ndarray | None = None
        self.frames: list[tuple[int, int]] = []
        if config.rectangular:
            sizes = np.array([dataset.size(i) for i in range(len(dataset))], np.float64).reshape(-1, 2)
            self.order, self.frames = rectangular_batches(sizes, self.batch_size, input_spec, config.rectangular_pad)
            self._places = np.argsort(self.order)

    def spec_of(self, index: int) -> InputSpec:
        """The input of picture ``index``."""
        return self.input_spec if self.order is None else \
            self.input_spec.in_frame(self.frames[self._places[index] // self.batch_size])

    def size(self, batch: int) -> tuple[int, int] | None:
        """(height, width) of a batch's input, None for the spec's; batches behind the last are without pictures."""
        return self.frames[min(batch, len(self.frames) - 1)] if self.frames else None


def _run(predictor: Predictor, batches: _Batches, config: EvalConfig, *, workers: int,
         worker_kind: str) -> tuple[np.ndarray, dict[str, float]]:
    """This rank's detections as rows (n, 7) picture, x1, y1, x2, y2, score, class; and milliseconds per picture."""
    this, options = world(), nms_options(config).as_kwargs()
    seconds, rows, pictures = {"data": 0.0, "network": 0.0, "nms": 0.0}, [], 0
    with Loader(batches.dataset, batch_size=batches.batch_size, input_spec=batches.input_spec, order=batches.order,
                drop_last=False, rank=this.rank, world_size=this.size, workers=workers,
                worker_kind=worker_kind) as loader, \
            progress.bar(total=loader.steps_per_epoch, title="evaluate", show=this.is_main) as shown:
        mark = time.perf_counter()
        for batch in loader.epoch(0, lambda step: batches.size(step * this.size + this.rank)):
            seconds["data"] += (now := time.perf_counter()) - mark
            if predictor.compile(batch.images.shape):
                now = time.perf_counter()
            boxes, scores = predictor(batch.images)
            seconds["network"] += (mark := time.perf_counter()) - now
            detections = batched_nms(boxes[:batch.valid], scores[:batch.valid], **options)
            for index, found in zip(batch.indices, detections):
                rows.append(np.concatenate([np.full((len(found), 1), index, np.float32), found], axis=1))
            seconds["nms"] += (now := time.perf_counter()) - mark
            pictures, mark = pictures + batch.valid, now
            shown.update()
    together = np.concatenate(rows) if rows else np.zeros((0, 7), np.float32)
    return together.astype(np.float32), {name: 1e3 * s / max(pictures, 1) for name, s in seconds.items()}


def _by_picture(rows: np.ndarray, count: int) -> list[np.ndarray]:
    """Rows (n, 7) of all ranks -> per picture (N, 6), order kept."""
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return np.split(rows[:, 1:], np.searchsorted(rows[:, 0], np.arange(1, count)))


def _network_targets(dataset: Dataset, index: int, place: object) -> np.ndarray:
    """Ground truth (N, 5) class, x1, y1, x2, y2 in network pixels, ignored boxes left out."""
    truth = dataset.annotations(index)
    keep = ~truth.ignore
    return np.concatenate([truth.labels[keep, None].astype(np.float32), place.to_network(truth.boxes[keep])], axis=1)

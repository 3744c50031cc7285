"""Detections and metrics of a network on a data set, over all ranks."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tabulate import tabulate

from mindyolo_ext import progress
from mindyolo_ext.backend.distributed import gather_rows
from mindyolo_ext.backend.launch import world
from mindyolo_ext.class_match import are_known, listed
from mindyolo_ext.config import EvalConfig
from mindyolo_ext.contracts import Predictor, RoutingPredictor
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.data.rectangles import fewest, fitted, rectangular_batches
from mindyolo_ext.data.types import Batch
from mindyolo_ext.engine.augmented import AugmentedPredictor
from mindyolo_ext.engine.classes import in_order_of
from mindyolo_ext.engine.datasets import nms_options
from mindyolo_ext.engine.routing import Routing
from mindyolo_ext.errors import DataError, UsageError
from mindyolo_ext.evaluation.class_order import exchanged_classes
from mindyolo_ext.evaluation.coco_backends import chosen_backend
from mindyolo_ext.evaluation.coco_map import CocoResult, evaluate_coco, write_detections
from mindyolo_ext.evaluation.collect import CocoRecords, detections_to_photo
from mindyolo_ext.evaluation.darknet_metric import DarknetResult, evaluate_darknet
from mindyolo_ext.evaluation.nms import NMSOptions, batched_nms
from mindyolo_ext.evaluation.voc_map import VocResult, evaluate_voc
from mindyolo_ext.input_spec import InputSpec, Placement

logger = logging.getLogger(__name__)


@dataclass
class EvalResult:
    """The result of ``evaluate``; metrics are None on ranks other than 0.

    Args:
        detections: per image of the data set (N, 6) x1, y1, x2, y2 in photo pixels, score, class.
        coco: the 12 COCO values and the table by class.
        voc: AP50 by the rules of VOC 2007 and of VOC 2010.
        darknet: AP50 at the evaluation's confidence; precision, recall and F1 at ``report_conf``.
        milliseconds: per image, by phase: waiting for data, network, NMS.
        routing: of a routed model, the exit of each image, on every rank.
    """

    detections: list[np.ndarray]
    coco: CocoResult | None = None
    voc: VocResult | None = None
    darknet: DarknetResult | None = None
    darknet_at_report: DarknetResult | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
    routing: Routing | None = None

    def values(self) -> dict[str, float]:
        """Metrics by name as one flat row."""
        row: dict[str, float] = {} if self.coco is None else dict(self.coco.stats)
        if self.voc is not None:
            row |= {"voc07_AP50": self.voc.ap07, "voc_AP50": self.voc.ap}
        if self.darknet is not None and self.darknet_at_report is not None:
            at = self.darknet_at_report
            row |= {
                "own_AP50": self.darknet.ap,
                "own_precision": at.precision,
                "own_recall": at.recall,
                "own_F1": at.f1,
            }
        return row

    def table(self) -> str:
        """All metrics, by class and in total, and the time per image, as text."""
        parts = [] if self.coco is None else [self.coco.class_table(), self.coco.table()]
        if self.voc is not None:
            parts.append(f"PASCAL VOC (IoU 0.5):\n{self.voc.table()}")
        if self.darknet is not None and self.darknet_at_report is not None:
            at = self.darknet_at_report
            parts.append(
                "The original's own metric (IoU 0.5; precision, recall and F1 above the report "
                "confidence):\n"
                + tabulate(
                    [[self.darknet.ap, at.precision, at.recall, at.f1]],
                    ["AP50", "precision", "recall", "F1"],
                    floatfmt=".4f",
                )
            )
        parts.append(
            tabulate(
                [list(self.milliseconds.values())],
                [f"{k}, ms/image" for k in self.milliseconds],
                floatfmt=".2f",
            )
        )
        if self.routing is not None:
            parts.append(self.routing.table())
        return "\n\n".join(parts)


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    config: EvalConfig,
    *,
    workers: int = 2,
    worker_kind: str = "thread",
    save_dir: Path | None = None,
    class_names: Sequence[str] | None = None,
) -> EvalResult:
    """Run the network over ``dataset`` and compute the metrics.

    Every rank processes its own images; detections are gathered, so every image counts once.

    Args:
        save_dir: where rank 0 writes ``detections.json``.
        class_names: of the network, in the order of its scores; the data set's labels are
            rearranged into this order by name. None: the numbering is assumed to be the data
            set's, and an error is raised if the boxes clearly show another one.

    Raises: ValueError if the data set's classes do not fit the network's, RuntimeError if the
        backend of the COCO metrics is not installed.
    """
    check_evaluation(predictor, dataset, config)
    if class_names is not None:
        dataset = in_order_of(class_names, dataset, owner="the network", data=dataset.name)
    if config.augment:
        predictor = AugmentedPredictor(predictor)
    batches = EvaluationBatches(dataset, config, predictor.input_spec)
    run = _Run(predictor, config)
    for batch in batches.epoch("evaluate", workers=workers, worker_kind=worker_kind):
        run.take(batch)
    found = rows_by_picture(gather_rows(run.rows()), len(dataset))  # network pixels
    places = batches.places()
    detections = [detections_to_photo(d, p, clip=config.clip) for d, p in zip(found, places)]
    result = EvalResult(
        detections, milliseconds=run.milliseconds(batches.waited), routing=run.routing(len(dataset))
    )
    if not world().is_main:
        return result
    if class_names is None or not are_known(class_names):
        _check_numbering(detections, dataset)
    records = dataset_records(detections, dataset)
    if save_dir is not None:
        write_detections(Path(save_dir) / "detections.json", records)
    result.coco = evaluate_coco(dataset.coco_ground_truth(), records, backend=config.backend)
    if "voc" in config.metrics:
        result.voc = dataset_voc(detections, dataset)
    if "darknet" in config.metrics:
        targets = [_network_targets(dataset, i, place) for i, place in enumerate(places)]
        result.darknet = evaluate_darknet(found, targets)
        result.darknet_at_report = evaluate_darknet(
            [d[d[:, 4] > config.report_conf] for d in found], targets
        )
    return result


def check_evaluation(predictor: Predictor, dataset: Dataset, config: EvalConfig) -> None:
    """Check that network, data and recipe fit. Raises: as ``evaluate``."""
    chosen_backend(config.backend)
    if len(dataset.class_names) != predictor.num_classes:
        raise UsageError(
            f"{dataset.name}: has {len(dataset.class_names)} classes, but the network has "
            f"{predictor.num_classes}"
        )


def _check_numbering(detections: Sequence[np.ndarray], dataset: Dataset) -> None:
    """Raises: DataError if the network clearly numbers its classes unlike the data set."""
    names = dataset.class_names
    found = (dataset.annotations(index) for index in range(len(dataset)))
    truth = [np.concatenate([t.labels[:, None], t.boxes], axis=1)[~t.ignore] for t in found]
    exchanged = exchanged_classes(detections, truth, len(names))
    if exchanged:
        pairs = [f"{names[label]} as class {number}" for label, number in exchanged.items()]
        raise DataError(
            f"{dataset.name}: the network finds the objects but numbers their classes differently "
            f"from the data set, whose classes are {listed(names)}: it finds {listed(pairs)}. It "
            "does not contain class names; add them (convert the original again with "
            "`mindyolo-ext convert --names FILE`, or class_names of evaluate), and classes are "
            "matched by name"
        )


def dataset_records(detections: Sequence[np.ndarray], dataset: Dataset) -> CocoRecords:
    """Detections per image, (N, 6) in photo pixels, as records of the COCO results format."""
    return CocoRecords(detections, dataset.image_ids, dataset.category_ids)


def dataset_voc(detections: Sequence[np.ndarray], dataset: Dataset) -> VocResult:
    """VOC's metrics of detections per image, (N, 6) in photo pixels; ignored objects are treated as
    difficult ones.
    """
    truth = [dataset.annotations(index) for index in range(len(dataset))]
    targets = [np.concatenate([t.labels[:, None], t.boxes], axis=1) for t in truth]
    return evaluate_voc(
        detections, targets, dataset.class_names, difficult=[t.ignore for t in truth]
    )


class EvaluationBatches:
    """Batches of images, all of the spec's size or rectangular, as the recipe says.

    Attributes: ``waited``, the seconds that ``epoch`` waited for data.
    """

    def __init__(self, dataset: Dataset, config: EvalConfig, input_spec: InputSpec):
        self.dataset, self.input_spec, self.batch_size = dataset, input_spec, config.per_batch_size
        self.order: np.ndarray | None = None
        self.frames: list[tuple[int, int]] = []
        self.waited = 0.0
        if config.rectangular:
            sizes = np.array([dataset.size(i) for i in range(len(dataset))], np.float64).reshape(
                -1, 2
            )
            self.order, self.frames = rectangular_batches(
                sizes, self.batch_size, input_spec, config.rectangular_pad
            )
            if config.rectangular_sizes and self.frames:
                largest = (max(high for high, _ in self.frames), max(w for _, w in self.frames))
                few = fewest(self.frames, config.rectangular_sizes, largest)
                self.frames = fitted(self.frames, few)
            self._positions = np.argsort(self.order)

    def epoch(
        self, title: str, *, workers: int = 2, worker_kind: str = "thread"
    ) -> Iterator[Batch]:
        """This rank's batches; ``title`` is shown before the progress bar."""
        this = world()
        with (
            Loader(
                self.dataset,
                batch_size=self.batch_size,
                input_spec=self.input_spec,
                order=self.order,
                drop_last=False,
                rank=this.rank,
                world_size=this.size,
                workers=workers,
                worker_kind=worker_kind,
                pixels="uint8",
            ) as loader,
            progress.bar(total=loader.steps_per_epoch, title=title, show=this.is_main) as shown,
        ):
            mark = time.perf_counter()
            for batch in loader.epoch(0, lambda step: self._size(step * this.size + this.rank)):
                self.waited += time.perf_counter() - mark
                yield batch
                shown.update()
                mark = time.perf_counter()

    def places(self) -> list[Placement]:
        """Placement of each image of the data set in its input."""
        return [self._spec_of(i).place(*self.dataset.size(i)) for i in range(len(self.dataset))]

    def _spec_of(self, index: int) -> InputSpec:
        """Input convention of image ``index``."""
        return (
            self.input_spec
            if self.order is None
            else self.input_spec.in_frame(self.frames[self._positions[index] // self.batch_size])
        )

    def _size(self, batch: int) -> tuple[int, int] | None:
        """(height, width) of a batch's input, None for the spec's; batches beyond the last one have
        no images.
        """
        return self.frames[min(batch, len(self.frames) - 1)] if self.frames else None


class _Run:
    """This rank's part of an evaluation: detections, times and, for a routed network, easiness."""

    def __init__(self, predictor: Predictor, config: EvalConfig):
        self.predictor, self.options = predictor, nms_options(config)
        self.routed = predictor if isinstance(predictor, RoutingPredictor) else None
        self.seconds, self.pictures = {"network": 0.0, "nms": 0.0}, 0
        self.detections, self.easiness = (
            [np.zeros((0, 7), np.float32)],
            [np.zeros((0, 2), np.float32)],
        )
        if self.routed is not None:
            self.routed.reset()

    def take(self, batch: Batch) -> None:
        """Run the network and NMS on a batch."""
        self.predictor.compile(batch.images.shape, batch.images.dtype)
        begin = time.perf_counter()
        if self.routed is None:
            boxes, scores = self.predictor(batch.images)
        else:
            boxes, scores = self.routed(batch.images, batch.valid)
            self.easiness.append(easiness_rows(batch, self.routed))
        self.seconds["network"] += (mark := time.perf_counter()) - begin
        self.detections.append(detection_rows(batch, boxes, scores, self.options))
        self.seconds["nms"] += time.perf_counter() - mark
        self.pictures += batch.valid

    def rows(self) -> np.ndarray:
        """Detections as rows (n, 7) image, x1, y1, x2, y2, score, class."""
        return np.concatenate(self.detections)

    def milliseconds(self, waited: float) -> dict[str, float]:
        """Milliseconds per image, by phase. A routed network may compile an exit between images, so
        its parts measure their own time.
        """
        seconds = {"data": waited, **self.seconds}
        if self.routed is not None:
            seconds["network"] = sum(meter.seconds for meter in self.routed.meters.values())
        return {name: 1e3 * value / max(self.pictures, 1) for name, value in seconds.items()}

    def routing(self, count: int) -> Routing | None:
        """Routing of the ``count`` images of all ranks."""
        if self.routed is None:
            return None
        easiness = by_picture(gather_rows(np.concatenate(self.easiness)), count)
        milliseconds = {part: meter.milliseconds for part, meter in self.routed.meters.items()}
        return Routing(easiness, self.routed.dy_thres, milliseconds)


def detection_rows(
    batch: Batch, boxes: np.ndarray, scores: np.ndarray, options: NMSOptions
) -> np.ndarray:
    """NMS of a batch: rows (n, 7) float32 image, x1, y1, x2, y2, score, class.

    Args:
        batch: the images of ``boxes`` (B, A, 4) and ``scores`` (B, A, K).
        options: of the NMS.
    """
    found = batched_nms(boxes[: batch.valid], scores[: batch.valid], options)
    rows = [
        np.concatenate([np.full((len(its), 1), index, np.float32), its], axis=1)
        for index, its in zip(batch.indices, found)
    ]
    return np.concatenate([np.zeros((0, 7), np.float32), *rows]).astype(np.float32)


def easiness_rows(batch: Batch, predictor: RoutingPredictor) -> np.ndarray:
    """Rows (n, 2) float32 image, easiness of the last batch of ``predictor``."""
    if not batch.valid:
        return np.zeros((0, 2), np.float32)
    return np.stack([batch.indices, predictor.easiness], axis=1)[: batch.valid].astype(np.float32)


def rows_by_picture(rows: np.ndarray, count: int) -> list[np.ndarray]:
    """Split rows (n, 7) of all ranks into (N, 6) per image, order kept."""
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return np.split(rows[:, 1:], np.searchsorted(rows[:, 0], np.arange(1, count)))


def by_picture(rows: np.ndarray, count: int) -> np.ndarray:
    """Sort rows (N, 2) image, value into values (N,). Raises: RuntimeError unless each image occurs
    once.
    """
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    if not np.array_equal(rows[:, 0], np.arange(count)):
        raise RuntimeError(f"evaluation: {len(rows)} values for {count} images, wanted one each")
    return rows[:, 1]


def _network_targets(dataset: Dataset, index: int, place: Placement) -> np.ndarray:
    """Ground truth (N, 5) class, x1, y1, x2, y2 in network pixels, ignored boxes left out."""
    truth = dataset.annotations(index)
    keep = ~truth.ignore
    return np.concatenate(
        [truth.labels[keep, None].astype(np.float32), place.to_network(truth.boxes[keep])], axis=1
    )

"""Measure one runtime in its own process: JSON on standard input, JSON on standard output.

The process loads nothing but what the runtime needs, so memory and start-up time are those of the
runtime.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.config import Config, load_config
from mindyolo_ext.contracts import RoutingPredictor
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.classes import in_order_of
from mindyolo_ext.engine.datasets import nms_options, split_dataset
from mindyolo_ext.engine.network import Network, load_network
from mindyolo_ext.evaluation.coco_map import evaluate_coco
from mindyolo_ext.evaluation.collect import CocoRecords, detections_to_photo
from mindyolo_ext.evaluation.nms import nms

WARM_UP = 3  # images processed before the clock starts
MARK = "benchmark: "  # precedes the result, because libraries may print as well


def measure(task: dict[str, Any]) -> dict[str, float | None]:
    """AP, milliseconds, memory and start-up of one runtime.

    Args:
        task: ``weight``, ``runtime``, ``recipe`` (a file), ``split``, ``threads``, ``size``,
            ``images`` (at most) and ``began`` (start of this process, in seconds since
            1970).

    Raises: as ``load_network`` and ``split_dataset``.
    """
    network = load_network(
        task["weight"],
        runtime=task["runtime"],
        device_target="CPU",
        size=tuple(task["size"]) if task["size"] else None,
        threads=task["threads"],
    )
    predictor = network.predictor
    blank = np.full((1, *predictor.input_spec.size, 3), 114, np.uint8)
    predictor(blank)
    start_up = time.time() - task["began"]
    for _ in range(WARM_UP):
        predictor(blank)
    config = load_config(Path(task["recipe"]))
    dataset = split_dataset(config, task["split"])
    weight = Path(task["weight"])
    dataset = in_order_of(
        network.metadata.class_names, dataset, owner=weight, data=f"data.{task['split']}"
    )
    count = min(task["images"] or len(dataset), len(dataset))
    milliseconds, detections = _look(network, dataset, config, count)
    memory = _peak_megabytes()  # before computing COCO's metrics, which takes memory too
    return {
        "AP": _ap(dataset, detections, config, count),
        "ms": float(np.median(milliseconds)),
        "ms_90": float(np.percentile(milliseconds, 90)),
        "start_up": start_up,
        "memory": memory,
        "images": count,
        "hard": _hard(network),
    }


def _look(
    network: Network, dataset: Dataset, config: Config, count: int
) -> tuple[list[float], list[np.ndarray]]:
    """Milliseconds of the network and detections in pixels of the image, for the first ``count``
    images, one at a time.
    """
    options, spec = nms_options(config.eval), network.predictor.input_spec
    milliseconds, detections = [], []
    for index in range(count):
        resized, placement = spec.resize_image(dataset.load(index).image)
        begin = time.perf_counter()
        boxes, scores = network.predictor(resized[None])
        milliseconds.append(1e3 * (time.perf_counter() - begin))
        found = nms(boxes[0], scores[0], options)
        detections.append(detections_to_photo(found, placement, clip=config.eval.clip))
    return milliseconds, detections


def _ap(dataset: Dataset, detections: list[np.ndarray], config: Config, count: int) -> float | None:
    """COCO's AP in percent; None if only some images were processed."""
    if count < len(dataset):
        return None
    records = CocoRecords(detections, dataset.image_ids, dataset.category_ids)
    result = evaluate_coco(dataset.coco_ground_truth(), records, backend=config.eval.backend)
    return 100 * result.stats["AP"]


def _hard(network: Network) -> float | None:
    """Share of the images that took the second exit; None for a model that is not routed."""
    if not isinstance(network.predictor, RoutingPredictor):
        return None
    meters = network.predictor.meters
    return meters["second"].images / max(meters["glance"].images, 1)


def _peak_megabytes() -> float | None:
    """Peak memory of this process; None if the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main() -> None:
    """Measure the task on standard input."""
    from mindyolo_ext.errors import UserError

    try:
        answer: dict[str, Any] = measure(json.loads(sys.stdin.read()))
    except UserError as error:
        answer = {"error": str(error)}
    sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()

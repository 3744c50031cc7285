"""Time and memory of COCO's metrics at the size of val2017.

    python benchmarks/evaluation.py [--backend faster_coco_eval] [--images 5000 --boxes 36000]

Generates a data set and detections from a seed: boxes in 80 classes, for each box a few detections
near it, most with its class, and others anywhere, up to 300 per image. Each backend then computes
the metrics in a fresh process, which prints a row: seconds, peak memory, and the memory in use
before the evaluation. No network runs.
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

CLASSES, MOST = 80, 300
BACKENDS = ("pycocotools", "faster_coco_eval")


def main() -> None:
    """Start a process for each backend and print its measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--boxes", type=int, default=36_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_this_process:
        made = made_up(options.images, options.boxes, options.seed)
        print(json.dumps(measured(*made, backend=options.backend[0])))
        return
    print("| backend | detections | AP50 | seconds | before | most memory |")
    print("|---|---|---|---|---|---|")
    for backend in options.backend or BACKENDS:
        if importlib.util.find_spec(backend) is None:
            print(f"| {backend} | is not installed | | | | |")
            continue
        arguments = ["--backend", backend, "--in-this-process"]
        for name in ("images", "boxes", "seed"):
            arguments += [f"--{name}", str(getattr(options, name))]
        run = subprocess.run(
            [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True, text=True
        )
        found = json.loads(run.stdout)
        print(
            f"| {backend} | {found['detections']:,} | {found['AP50']:.4f} | "
            f"{found['seconds']:.1f} | {found['before']:.0f} MB | {found['most']:.0f} MB |"
        )


def measured(
    truth: dict, detections: list[np.ndarray], category_ids: list[int], *, backend: str
) -> dict[str, float]:
    """Seconds and MB of one evaluation in this process."""
    from mindyolo_ext.evaluation.coco_map import evaluate_coco
    from mindyolo_ext.evaluation.collect import CocoRecords

    image_ids = [image["id"] for image in truth["images"]]
    before = _most_memory()
    begin = time.perf_counter()
    result = evaluate_coco(truth, CocoRecords(detections, image_ids, category_ids), backend=backend)
    return {
        "seconds": time.perf_counter() - begin,
        "before": before,
        "most": _most_memory(),
        "detections": result.num_detections,
        "AP50": result.ap50,
    }


def _most_memory() -> float:
    """The peak memory of this process, in MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def made_up(images: int, boxes: int, seed: int) -> tuple[dict, list[np.ndarray], list[int]]:
    """A ground truth in COCO's format, detections (N, 6) per image and the id of each class.

    Args:
        images, boxes: how many.
        seed: of all numbers.
    """
    rng = np.random.default_rng(seed)
    category_ids = [number for number in range(1, 91) if number % 9]  # with gaps, as COCO's
    weights = rng.gamma(1.0, size=images)
    counts = rng.multinomial(boxes, weights / weights.sum())
    annotations, detections = [], []
    for image, count in enumerate(counts.tolist(), 1):
        corners, labels = _boxes(count, rng), rng.integers(CLASSES, size=count)
        for corner, label in zip(corners.tolist(), labels.tolist(), strict=True):
            sides = [corner[2] - corner[0], corner[3] - corner[1]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category_ids[label],
                    "bbox": [*corner[:2], *sides],
                    "area": sides[0] * sides[1],
                    "iscrowd": int(len(annotations) % 100 == 99),
                }
            )
        detections.append(_detections(corners, labels, rng))
    truth = {
        "images": [{"id": image + 1} for image in range(images)],
        "annotations": annotations,
        "categories": [{"id": id_, "name": f"class {id_}"} for id_ in category_ids],
    }
    return truth, detections, category_ids


def _boxes(count: int, rng: np.random.Generator) -> np.ndarray:
    """Boxes (N, 4) xyxy in an image of 640 x 480 pixels."""
    sides = np.maximum(rng.beta(1.0, 4.0, (count, 2)) * (640, 480), 2)
    begin = rng.random((count, 2)) * ((640, 480) - sides)
    return np.concatenate([begin, begin + sides], axis=1)


def _detections(corners: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Detections (N, 6) float32 of an image with these boxes, the best first."""
    repeats = np.repeat(np.arange(len(labels)), rng.integers(0, 6, len(labels)))
    sides = np.tile(corners[repeats, 2:] - corners[repeats, :2], 2)
    near = corners[repeats] + rng.normal(0, 0.08, (len(repeats), 4)) * sides
    others = _boxes(max(rng.integers(150, 400) - len(near), 0), rng)
    is_wrong = rng.random(len(near)) < 0.15
    classes = np.where(is_wrong, rng.integers(CLASSES, size=len(near)), labels[repeats])
    classes = np.concatenate([classes, rng.integers(CLASSES, size=len(others))])
    scores = np.concatenate([rng.beta(3, 2, len(near)), rng.beta(0.4, 8, len(others))])
    rows = np.column_stack([np.concatenate([near, others]), scores, classes])
    return rows[np.argsort(-scores, kind="stable")][:MOST].astype(np.float32)


if __name__ == "__main__":
    main()

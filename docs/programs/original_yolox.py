"""Detections of the original YOLOX; runs in a Python with PyTorch, started by ``parity.py``.

Image preparation, network, decoding and selection are the original's own functions. Where
torchvision is missing or does not fit PyTorch, a greedy non-maximum suppression replaces its own.
"""

import importlib.machinery
import json
import os
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from original import builder

SIZE = 416  # pixels of YOLOX-Nano's square input


def nms(boxes, scores, threshold):
    """Greedy non-maximum suppression: indices of the kept boxes, best first.

    Shape: boxes (N, 4) x1, y1, x2, y2, scores (N,) -> (M,) int64.
    """
    order, kept = scores.argsort(descending=True), []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        top_left = torch.maximum(boxes[best, :2], boxes[rest, :2])
        bottom_right = torch.minimum(boxes[best, 2:], boxes[rest, 2:])
        common = (bottom_right - top_left).clamp(min=0).prod(dim=1)
        order = rest[common / (areas[best] + areas[rest] - common) <= threshold]
    return torch.tensor(kept, dtype=torch.int64)


def batched_nms(boxes, scores, classes, threshold):
    """``nms`` of each class on its own, best first."""
    kept = [
        members[nms(boxes[members], scores[members], threshold)]
        for members in ((classes == k).nonzero()[:, 0] for k in classes.unique())
    ]
    indices = torch.cat(kept)
    return indices[scores[indices].argsort(descending=True)]


def provide_torchvision():
    """Enter the two functions above as torchvision, where it is missing or fails to load."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in ("torchvision", "torchvision.ops"):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
        ops = sys.modules["torchvision"].ops = sys.modules["torchvision.ops"]
        ops.nms, ops.batched_nms = nms, batched_nms


def detect(job):
    """Detections per photo, (N, 6) x1, y1, x2, y2, score, class, in pixels of the photo."""
    provide_torchvision()
    os.chdir(job["repo"])
    sys.path.insert(0, job["repo"])
    network = builder("yolox").build({"model": "yolox_nano", "num_classes": 80}).eval()
    state = torch.load(job["weights"], map_location="cpu", weights_only=True)
    network.load_state_dict(state["model"], strict=True)
    from yolox.data.data_augment import ValTransform
    from yolox.utils import postprocess

    prepare, found = ValTransform(), {}
    for photo in job["photos"]:
        image = cv2.imread(photo)
        ratio = min(SIZE / image.shape[0], SIZE / image.shape[1])
        tensor = torch.from_numpy(prepare(image, None, (SIZE, SIZE))[0])[None].float()
        with torch.no_grad():
            rows = postprocess(network(tensor), 80, job["confidence"], job["overlap"])[0]
        rows = np.zeros((0, 7)) if rows is None else rows.numpy().astype(np.float64)
        scores = rows[:, 4] * rows[:, 5]
        found[photo] = np.column_stack([rows[:, :4] / ratio, scores, rows[:, 6]]).tolist()
    return found


if __name__ == "__main__":
    print(json.dumps(detect(json.loads(sys.argv[1]))))

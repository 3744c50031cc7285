"""The original Yolo-FastestV2 as a peer, adapted to a current PyTorch from outside, so that an
unchanged clone works:

- ``Tensor.clamp_`` of an integer tensor takes tensor bounds, as PyTorch 1.9 did
    (``utils/loss.py``);
- ``torchsummary`` is replaced where it is not installed (it only prints);
- ``torchvision.ops.nms`` is replaced by a greedy NumPy loop where torchvision is not installed.
"""

import functools
import importlib.util
import os
import sys
import time
import types

import numpy as np
import torch
from original import Original, fuse

SECONDS = {"nms": 0.0}


def adapt():
    """Make the clone run on this PyTorch; returns whether torchvision is the real one."""
    original_clamp = torch.Tensor.clamp_

    def clamp_(tensor, low=None, high=None, **keywords):
        if not tensor.is_floating_point():
            low, high = (int(v) if isinstance(v, torch.Tensor) else v for v in (low, high))
        return original_clamp(tensor, low, high, **keywords)

    torch.Tensor.clamp_ = clamp_
    if importlib.util.find_spec("torchsummary") is None:
        sys.modules["torchsummary"] = types.ModuleType("torchsummary")
        sys.modules["torchsummary"].summary = lambda *_, **__: None
    try:
        import torchvision

        nms = torchvision.ops.nms
        real = True
    except ImportError:
        torchvision = types.ModuleType("torchvision")
        torchvision.ops = types.ModuleType("torchvision.ops")
        sys.modules.update({"torchvision": torchvision, "torchvision.ops": torchvision.ops})
        nms, real = greedy_nms, False
    torchvision.ops.nms = timed(nms)
    return real


def timed(nms):
    """``nms`` that adds up its seconds."""

    @functools.wraps(nms)
    def call(*arguments):
        begin = time.perf_counter()
        try:
            return nms(*arguments)
        finally:
            SECONDS["nms"] += time.perf_counter() - begin

    return call


def greedy_nms(boxes, scores, iou_threshold):
    """Indices of the kept boxes by falling score: the best box is kept, and boxes that overlap it
    are dropped.
    """
    x1, y1, x2, y2 = boxes.detach().numpy().T
    area = (x2 - x1) * (y2 - y1)
    order = np.argsort(-scores.detach().numpy(), kind="stable")
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest])
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest])
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        order = rest[overlap / (area[best] + area[rest] - overlap) <= iou_threshold]
    return torch.from_numpy(np.array(kept, np.int64))


class YoloFastestV2(Original):
    """Yolo-FastestV2 in PyTorch."""

    def __init__(self, threads, torchvision_is_real):
        super().__init__(threads)
        self.real = torchvision_is_real

    def jobs(self):
        """Methods by the name of the job."""
        return {
            **super().jobs(),
            "evaluate": self.evaluate,
            "evaluation_split": self.evaluation_split,
            "pipeline": self.pipeline,
        }

    def about(self):
        """Versions, for the report."""
        return {**super().about(), "torchvision": "installed" if self.real else "replaced"}

    def network(self, weights, num_classes=80, deploy=False):
        """The original's network with the weights of a ``.pth`` file."""
        import model.detector

        model.detector.print = lambda *_: None  # the export form says so at every call
        network = model.detector.Detector(num_classes, 3, True, deploy)
        network.load_state_dict(
            torch.load(weights, map_location="cpu", weights_only=True), strict=True
        )
        return network

    def deployed(self, weights):
        """The export form."""
        return fuse(self.network(weights["foreign"], deploy=True).eval())

    def training(self, weights, arrays, rate):
        """The step of ``train.py`` with the anchors of ``data/coco.data``."""
        import utils.loss
        import utils.utils

        images, rows = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["rows"])
        cfg = utils.utils.load_datafile("data/coco.data")
        network = self.network(weights["foreign"]).train()
        optimizer = torch.optim.SGD(
            network.parameters(), lr=rate, momentum=0.949, weight_decay=5e-4
        )
        device = torch.device("cpu")

        def call():
            box, objectness, classes, total = utils.loss.compute_loss(
                network(images), rows.clone(), cfg, device
            )
            total.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses = {"total": total, "box": box, "object": objectness, "class": classes}
            return {name: float(value) for name, value in losses.items()}

        return call

    def evaluate(self, task, weights, data, batch_size):
        """Prepare the two passes of ``evaluation.py``; returns the metric of the first call."""
        import utils.datasets
        import utils.utils

        cfg = utils.utils.load_datafile(data)
        network = self.network(weights, cfg["classes"]).eval()
        loader = self.loader(cfg["val"], cfg, batch_size, augment=False)
        device = torch.device("cpu")

        def call():
            SECONDS["nms"], begin = 0.0, time.perf_counter()
            _, _, ap, _ = utils.utils.evaluation(loader, cfg, network, device)
            precision, recall, _, f1 = utils.utils.evaluation(loader, cfg, network, device, 0.3)
            self.split = {"total": time.perf_counter() - begin, "nms": SECONDS["nms"]}
            return {
                "AP50": float(ap),
                "precision": float(precision),
                "recall": float(recall),
                "F1": float(f1),
            }

        self.tasks[task] = call
        return call()

    def evaluation_split(self):
        """Seconds of the last evaluation and the part of it that went into
        ``torchvision.ops.nms``.
        """
        return self.split

    def pipeline(self, task, data, batch_size):
        """Prepare an epoch of the original's training loader; returns the images per call."""
        import utils.utils

        cfg = utils.utils.load_datafile(data)
        loader = self.loader(cfg["train"], cfg, batch_size, augment=True)

        def call():
            for images, _ in loader:
                images.float() / 255.0

        self.tasks[task] = call
        return len(loader) * batch_size

    def loader(self, listing, cfg, batch_size, augment):
        """The original's data loader, as in ``train.py`` and ``evaluation.py``."""
        import utils.datasets

        dataset = utils.datasets.TensorDataset(listing, cfg["width"], cfg["height"], imgaug=augment)
        return torch.utils.data.DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=augment,
            collate_fn=utils.datasets.collate_fn,
            drop_last=augment,
            num_workers=min(len(os.sched_getaffinity(0)), batch_size if batch_size > 1 else 0, 8),
            persistent_workers=True,
        )


def make(threads):
    """The worker of this family."""
    return YoloFastestV2(threads, adapt())

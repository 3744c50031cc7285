"""The original YOLOX as a peer. Packages that its network does not need are replaced where they
are not installed.
"""

import numpy as np
import torch
from original import Original, builder


class YOLOX(Original):
    """YOLOX in PyTorch."""

    def network(self, weights, num_classes=80):
        """The original's network with the weights of a ``.pth`` file."""
        network = builder("yolox").build({**weights, "num_classes": num_classes})
        network.load_state_dict(
            torch.load(weights["foreign"], map_location="cpu", weights_only=True), strict=True
        )
        return network

    def deployed(self, weights):
        """The export form, folded by the original's own function."""
        network = self.network(weights).eval()
        from yolox.utils.model_utils import fuse_model

        network.head.decode_in_inference = False
        return fuse_model(network)

    def training(self, weights, arrays, rate):
        """``train_one_iter`` of the original's trainer, with its own optimizer groups and moving
        average.
        """
        network = self.network(weights).train().to(self.device)
        from yolox.exp import Exp
        from yolox.utils.ema import ModelEMA

        images = self.host(arrays["images"])
        height, width = images.shape[2:]
        labels = self.host(
            arrays["targets"] * np.array([1.0, width, height, width, height], np.float32)
        )
        experiment = Exp()
        experiment.model = network
        optimizer = experiment.get_optimizer(len(images))
        for group in optimizer.param_groups:
            group["lr"] = rate
        average = ModelEMA(network, 0.9998)

        def call():
            with self.autocast():
                outputs = network(self.moved(images), self.moved(labels))
            optimizer.zero_grad()
            self.update(outputs["total_loss"], optimizer)
            average.update(network)
            names = {
                "total": "total_loss",
                "iou": "iou_loss",
                "object": "conf_loss",
                "class": "cls_loss",
            }
            return {name: float(outputs[theirs]) for name, theirs in names.items()}

        return call


def make(threads):
    """The worker of this family."""
    return YOLOX(threads)

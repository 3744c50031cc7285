"""The original Gold-YOLO as a peer, adapted from outside to a machine without CUDA, so that an
unchanged clone works:

- mmcv, addict and YAML are replaced where they are not installed, as in ``mindyolo-ext verify``;
- ``Module.cuda``, which the losses call, leaves a module where it is.
"""

import importlib.machinery
import importlib.util
import runpy
import sys
import types

import torch
from original import Original, builder

MAX_EPOCH = 300


class GoldYOLO(Original):
    """Gold-YOLO in PyTorch."""

    def __init__(self, threads):
        super().__init__(threads)
        self.builder = builder("gold_yolo")
        if not torch.cuda.is_available():
            torch.nn.Module.cuda = lambda module, _=None: module

    def network(self, weights, num_classes=80):
        """The original's network with the weights of a ``.pth`` file."""
        network = self.builder.build({**weights, "num_classes": num_classes})
        for name in ("mmcv", "yaml"):  # the builder looks for them again when the teacher is built
            if sys.modules[name].__spec__ is None:
                sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.builder.load(network, {"weights": weights["foreign"], "entry": ""})
        return network

    def deployed(self, weights):
        """The form of the original's own evaluation: RepVGG blocks merged, most batch norms
        folded; its prediction.
        """
        network = self.network(weights)
        from gold_yolo.switch_tool import switch_to_deploy
        from yolov6.utils.torch_utils import fuse_model

        network = switch_to_deploy(fuse_model(network)).eval()
        return lambda images: network(images)[0]

    def training(self, weights, arrays, rate, teacher=None):
        """``train_in_steps`` of the original's trainer, with its own optimizer groups and moving
        average.
        """
        network = self.network(weights).train().to(self.device)
        from yolov6.solver.build import build_optimizer
        from yolov6.utils.ema import ModelEMA

        config = runpy.run_path(f"configs/gold_yolo-{weights['model'].rpartition('_')[2]}.py")
        images, rows = self.host(arrays["images"]), self.host(arrays["rows"])
        common = {
            "num_classes": 80,
            "ori_img_size": images.shape[2],
            "iou_type": config["model"]["head"]["iou_type"],
            "fpn_strides": config["model"]["head"]["strides"],
            "warmup_epoch": 0,
        }
        if teacher is None:
            forward = self.base_loss(network, common)
        else:
            forward = self.distill_loss(
                network, self.teacher(teacher), config["model"]["head"]["distill_weight"], common
            )
        optimizer = build_optimizer(
            types.SimpleNamespace(
                solver=types.SimpleNamespace(
                    **{**config["solver"], "lr0": rate, "weight_decay": 0.001}
                )
            ),
            network,
        )
        average = ModelEMA(network)
        drop_paths = [
            (module, module.drop_prob)
            for module in network.modules()
            if hasattr(module, "drop_prob")
        ]
        for module, _ in drop_paths:  # the first step is compared with ours, which drops no path
            module.drop_prob = 0.0

        def call():
            with self.autocast():
                total, losses = forward(self.moved(images), self.moved(rows))
            self.update(total, optimizer)
            optimizer.zero_grad()
            average.update(network)
            for module, probability in drop_paths:
                module.drop_prob = probability
            return {"total": float(total), **{name: float(value) for name, value in losses.items()}}

        return call

    def base_loss(self, network, common):
        """Step 1: (images, rows) -> total of both branches, and the terms."""
        from yolov6.models.losses.loss import ComputeLoss
        from yolov6.models.losses.loss_fuseab import ComputeLoss as AnchorLoss

        anchor_free = ComputeLoss(use_dfl=True, reg_max=16, **common)
        with_anchors = AnchorLoss(use_dfl=False, reg_max=0, **common)

        def forward(images, rows):
            (features, classes_ab, boxes_ab, classes, distances), _ = network(images)
            total, terms = anchor_free((features, classes, distances), rows, 0, 1)
            total_ab, terms_ab = with_anchors((features, classes_ab, boxes_ab), rows, 0, 1)
            return total + total_ab, {
                "iou": terms[0],
                "dfl": terms[1],
                "class": terms[2],
                "iou_ab": terms_ab[0],
                "class_ab": terms_ab[2],
            }

        return forward

    def distill_loss(self, network, teacher, weights, common):
        """Step 2 of n and s: (images, rows) -> total and the terms, in which the original adds
        some of ours up.
        """
        from yolov6.models.losses.loss_distill_ns import ComputeLoss

        loss = ComputeLoss(
            use_dfl=True, reg_max=16, distill_weight=weights, distill_feat=False, **common
        )

        def forward(images, rows):
            predictions, features = network(images)
            with torch.no_grad():
                teachers, teacher_features = teacher(images)
            total, terms = loss(
                predictions, teachers, features, teacher_features, rows, 0, MAX_EPOCH, 20, 1
            )
            return total, {
                "iou": terms[0],
                "dfl+distill_dfl": terms[1],
                "class+distill_class": terms[2],
            }

        return forward

    def teacher(self, weights):
        """The network of step 1 as the trainer sets it up, without its drop-path, which would
        make losses random.
        """
        network = self.network(weights).train().to(self.device)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.track_running_stats = False
            if hasattr(module, "drop_prob"):
                module.drop_prob = 0.0
        return network


def make(threads):
    """The worker of this family."""
    return GoldYOLO(threads)

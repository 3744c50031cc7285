"""The original simple YOLO as a peer: its network, loss and moving average, without the packages
around them.

Its packages import everything that training needs, so ``core/loss.py``, ``utils/utils.py`` and
``utils/model_ema.py`` are loaded one by one. If torchvision is not installed, a ResNet-18 with the
same layers replaces it.
"""

import importlib.util
import itertools
import sys
import types

import torch
from original import Original, builder


def load(name, path):
    """Load the file ``path`` as the module ``name``."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Block(torch.nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, channels, out_channels, stride):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(out_channels)
        self.relu = torch.nn.ReLU(inplace=True)
        self.conv2 = torch.nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride > 1:
            self.downsample = torch.nn.Sequential(
                torch.nn.Conv2d(channels, out_channels, 1, stride, bias=False),
                torch.nn.BatchNorm2d(out_channels),
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet18():
    """The parts of ResNet-18 that the original uses."""
    network = types.SimpleNamespace(
        conv1=torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        bn1=torch.nn.BatchNorm2d(64),
        relu=torch.nn.ReLU(inplace=True),
        maxpool=torch.nn.MaxPool2d(3, 2, 1),
    )
    for number in range(4):
        width, before = 64 * 2**number, 64 * 2 ** max(number - 1, 0)
        layer = torch.nn.Sequential(
            Block(before, width, 2 if number else 1), Block(width, width, 1)
        )
        setattr(network, f"layer{number + 1}", layer)
    return network


def adapt():
    """Put stand-ins where torchvision is missing."""
    try:
        import torchvision.models  # noqa: F401
    except (ImportError, RuntimeError):
        models = types.ModuleType("torchvision.models")
        for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
            setattr(models, name, resnet18)
        package = types.ModuleType("torchvision")
        package.models = models
        sys.modules.update({"torchvision": package, "torchvision.models": models})


class SimpleYOLO(Original):
    """The simple YOLO in PyTorch."""

    def network(self, weights, num_classes=80):
        """The original's network with the weights of a ``.pth`` file."""
        hook = builder("simple_yolo")
        network = hook.build({**weights, "num_classes": num_classes})
        del network.forward  # the builder's, which decodes
        for head in network.det_head.heads:
            head._forward_hooks.clear()
        state = torch.load(weights["foreign"], map_location="cpu", weights_only=True)
        network.load_state_dict(state.get("state_dict", state), strict=True)
        return network

    def training(self, weights, arrays, rate):
        """The loop of the trainer with the settings of ``configs/my_config.py``: loss, Adam,
        moving average.
        """
        network = self.network(weights).train()
        utils = load("utils.utils", "utils/utils.py")
        package = types.ModuleType("utils")
        package.__path__, package.xywh_to_xyxy, package.box_iou = (
            ["utils"],
            utils.xywh_to_xyxy,
            utils.box_iou,
        )
        sys.modules["utils"] = package
        average = load("utils.model_ema", "utils/model_ema.py").ModelEmaV2(
            types.SimpleNamespace(use_ema=True, total_itrs=100_000), network
        )
        images, rows = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["rows"])
        anchors = torch.tensor(weights["architecture"]["anchors"]).view(3, -1, 2).tolist()
        loss = load("simple_yolo_loss", "core/loss.py").YOLOLoss(
            num_class=80,
            img_size=list(images.shape[2:]),
            anchor_boxes=anchors,
            lambda_coord=0.1,
            lambda_scales=[1.0, 1.0, 1.0],
            label_assignment_method=weights["architecture"]["assignment"],
            iou_loss_type="ciou",
            focal_loss_gamma=3.5,
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        boxes, classes = rows[:, [0, 2, 3, 4, 5]], rows[:, :2]
        turns, threads = itertools.count(1), torch.get_num_threads()

        def call():
            turn = next(turns)
            # The first losses are compared; on several threads the writes into a contested cell
            # race
            torch.set_num_threads(1 if turn == 1 else threads)
            optimizer.zero_grad()
            total, (confidence, box, kind) = loss(network(images), boxes, classes)
            total.backward()
            optimizer.step()
            average.update(network, turn)
            return {
                "total": float(total.detach()),
                "box": 0.1 * box,
                "object": confidence,
                "class": kind,
            }

        return call


def make(threads):
    """The worker of this family."""
    adapt()
    return SimpleYOLO(threads)

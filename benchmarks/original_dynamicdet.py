"""The original DynamicDet as a peer; packages that its network and losses do not need are
replaced by the builder.
"""

import numpy as np
import torch
from original import Original, builder

GAINS = {"box": 0.05, "obj": 0.7, "cls": 0.3}  # of its hyper-parameter files


class OnDevice:
    """``torch`` for ``utils/loss.py``, whose bare ``ones`` lie on the CPU and are then indexed by
    masks of the GPU, which PyTorch refuses, and whose empty tensors lie on the first GPU.
    """

    def __init__(self, device):
        self.device = device

    def __getattr__(self, name):
        return getattr(torch, name)

    def ones(self, *size, **keywords):
        """On the device, if it does not say where."""
        return torch.ones(*size, **{"device": self.device, **keywords})

    def tensor(self, data, **keywords):
        """On the device, whatever it says."""
        return torch.tensor(data, **{**keywords, "device": self.device})


class DynamicDet(Original):
    """DynamicDet in PyTorch."""

    def jobs(self):
        """Methods by the name of the job."""
        return super().jobs() | {"routes": self.routes}

    def network(self, weights, num_classes=80):
        """The original's network with the weights of a ``.pth`` file."""
        network = builder("dynamicdet").build({**weights, "num_classes": num_classes})
        del network.forward  # the builder's, which runs both exits
        state = torch.load(weights["foreign"], map_location="cpu", weights_only=True)["model"]
        network.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
        return network

    def routes(self, weights, images, easy, hard):
        """Prepare ``easy`` and ``hard``, the two ways through the fused network; ``easy`` and
        ``hard`` are files for their boxes and scores.
        """
        network = self.network(weights).eval().requires_grad_(False).fuse()
        batch = torch.from_numpy(np.load(images))

        def route(threshold):
            def call():
                network.dy_thres = threshold
                with torch.no_grad():
                    return network(batch)[0].numpy()  # center, size, objectness, classes

            return call

        for name, threshold, path in (("easy", 0, easy), ("hard", 1, hard)):
            self.tasks[name] = route(threshold)
            found = self.tasks[name]()
            half = found[..., 2:4] / 2
            boxes = np.concatenate([found[..., :2] - half, found[..., :2] + half], axis=-1)
            np.savez(path, boxes, found[..., 4:5] * found[..., 5:])

    def training(self, weights, arrays, rate, size):
        """The loop of the trainers of step 1 and, with a router, step 2; ``size`` of the recipe
        sets the gains.
        """
        network = self.network(weights).train().to(self.device)
        import utils.loss
        from utils.loss import ComputeLossOTADual, ComputeLossOTADy
        from utils.torch_utils import ModelEMA

        if self.device.type != "cpu":
            utils.loss.torch = OnDevice(self.device)

        levels, router = network.model_h2[-1].nl, weights["architecture"]["router"]
        share = 3 / levels
        network.hyp = {
            "anchor_t": 4.0,
            "fl_gamma": 0.0,
            "cls_pw": 1.0,
            "obj_pw": 1.0,
            "box": GAINS["box"] * share,
            "cls": GAINS["cls"] * share,
            "obj": GAINS["obj"] * (size / 640) ** 2 * share,
        }
        network.gr = 1.0
        if router:
            for name, parameter in network.named_parameters():
                parameter.requires_grad = "router" in name
            network.close_all_bn()
        loss = (ComputeLossOTADy if router else ComputeLossOTADual)(network)
        optimizer = self.optimizer(network, rate, router)
        average = ModelEMA(network, **({"decay": 0.0} if router else {}))
        images, rows = self.host(arrays["images"]), self.host(arrays["rows"])
        names = ("difference", "easy", "hard", "adaptive") if router else ("box", "object", "class")

        def call():
            batch = self.moved(images)
            with self.autocast():
                total, items = loss(network(batch), self.moved(rows), batch)
            self.update(total, optimizer)
            optimizer.zero_grad()
            average.update(network)
            return {"total": float(total), **dict(zip(names, (float(item) for item in items)))}

        return call

    def optimizer(self, network, rate, router):
        """The trainers' groups: decay on weights, none on norms, implicit vectors and biases."""
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        norms = {
            f"{name}.weight"
            for name, module in network.named_modules()
            if isinstance(module, torch.nn.BatchNorm2d)
        }
        groups = {"plain": [], "decay": [], "bias": []}
        for name, parameter in trained.items():
            kind = (
                "bias"
                if name.endswith(".bias")
                else "decay"
                if name.endswith(".weight")
                else "plain"
            )
            groups["plain" if name in norms else kind].append(parameter)
        decay = 0.005 if router else 0.0005
        settings = [
            {"params": members, "weight_decay": decay if kind == "decay" else 0.0}
            for kind, members in groups.items()
            if members
        ]
        if router:
            return torch.optim.AdamW(settings, lr=rate, betas=(0.937, 0.999))
        return torch.optim.SGD(settings, lr=rate, momentum=0.937, nesterov=True)


def make(threads):
    """The worker of this family."""
    return DynamicDet(threads)

"""What the originals share: their jobs, and batch norms folded into convolutions. Runs in their
PyTorch.
"""

import gc
import importlib.util
import platform
from pathlib import Path

import numpy as np
import torch
from serving import Tasks
from timing import peak_gigabytes, timed

PACKAGE = Path(__file__).resolve().parents[1] / "mindyolo_ext"


def builder(family):
    """The module that builds a family's original network, as ``verify`` uses it."""
    spec = importlib.util.spec_from_file_location(
        "run_original", PACKAGE / "checkpoint" / "run_original.py"
    )
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    return runner.load_hook(PACKAGE / "models" / family / "original.py")


class Original(Tasks):
    """The jobs that the driver may ask for; a family defines its networks and steps."""

    def __init__(self, threads):
        super().__init__()
        torch.set_num_threads(threads)
        self.device, self.half = torch.device("cpu"), False
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)

    def jobs(self):
        """Methods by the name of the job."""
        return {
            "measure": self.measure,
            "most_memory": self.most_memory,
            "about": self.about,
            "forward": self.forward,
            "train_step": self.train_step,
            "timed_training": self.timed_training,
        }

    def about(self):
        """Versions, for the report."""
        return {"PyTorch": torch.__version__, "Python of PyTorch": platform.python_version()}

    def deployed(self, weights):
        """The export form with folded batch norms.

        ``weights`` is what our ``make_weights`` returned: ``model``, ``architecture``, the ``.pth``
        file ``foreign``.
        """
        raise NotImplementedError

    def training(self, weights, arrays, rate):
        """A training step on ``arrays`` (images, rows, targets).

        It returns ``total`` and the losses under the names of our terms; ``a+b`` is the sum of two
        of ours.
        """
        raise NotImplementedError

    def forward(self, task, weights, images, outputs):
        """Prepare the export form; stores its outputs for comparison."""
        network, batch = self.deployed(weights), torch.from_numpy(np.load(images))

        def call():
            with torch.no_grad():
                found = network(batch)
                return [
                    value.numpy()
                    for value in (found if isinstance(found, (list, tuple)) else [found])
                ]

        np.savez(outputs, *call())
        self.tasks[task] = call

    def train_step(self, task, weights, batch, rate, **more):
        """Prepare a training step; returns the losses of the first one."""
        self.tasks[task] = self.training(weights, np.load(batch), rate, **more)
        return self.tasks[task]()

    def timed_training(self, weights, batch, rate, device, half, quick, **more):
        """Images per second, memory and first losses of a training step on ``device``, with its
        programs' automatic mixed precision in ``half``, if it names a type.
        """
        self.device, self.half = torch.device(device), bool(half)
        self.scaler = torch.amp.GradScaler(device, init_scale=1024.0, enabled=self.half)
        is_cuda = device == "cuda"
        self.tasks.clear()  # the previous network
        gc.collect()
        if is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        arrays = np.load(batch)
        call = self.tasks["step"] = self.training(weights, arrays, rate, **more)
        losses = call()
        seconds = timed(call, is_cuda, quick=quick)
        return {
            "images_per_second": len(arrays["targets"]) / seconds,
            "gigabytes": peak_gigabytes(is_cuda),
            "first_loss": losses["total"],
        }

    def host(self, array):
        """An array as a tensor for ``moved``, pinned as in the originals' loaders."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def moved(self, tensor):
        """A tensor of ``host`` on the device."""
        return tensor.to(self.device, non_blocking=True)

    def autocast(self):
        """The precision in which networks and losses run."""
        return torch.autocast(self.device.type, torch.float16, enabled=self.half)

    def update(self, total, optimizer):
        """Gradients of ``total``, and a step of ``optimizer``."""
        self.scaler.scale(total).backward()
        self.scaler.step(optimizer)
        self.scaler.update()


def fuse(network):
    """Fold every batch norm that follows a convolution inside a Sequential of ``network``."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in list(network.modules()):
        if not isinstance(module, torch.nn.Sequential):
            continue
        names = list(module._modules)
        for name, following in zip(names, names[1:]):
            pair = module._modules[name], module._modules[following]
            if isinstance(pair[0], torch.nn.Conv2d) and isinstance(pair[1], torch.nn.BatchNorm2d):
                module._modules[name] = fuse_conv_bn_eval(*pair)
                module._modules[following] = torch.nn.Identity()
    left = [n for n, m in network.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    if left:
        raise ValueError(f"fuse: batch norms without a convolution before them: {left}")
    return network

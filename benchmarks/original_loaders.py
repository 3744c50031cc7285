"""Training batches of the originals, from unchanged clones of YOLOX, Gold-YOLO and DynamicDet; runs
in their Python with the clone as the current folder.

Adapted from outside: packages that their loaders import but do not use are replaced where they are
not installed, and ``numpy.int`` is restored. OpenCV uses one thread, as in their trainings.
"""

import glob
import importlib.abc
import importlib.machinery
import os
import sys
import types
import unittest.mock

UNUSED = (
    *("pandas", "seaborn", "matplotlib", "scipy", "thop", "wandb", "requests", "tabulate"),
    *("psutil", "addict", "mmcv", "pkg_resources", "tensorboard", "onnx", "mlflow"),
    *("torchvision", "packaging", "dotenv"),
)


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stand-ins for packages that are not installed."""

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002
        """A package without contents."""
        if name.partition(".")[0] in UNUSED:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        """A stand-in."""
        return Nothing(spec.name)

    def exec_module(self, module):
        """Nothing."""


class Nothing(types.ModuleType):
    """A module in which every name is an object that does nothing."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return unittest.mock.MagicMock()


def yolox(folder, batch_size, workers):
    """``Exp.get_data_loader`` as in training: mosaic, mixup, colors, 640."""
    from yolox.exp.yolox_base import Exp

    exp = Exp()
    exp.data_dir, exp.train_ann, exp.data_num_workers = folder, "instances.json", workers
    return iter(exp.get_data_loader(batch_size, is_distributed=False))


def gold_yolo(folder, batch_size, workers):
    """``create_dataloader`` with the augmentation of ``configs/gold_yolo-s.py``."""
    import runpy

    from yolov6.data.data_load import create_dataloader

    hyp = runpy.run_path("configs/gold_yolo-s.py")["data_aug"]
    loader = create_dataloader(
        os.path.join(folder, "images/train2017"),
        640,
        batch_size,
        32,
        hyp=hyp,
        augment=True,
        workers=workers,
        shuffle=True,
        data_dict={"names": [str(number) for number in range(80)], "nc": 80},
        task="train",
    )[0]
    return endless(loader)


def dynamicdet(folder, batch_size, workers):
    """``create_dataloader`` with ``hyp/hyp.scratch.p5.yaml``."""
    import yaml
    from utils.datasets import create_dataloader

    for path in glob.glob(os.path.join(folder, "labels/*.cache")):  # this PyTorch reads none
        os.unlink(path)
    with open("hyp/hyp.scratch.p5.yaml") as file:
        hyp = yaml.safe_load(file)
    loader = create_dataloader(
        os.path.join(folder, "images/train2017"),
        640,
        batch_size,
        32,
        types.SimpleNamespace(single_cls=False),
        hyp=hyp,
        augment=True,
        workers=workers,
    )[0]
    return endless(loader)


def endless(loader):
    """Batches, epoch after epoch."""
    while True:
        yield from loader


def batches(family, folder, batch_size, workers):
    """The training batches of a family, from its original."""
    import cv2
    import numpy as np

    sys.meta_path.append(Absent())
    sys.path.insert(0, os.getcwd())
    if "int" not in vars(np):
        np.int = int
    cv2.setNumThreads(0)
    return {"yolox": yolox, "gold_yolo": gold_yolo, "dynamicdet": dynamicdet}[family](
        folder, batch_size, workers
    )

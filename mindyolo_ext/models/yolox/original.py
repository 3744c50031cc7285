"""Build the original YOLOX for ``verify``; runs in the user's own PyTorch, inside the user's
clone.
"""

import importlib.util
from pathlib import Path

from stand_ins import replace_missing

EXPERIMENTS = {"yolox_darknet53": "yolov3"}  # other experiments have the names of their models
# Packages that the clone imports but its network does not use, with the submodules it names.
UNUSED = {
    "cv2": (),
    "loguru": (),
    "packaging": ("version",),
    "psutil": (),
    "pycocotools": ("coco",),
    "tabulate": (),
    "thop": (),
    "torchvision": ("ops",),
}


def build(settings):
    """Build the original's network without weights; ``settings`` holds model and num_classes."""
    replace_missing(UNUSED)
    model = settings["model"]
    path = Path("exps", "default", EXPERIMENTS.get(model, model) + ".py").resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment = module.Exp()
    experiment.num_classes = settings["num_classes"]
    return experiment.get_model()


def outputs(result):
    """Return the network's result in two parts, because pixels and probabilities differ in
    magnitude.
    """
    return {"boxes": result[..., :4], "probabilities": result[..., 4:]}

"""MindSpore-first detector toolkit: Gold-YOLO, DynamicDet, YOLOX, Yolo-FastestV2 and simple YOLO.

Importing this package starts no framework; using one of its names does, if it needs one.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mindyolo_ext import former_names

__version__ = "0.1.0"
__all__ = [
    "Detections",
    "Detector",
    "__version__",
    "convert",
    "create_model",
    "evaluate",
    "export",
    "list_models",
    "train",
]

if TYPE_CHECKING:
    from mindyolo_ext.api import evaluate, train
    from mindyolo_ext.checkpoint.convert import convert
    from mindyolo_ext.engine.export import export
    from mindyolo_ext.engine.predict import Detections, Detector
    from mindyolo_ext.models.registry import create_model, list_models

_HOMES = {
    "Detections": "engine.detections",
    "Detector": "engine.predict",
    "convert": "checkpoint.convert",
    "create_model": "models.registry",
    "evaluate": "api",
    "export": "engine.export",
    "list_models": "models.registry",
    "train": "api",
}

former_names.install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mindyolo_ext' has no attribute {name!r}")
    return vars(importlib.import_module(f"mindyolo_ext.{_HOMES[name]}"))[name]

"""MindSpore-first detector toolkit: Gold-YOLO, DynamicDet, YOLOX, Yolo-FastestV2 and simple YOLO.

Importing this package starts no framework. ``from mindyolo_ext import create_model, Detector``
does.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Detector", "create_model", "list_models", "__version__"]

if TYPE_CHECKING:
    from mindyolo_ext.engine.predict import Detector
    from mindyolo_ext.models.registry import create_model, list_models


def __getattr__(name: str) -> Any:
    if name == "Detector":
        from mindyolo_ext.engine.predict import Detector

        return Detector
    if name == "create_model":
        from mindyolo_ext.models.registry import create_model

        return create_model
    if name == "list_models":
        from mindyolo_ext.models.registry import list_models

        return list_models
    raise AttributeError(f"module 'mindyolo_ext' has no attribute {name!r}")

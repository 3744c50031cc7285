"""Detector networks. Importing this package enters every family's builders in the registry."""

from mindyolo_ext.models import dynamicdet, gold_yolo, simple_yolo, yolo_fastestv2, yolox  # noqa: F401
from mindyolo_ext.models.registry import create_model, list_models, register_model

__all__ = ["create_model", "list_models", "register_model"]

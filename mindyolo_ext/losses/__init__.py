"""Trainable cells. Importing this package enters every family's losses in the registry."""
from mindyolo_ext.losses import yolo_fastestv2, yolox  # noqa: F401
from mindyolo_ext.losses.registry import (
    check_loss_keywords,
    create_trainable,
    list_trainables,
    register_trainable,
)

__all__ = ["check_loss_keywords", "create_trainable", "list_trainables", "register_trainable"]

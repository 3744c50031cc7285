"""Trainable cells. Importing this package enters every family's losses in the registry."""

from mindyolo_ext.losses import dynamicdet, gold_yolo, simple_yolo, yolo_fastestv2, yolox  # noqa: F401
from mindyolo_ext.losses.registry import (
    StepClock,
    check_loss_keywords,
    create_trainable,
    list_trainables,
    loss_keywords,
    register_trainable,
)

__all__ = [
    "StepClock",
    "check_loss_keywords",
    "create_trainable",
    "list_trainables",
    "loss_keywords",
    "register_trainable",
]

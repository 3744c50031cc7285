"""Reading, converting and writing checkpoints. A new family adds its file and its line here."""

from mindyolo_ext.checkpoint import dynamicdet, gold_yolo, simple_yolo, yolo_fastestv2, yolox  # noqa: F401

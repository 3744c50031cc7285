"""The one scale of Yolo-FastestV2, and its input convention. Loads no framework."""

from dataclasses import dataclass

from mindyolo_ext.contracts import EvaluationProtocol, Variant
from mindyolo_ext.input_spec import InputSpec

STRIDES = (16, 32)
# (width, height) in pixels, three per level; found by the original on COCO at 352 x 352.
COCO_ANCHORS = (
    (12.64, 19.39), (37.88, 51.48), (55.71, 138.31),
    (126.91, 78.23), (131.57, 214.55), (279.92, 258.87),
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """Channels and depths.

    Args:
        stem: channels of the first convolution.
        stages: output channels and blocks of the stages of stride 8, 16 and 32.
        head: channels of the heads.
    """

    stem: int
    stages: tuple[tuple[int, int], ...]
    head: int


# Published: README of the original; AP50 by its own metric
VARIANTS = {
    "yolo_fastestv2": Variant(
        "Yolo-FastestV2",
        Scale(stem=24, stages=((48, 4), (96, 8), (192, 4)), head=72),
        (352, 352),
        243_095,
        {"AP50 val, own metric": 24.10, "parameters, M": 0.25, "GFLOPs": 0.212},
        "https://github.com/dog-qiuqiu/Yolo-FastestV2/tree/main/modelzoo",
    ),
}


# `evaluation.py` with its defaults for AP
PROTOCOLS = (
    EvaluationProtocol(
        {"AP50 val, own metric": "own_AP50"},
        "COCO val2017 without crowds",
        5000,
        {
            "eval.conf_thres": 0.01,
            "eval.iou_thres": 0.4,
            "eval.max_detections": 300,
            "eval.max_candidates": 30000,
            "eval.multi_label": False,
            "eval.class_agnostic": False,
            "eval.clip": False,
            "eval.rectangular": False,
            "eval.metrics": ["darknet"],
        },
    ),
)


def official_input(size: tuple[int, int]) -> InputSpec:
    """Return the original's input: BGR in 0..1, the photo stretched to ``size`` (height, width).

    Source: Yolo-FastestV2 ``utils/datasets.py``.
    """
    return InputSpec(size=size, color="bgr", scale=1.0 / 255.0, resize="stretch")

"""The scales of Gold-YOLO, and its input convention. Loads no framework."""

import math
from dataclasses import dataclass

from mindyolo_ext.contracts import EvaluationProtocol, Variant
from mindyolo_ext.input_spec import InputSpec

STRIDES = (8, 16, 32)
# What the head predicts: fuse_ab has a second, anchor-based branch for training (step 1), distill a
# second box branch that takes over in inference (step 2 of n and s).
FORMS = ("plain", "fuse_ab", "distill")
REG_MAX = 16  # last bin of a distance's distribution


@dataclass(frozen=True)
class Scale:
    """The differences between the variants.

    Args:
        depth: factor for the number of blocks.
        width: factor for the number of channels.
        csp: share of the channels inside a CSP stage; 0 for stages that are plain chains of blocks,
            with a CSP layer for the pooling at the end of the backbone.
        silu: blocks are convolutions with SiLU instead of RepVGG blocks with ReLU; P4 instead of N4
            feeds N5.
        gather: channels of the low-level fusion.
        transformer: number of blocks and of heads of the high-level fusion.
        published_form: the form of the published weights, one of ``FORMS``.
        published_border: pixels by which photos are smaller than the input in the evaluation of the
            published weights: 636 or 634 in 640.
    """

    depth: float
    width: float
    csp: float = 0.0
    silu: bool = False
    gather: int = 192
    transformer: tuple[int, int] = (2, 4)
    published_form: str = "plain"
    published_border: int = 4

    def channels(self, base: int) -> int:
        """Return ``base`` times the width, rounded up to a multiple of 8."""
        return math.ceil(base * self.width / 8) * 8

    def repeats(self, base: int) -> int:
        """Return ``base`` times the depth, at least 1."""
        return max(round(base * self.depth), 1)


# One folder with the files of all scales, according to the original's README
WEIGHTS = "https://drive.google.com/drive/folders/1dd2KJjYfHrXwKasfjDeL1eLX0Vp6UaLG"
T4 = "images/s on a T4 with TensorRT 7, float16, batch 1"


def _published(val: float, parameters: float, gflops: float, speed: float) -> dict[str, float]:
    return {"AP val": val, "parameters, M": parameters, "GFLOPs": gflops, T4: speed}


# Published: README of the original, COCO val2017 at 640 x 640
VARIANTS = {
    "gold_yolo_n": Variant(
        "Gold-YOLO-N",
        Scale(0.33, 0.25, gather=96, published_form="distill"),
        (640, 640),
        6_077_084,
        _published(39.9, 5.6, 12.1, 563),
        WEIGHTS,
    ),
    "gold_yolo_s": Variant(
        "Gold-YOLO-S",
        Scale(0.33, 0.5, gather=128, published_form="distill", published_border=6),
        (640, 640),
        23_202_940,
        _published(46.4, 21.5, 46.0, 286),
        WEIGHTS,
    ),
    "gold_yolo_m": Variant(
        "Gold-YOLO-M",
        Scale(0.6, 0.75, csp=2 / 3),
        (640, 640),
        44_326_772,
        _published(51.1, 41.3, 87.5, 152),
        WEIGHTS,
    ),
    "gold_yolo_l": Variant(
        "Gold-YOLO-L",
        Scale(1.0, 1.0, csp=0.5, silu=True, transformer=(3, 8)),
        (640, 640),
        75_114_665,
        _published(53.3, 75.1, 151.7, 88),
        WEIGHTS,
    ),
}


# `tools/eval.py ... --reproduce_640_eval`; the input comes with the recipes and the weights
PROTOCOLS = (
    EvaluationProtocol(
        {"AP val": "AP"},
        "COCO val2017",
        5000,
        {
            "eval.conf_thres": 0.03,
            "eval.iou_thres": 0.65,
            "eval.max_detections": 300,
            "eval.max_candidates": 30000,
            "eval.multi_label": True,
            "eval.class_agnostic": False,
            "eval.clip": True,
            "eval.rectangular": False,
        },
        remark="the original separates classes in NMS by adding 4096 per class in float32, which "
        "rounds boxes of the last classes to 1/32 pixel; here they are compared",
    ),
)


def published_input(size: tuple[int, int], border: int | None = None) -> InputSpec:
    """Return the input that the published numbers were measured with (``--reproduce_640_eval`` of
    the original).

    Args:
        size: (height, width) of the network input.
        border: pixels by which the longer side of a photo is shorter than the input; at 640 it is 4
            for the published weights, and 6 for s. None means no border.
    """
    return InputSpec(size=size, color="rgb", rounding="down_whole", shrink="area", border=border)

"""The backbones of the simple YOLO, and its input convention. Loads no framework."""

from dataclasses import dataclass

from mindyolo_ext.contracts import EvaluationProtocol, Variant
from mindyolo_ext.input_spec import InputSpec

STRIDES = (8, 16, 32)
ASSIGNMENTS = ("single_grid", "nearby_grid", "all_grid")
# (width, height) in pixels, three per level; they do not scale with the input size.
COCO_ANCHORS = (
    (10, 13), (16, 30), (33, 23),
    (30, 61), (62, 45), (59, 119),
    (116, 90), (156, 198), (373, 326),
)  # fmt: skip


@dataclass(frozen=True)
class Backbone:
    """A backbone at full width.

    Args:
        name: the original's name.
        blocks: number of residual blocks of each layer.
        bottleneck: whether a ResNet's blocks are bottlenecks.
        channels: channels of its last map.
    """

    name: str
    blocks: tuple[int, ...]
    bottleneck: bool
    channels: int


DEFAULT_WIDTH = 0.75  # width of the published comparison, and of the parameters counted here

# Published: README of the original at width 0.75, VOC 2007 test (COCO's AP50, difficult objects
# counted); parameters were counted there with two classes
VARIANTS = {
    "simple_yolo_resnet18": Variant(
        "ResNet-18",
        Backbone("resnet18", (2, 2, 2, 2), False, 512),
        (512, 512),
        7_920_720,
        {"AP50 VOC07 test": 71.6, "parameters, M": 7.76},
    ),
    "simple_yolo_resnet34": Variant(
        "ResNet-34",
        Backbone("resnet34", (3, 4, 6, 3), False, 512),
        (512, 512),
        13_607_952,
        {"AP50 VOC07 test": 74.2, "parameters, M": 13.45},
    ),
    "simple_yolo_resnet50": Variant(
        "ResNet-50",
        Backbone("resnet50", (3, 4, 6, 3), True, 2048),
        (512, 512),
        37_119_408,
        {"AP50 VOC07 test": 76.1, "parameters, M": 36.49},
    ),
    "simple_yolo_resnet101": Variant(
        "ResNet-101", Backbone("resnet101", (3, 4, 23, 3), True, 2048), (512, 512), 47_812_272
    ),
    "simple_yolo_darknet": Variant(
        "Darknet-53",
        Backbone("darknet", (1, 2, 8, 8, 4), False, 1024),
        (512, 512),
        28_990_440,
        {"AP50 VOC07 test": 73.7, "parameters, M": 28.68},
    ),
}


# The row "Default YOLO" and the backbones beside it: width 0.75, 300 detections
PROTOCOLS = (
    EvaluationProtocol(
        {"AP50 VOC07 test": "AP50"},
        "VOC 2007 test, difficult objects counted",
        4952,
        {
            "eval.conf_thres": 0.001,
            "eval.iou_thres": 0.6,
            "eval.max_detections": 300,
            "eval.multi_label": False,
            "eval.class_agnostic": False,
            "eval.clip": False,
            "eval.rectangular": False,
        },
        architecture={"channel_sparsity": DEFAULT_WIDTH, "assignment": "nearby_grid"},
        remark="the original measures in pixels of the network's input, this in those of the photo",
    ),
)


def official_input(size: tuple[int, int] = (512, 512)) -> InputSpec:
    """Return the input of the original's training and validation.

    A photo is scaled so that its longer side has the length of the input's side, enlarging small
    photos too; the other side is rounded to the nearest pixel. Pillow's bicubic filter resizes. The
    photo is centered on black, which is normalized with it.

    Args:
        size: (height, width) of the network input.

    Raises: ValueError for a size that is not a multiple of 32.
    Source: simple-yolo-pytorch ``datasets/base_dataset.py`` (``load_data``, ``load_one_img_lbl``).
        Unlike the original: a photo always fits into an input that is not square, where the
        original considers only the longer side; and prediction uses this input too, where the
        original's (``datasets/test_dataset.py``) resizes linearly without padding.
    """
    return InputSpec(
        size=size,
        color="rgb",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        pad_value=0,
        resample="bicubic",
    )

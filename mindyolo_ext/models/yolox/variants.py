"""The scales of YOLOX, and the input conventions its weights were trained with. No framework."""

from collections.abc import Callable
from dataclasses import dataclass

from mindyolo_ext.contracts import EvaluationProtocol, Variant
from mindyolo_ext.input_spec import InputSpec

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Scale:
    """What tells the variants apart.

    Args:
        depth: factor on the number of bottlenecks.
        width: factor on the channels.
        depthwise: 3 x 3 convolutions are depthwise ones.
        darknet: Darknet-53 with leaky ReLU instead of CSPDarknet with SiLU; the two factors are 1.
    """

    depth: float = 1.0
    width: float = 1.0
    depthwise: bool = False
    darknet: bool = False

    @property
    def stem_channels(self) -> int:
        """Channels of CSPDarknet's first map."""
        return int(64 * self.width)

    @property
    def repeats(self) -> int:
        """Bottlenecks of the neck's CSP layers."""
        return round(3 * self.depth)

    @property
    def backbone_repeats(self) -> int:
        """Bottlenecks of the first stage; the second and third have three times as many."""
        return max(self.repeats, 1)


RELEASE = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"


def _published(
    val: float, test: float | None, parameters: float, gflops: float, *, mindyolo: float
) -> dict[str, float]:
    values = {
        "AP val": val,
        "AP test-dev": test,
        "parameters, M": parameters,
        "GFLOPs": gflops,
        "MindYOLO's AP val": mindyolo,
    }
    return {what: value for what, value in values.items() if value is not None}


# Published: README of the original, COCO val2017 and test-dev; README of MindYOLO 0.5's
# configs/yolox, which trained the same networks anew (Ascend 910)
VARIANTS = {
    "yolox_nano": Variant(
        "YOLOX-Nano",
        Scale(0.33, 0.25, depthwise=True),
        (416, 416),
        912_159,
        _published(25.8, None, 0.91, 1.08, mindyolo=24.1),
        f"{RELEASE}/yolox_nano.pth",
    ),
    "yolox_tiny": Variant(
        "YOLOX-Tiny",
        Scale(0.33, 0.375),
        (416, 416),
        5_055_855,
        _published(32.8, None, 5.06, 6.45, mindyolo=33.3),
        f"{RELEASE}/yolox_tiny.pth",
    ),
    "yolox_s": Variant(
        "YOLOX-S",
        Scale(0.33, 0.5),
        (640, 640),
        8_968_255,
        _published(40.5, 40.5, 9.0, 26.8, mindyolo=40.7),
        f"{RELEASE}/yolox_s.pth",
    ),
    "yolox_m": Variant(
        "YOLOX-M",
        Scale(0.67, 0.75),
        (640, 640),
        25_326_495,
        _published(46.9, 47.2, 25.3, 73.8, mindyolo=46.7),
        f"{RELEASE}/yolox_m.pth",
    ),
    "yolox_l": Variant(
        "YOLOX-L",
        Scale(1.0, 1.0),
        (640, 640),
        54_208_895,
        _published(49.7, 50.1, 54.2, 155.6, mindyolo=49.2),
        f"{RELEASE}/yolox_l.pth",
    ),
    "yolox_x": Variant(
        "YOLOX-X",
        Scale(1.33, 1.25),
        (640, 640),
        99_071_455,
        _published(51.1, 51.5, 99.1, 281.9, mindyolo=51.6),
        f"{RELEASE}/yolox_x.pth",
    ),
    "yolox_darknet53": Variant(
        "YOLOX-Darknet53",
        Scale(darknet=True),
        (640, 640),
        63_724_767,
        _published(47.7, 48.0, 63.7, 185.3, mindyolo=47.7),
        f"{RELEASE}/yolox_darknet.pth",
    ),
}


COCO_VAL = ("COCO val2017", 5000)
PROTOCOLS = (
    # `tools/eval.py ... --conf 0.001`; one label per prediction, no limit on their number
    EvaluationProtocol(
        {"AP val": "AP"},
        *COCO_VAL,
        {
            "eval.conf_thres": 0.001,
            "eval.iou_thres": 0.65,
            "eval.max_detections": 30000,
            "eval.max_candidates": 30000,
            "eval.multi_label": False,
            "eval.class_agnostic": False,
            "eval.clip": False,
            "eval.rectangular": False,
        },
        input_style="official",
    ),
    # MindYOLO's `test.py`
    EvaluationProtocol(
        {"MindYOLO's AP val": "AP"},
        *COCO_VAL,
        {
            "eval.conf_thres": 0.001,
            "eval.iou_thres": 0.65,
            "eval.max_detections": 300,
            "eval.max_candidates": 30000,
            "eval.multi_label": True,
            "eval.class_agnostic": False,
            "eval.clip": True,
            "eval.rectangular": False,
        },
        input_style="mindyolo",
        remark="MindYOLO divides x and y by the factor of the height; here each side has its own",
    ),
)


def official_input(size: tuple[int, int]) -> InputSpec:
    """Raw 0..255 BGR, the photo in the top left corner, gray right and below it.

    Source: YOLOX ``data_augment.py`` (``preproc``), since version 0.1.1.
    """
    return InputSpec(size=size, color="bgr", scale=1.0, pad_anchor="topleft", rounding="down_twice")


def legacy_input(size: tuple[int, int]) -> InputSpec:
    """Placed as ``official_input``, but RGB with ImageNet's mean and deviation, the padding
    included.

    Source: YOLOX ``data_augment.py`` (``ValTransform`` with ``legacy``), for weights of version
    0.1.0.
    """
    return InputSpec(
        size=size,
        color="rgb",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        pad_anchor="topleft",
        rounding="down_twice",
    )


def mindyolo_input(size: tuple[int, int]) -> InputSpec:
    """RGB in 0..1, the photo in the middle, averaged where it gets smaller.

    Source: MindYOLO ``data/dataset.py`` (``get_sample``, ``letterbox``). Despite its ``scaleup:
        False`` a small photo grows: the reader scales the longest side to the input size before the
        letterbox step sees it. Unlike the original, whose evaluation divides x and y by the factor
        of the height, boxes go back by each side's own factor, as they went into its training.
    """
    return InputSpec(size=size, color="rgb", pad_anchor="center", rounding="down", shrink="area")


YOLOX_INPUTS: dict[str, Callable[[tuple[int, int]], InputSpec]] = {
    "official": official_input,
    "legacy": legacy_input,
    "mindyolo": mindyolo_input,
}

"""The scales of YOLOX, and the input conventions of its weights. Loads no framework."""

from collections.abc import Callable
from dataclasses import dataclass

from mindyolo_ext.contracts import EvaluationProtocol, Variant
from mindyolo_ext.input_spec import InputSpec

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Scale:
    """The differences between the variants.

    Args:
        depth: factor for the number of bottlenecks.
        width: factor for the number of channels.
        depthwise: whether 3 x 3 convolutions are depthwise.
        darknet: Darknet-53 with leaky ReLU instead of CSPDarknet with SiLU; both factors are 1.
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
# configs/yolox, where the same networks were trained again (Ascend 910)
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
    """Return the official input: BGR 0..255, the photo in the top left corner, gray to the right
    and below.

    Source: YOLOX ``data_augment.py`` (``preproc``), since version 0.1.1.
    """
    return InputSpec(size=size, color="bgr", scale=1.0, pad_anchor="topleft", rounding="down_twice")


def legacy_input(size: tuple[int, int]) -> InputSpec:
    """Return the legacy input: placed like ``official_input``, but RGB normalized by ImageNet's
    mean and standard deviation, including the padding.

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
    """Return MindYOLO's input: RGB in 0..1, the photo centered, with pixels averaged if it shrinks.

    Source: MindYOLO ``data/dataset.py`` (``get_sample``, ``letterbox``). Despite ``scaleup: False``
        small photos are enlarged: the reader scales the longest side to the input size before the
        letterbox step. Unlike MindYOLO's evaluation, which divides x and y by the factor of the
        height, boxes are mapped back by each side's own factor, as in its training.
    """
    return InputSpec(size=size, color="rgb", pad_anchor="center", rounding="down", shrink="area")


YOLOX_INPUTS: dict[str, Callable[[tuple[int, int]], InputSpec]] = {
    "official": official_input,
    "legacy": legacy_input,
    "mindyolo": mindyolo_input,
}

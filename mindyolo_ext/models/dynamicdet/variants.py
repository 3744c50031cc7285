"""The scales of DynamicDet, and its input convention. Loads no framework."""

from dataclasses import dataclass

from mindyolo_ext.contracts import EvaluationProtocol, Variant
from mindyolo_ext.input_spec import InputSpec

# (width, height) in pixels, three per level, finest level first
P5_ANCHORS = (
    (12, 16), (19, 36), (40, 28),
    (36, 75), (76, 55), (72, 146),
    (142, 110), (192, 243), (459, 401),
)  # fmt: skip
P6_ANCHORS = (
    (19, 27), (44, 40), (38, 94),
    (96, 68), (86, 152), (180, 137),
    (140, 301), (303, 264), (238, 542),
    (436, 615), (739, 380), (925, 792),
)  # fmt: skip
ANCHORS_PER_LEVEL = 3


@dataclass(frozen=True)
class Scale:
    """The differences between the variants.

    Args:
        stem: channels of the first convolutions.
        stages: (width, output channels) of the ELAN block of each stage, stride 4 first.
        neck: (width, output channels) of the ELAN blocks of the heads, stride 8 first.
        anchors: (width, height) in pixels.
        depth: 3 x 3 convolutions of an ELAN block.
        dense: the heads' ELAN blocks join all their convolutions, which have half the width.
        reparameterised: the last convolution of each level is a RepConv.
        p6: a fourth level of stride 64, stages that begin with a plain convolution, and an image
            whose 2 x 2 squares first become channels.
        beside: stage of the second backbone whose strided convolution reads the first backbone, as
            in the published weights of X; None for none.
    """

    stem: tuple[int, ...]
    stages: tuple[tuple[int, int], ...]
    neck: tuple[tuple[int, int], ...]
    anchors: tuple[tuple[float, float], ...] = P5_ANCHORS
    depth: int = 4
    dense: bool = True
    reparameterised: bool = False
    p6: bool = False
    beside: int | None = None

    @property
    def first_channels(self) -> tuple[int, int]:
        """Channels of the first two convolutions, which identify the scale."""
        return self.stem[0], self.stages[0][1] if self.p6 else self.stem[1]

    @property
    def levels(self) -> int:
        """Levels of the heads."""
        return len(self.neck)


# Shares of easy images, in the order in which the original publishes AP val, AP test-dev and GFLOPs
SHARES = (90, 50, 10, 0)


RELEASE = "https://github.com/VDIGPKU/DynamicDet/releases/download/v0.1"


def _published(val: tuple, test: tuple, gflops: tuple) -> dict[str, float]:
    return {
        f"{what}, {share} % easy": value
        for what, values in (("AP val", val), ("AP test-dev", test), ("GFLOPs", gflops))
        for share, value in zip(SHARES, values)
    }


# Published: README of the original, COCO val2017 and test-dev
VARIANTS = {
    "dy_yolov7_w0125": Variant(
        "Dy-YOLOv7 with an eighth of the channels, for quick checks",
        Scale(
            stem=(8, 8, 8),
            stages=((8, 32), (16, 64), (32, 128), (32, 128)),
            neck=((16, 16), (32, 32), (64, 64)),
            reparameterised=True,
        ),
        (640, 640),
        1_375_505,
    ),
    "dy_yolov7": Variant(
        "Dy-YOLOv7",
        Scale(
            stem=(32, 64, 64),
            stages=((64, 256), (128, 512), (256, 1024), (256, 1024)),
            neck=((128, 128), (256, 256), (512, 512)),
            reparameterised=True,
        ),
        (640, 640),
        80_621_333,
        _published(
            (51.4, 52.7, 53.3, 53.5), (52.1, 53.3, 53.8, 53.9), (112.4, 143.2, 174.0, 181.7)
        ),
        f"{RELEASE}/dy-yolov7.pt",
    ),
    "dy_yolov7x": Variant(
        "Dy-YOLOv7-X",
        Scale(
            stem=(40, 80, 80),
            stages=((64, 320), (128, 640), (256, 1280), (256, 1280)),
            neck=((128, 160), (256, 320), (512, 640)),
            depth=6,
            dense=False,
            beside=1,
        ),
        (640, 640),
        151_093_149,
        _published(
            (53.0, 54.2, 54.7, 54.8), (53.3, 54.4, 55.0, 55.0), (201.7, 248.9, 296.1, 307.9)
        ),
        f"{RELEASE}/dy-yolov7x.pt",
    ),
    "dy_yolov7_w6": Variant(
        "Dy-YOLOv7-W6",
        Scale(
            stem=(64,),
            stages=((64, 128), (128, 256), (256, 512), (384, 768), (512, 1024)),
            neck=((128, 128), (256, 256), (384, 384), (512, 512)),
            anchors=P6_ANCHORS,
            p6=True,
        ),
        (1280, 1280),
        147_364_049,
        _published(
            (54.9, 55.9, 56.4, 56.5), (55.2, 56.1, 56.7, 56.8), (384.2, 480.8, 577.4, 601.6)
        ),
        f"{RELEASE}/dy-yolov7-w6.pt",
    ),
}


# `test.py --batch-size 1 --conf 0.001 --iou 0.65 --dy-thres T`, T by `get_dynamic_thres.py` on the
# same images
PROTOCOLS = (
    EvaluationProtocol(
        {f"AP val, {share} % easy": f"AP, {share} % easy" for share in SHARES},
        "COCO val2017",
        5000,
        {
            "eval.per_batch_size": 1,
            "eval.conf_thres": 0.001,
            "eval.iou_thres": 0.65,
            "eval.max_detections": 300,
            "eval.max_candidates": 30000,
            "eval.multi_label": True,
            "eval.class_agnostic": False,
            "eval.clip": True,
            "eval.rectangular": True,
            "eval.rectangular_pad": 0.5,
        },
        architecture={"router": True},
        remark="the original computes in half precision on a GPU, and separates classes in NMS by "
        "adding 4096 per class; here classes are compared",
    ),
)


def official_input(size: tuple[int, int], stride: int) -> InputSpec:
    """Return the input of the original's evaluation.

    A photo is scaled so that its longer side has the length of the input's longer side, enlarging
    small photos too, and sizes are rounded down; shrinking averages pixels. Boxes are mapped back
    by the height's factor on both sides and the exact center of the padding.

    Args:
        size: (height, width) of the network input.
        stride: stride of the coarsest level; ``size`` must be a multiple of it.

    Raises: ValueError for a size that is not a multiple of ``stride``.
    Source: DynamicDet ``utils/datasets.py`` (``load_image``, ``letterbox``) and
        ``utils/general.py`` (``scale_coords``). The original evaluates batches that are as narrow
        as their images allow plus half a stride (``eval.rectangular``); this spec is the one for a
        square input.
    """
    return InputSpec(
        size=size, color="rgb", rounding="down_height", shrink="area", border=0, stride=stride
    )

"""YOLOX: a CSPDarknet or Darknet-53 backbone, a feature pyramid, and an anchor-free decoupled head
on strides 8, 16 and 32.

Modules have the original's names, so a checkpoint's tensors need no mapping.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from mindyolo_ext.backend import Tensor, float32, nn, ops
from mindyolo_ext.layers.conv import ConvBNAct, conv2d
from mindyolo_ext.layers.deploy import DeployForm
from mindyolo_ext.layers.grid import cell_grid, cell_numbers
from mindyolo_ext.layers.heads import in_float32
from mindyolo_ext.layers.pool import MaxPoolPyramid
from mindyolo_ext.layers.resize import double, space_to_depth
from mindyolo_ext.models.registry import register_model
from mindyolo_ext.models.yolox.variants import STRIDES, VARIANTS, Scale, official_input
from mindyolo_ext.priors import Priors, grid_priors

PRIOR_PROBABILITY = 0.01  # initial probability of an object and of a class

Features = tuple[Tensor, Tensor, Tensor]
Heads = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class DWConv(nn.Cell):
    """Depthwise convolution and 1 x 1 convolution, both with batch norm and activation.

    Shape: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1):
        super().__init__()
        self.dconv = ConvBNAct(
            in_channels, in_channels, kernel_size, stride=stride, group=in_channels
        )
        self.pconv = ConvBNAct(in_channels, out_channels)

    def construct(self, x: Tensor) -> Tensor:
        return self.pconv(self.dconv(x))


class Bottleneck(nn.Cell):
    """1 x 1 and 3 x 3 convolutions of equal width, with or without a shortcut.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int, *, shortcut: bool, conv: Callable[..., nn.Cell]):
        super().__init__()
        self.conv1 = ConvBNAct(channels, channels)
        self.conv2 = conv(channels, channels, 3)
        self.shortcut = shortcut

    def construct(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CSPLayer(nn.Cell):
    """Pass half of the channels through ``repeats`` bottlenecks and half around them; the processed
    half comes first.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W).
    Source: arXiv:1911.11929, with three convolutions (C3).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        repeats: int,
        *,
        shortcut: bool,
        conv: Callable[..., nn.Cell],
    ):
        super().__init__()
        hidden = out_channels // 2
        self.conv1 = ConvBNAct(in_channels, hidden)
        self.conv2 = ConvBNAct(in_channels, hidden)
        self.conv3 = ConvBNAct(2 * hidden, out_channels)
        self.m = nn.SequentialCell(
            *[Bottleneck(hidden, shortcut=shortcut, conv=conv) for _ in range(repeats)]
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.conv3(ops.cat((self.m(self.conv1(x)), self.conv2(x)), 1))


class SPPBottleneck(nn.Cell):
    """Concatenate a map with its maxima over 5 x 5, 9 x 9 and 13 x 13 windows, between two 1 x 1
    convolutions.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, act: Callable[[], nn.Cell] = nn.SiLU):
        super().__init__()
        self.conv1 = ConvBNAct(in_channels, in_channels // 2, act=act)
        self.conv2 = ConvBNAct(2 * in_channels, out_channels, act=act)
        self.pyramid = MaxPoolPyramid()

    def construct(self, x: Tensor) -> Tensor:
        return self.conv2(self.pyramid(self.conv1(x)))


class Focus(nn.Cell):
    """Turn the four pixels of each 2 x 2 square into channels, then apply a 3 x 3 convolution.

    Shape: image (B, 3, H, W) -> (B, out_channels, H / 2, W / 2). The twelve channels are those of
        the upper left pixel, the lower left, the upper right, the lower right.
    """

    def __init__(self, out_channels: int):
        super().__init__()
        self.conv = ConvBNAct(12, out_channels, 3)

    def construct(self, image: Tensor) -> Tensor:
        return self.conv(space_to_depth(image))


class CSPDarknet(nn.Cell):
    """The backbone of all scales except darknet53.

    Args:
        channels: channels of the stem; each stage doubles them.
        base_depth: bottlenecks of the first and last stage; the middle stages have three times as
            many.
        conv: makes the 3 x 3 convolutions.

    Shape: image (B, 3, H, W) -> C3 (B, 4 c, H / 8, .), C4 (B, 8 c, H / 16, .), C5 (B, 16 c, H / 32,
        .).
    Source: original ``yolox/models/darknet.py``.
    """

    def __init__(self, channels: int, base_depth: int, conv: Callable[..., nn.Cell]):
        super().__init__()
        c = channels
        self.stem = Focus(c)
        self.dark2 = nn.SequentialCell(
            conv(c, 2 * c, 3, stride=2),
            CSPLayer(2 * c, 2 * c, base_depth, shortcut=True, conv=conv),
        )
        self.dark3 = nn.SequentialCell(
            conv(2 * c, 4 * c, 3, stride=2),
            CSPLayer(4 * c, 4 * c, 3 * base_depth, shortcut=True, conv=conv),
        )
        self.dark4 = nn.SequentialCell(
            conv(4 * c, 8 * c, 3, stride=2),
            CSPLayer(8 * c, 8 * c, 3 * base_depth, shortcut=True, conv=conv),
        )
        self.dark5 = nn.SequentialCell(
            conv(8 * c, 16 * c, 3, stride=2),
            SPPBottleneck(16 * c, 16 * c),
            CSPLayer(16 * c, 16 * c, base_depth, shortcut=False, conv=conv),
        )

    def construct(self, image: Tensor) -> Features:
        c3 = self.dark3(self.dark2(self.stem(image)))
        c4 = self.dark4(c3)
        return c3, c4, self.dark5(c4)


class PAFPN(nn.Cell):
    """CSPDarknet with a top-down and a bottom-up path.

    Args: as ``CSPDarknet``; ``neck_depth``: bottlenecks of each of the four layers of the paths.

    Shape: image (B, 3, H, W) -> P3 (B, 4 c, H / 8, .), P4 (B, 8 c, H / 16, .), P5 (B, 16 c, H / 32,
        .).
    Source: arXiv:1803.01534; original ``yolox/models/yolo_pafpn.py``.
    """

    def __init__(
        self, channels: int, base_depth: int, neck_depth: int, conv: Callable[..., nn.Cell]
    ):
        super().__init__()
        low, mid, high = 4 * channels, 8 * channels, 16 * channels
        layer = partial(CSPLayer, repeats=neck_depth, shortcut=False, conv=conv)
        self.backbone = CSPDarknet(channels, base_depth, conv)
        self.lateral_conv0 = ConvBNAct(high, mid)
        self.C3_p4 = layer(2 * mid, mid)
        self.reduce_conv1 = ConvBNAct(mid, low)
        self.C3_p3 = layer(2 * low, low)
        self.bu_conv2 = conv(low, low, 3, stride=2)
        self.C3_n3 = layer(2 * low, mid)
        self.bu_conv1 = conv(mid, mid, 3, stride=2)
        self.C3_n4 = layer(2 * mid, high)

    def construct(self, image: Tensor) -> Features:
        c3, c4, c5 = self.backbone(image)
        lateral5 = self.lateral_conv0(c5)
        lateral4 = self.reduce_conv1(self.C3_p4(ops.cat((double(lateral5), c4), 1)))
        p3 = self.C3_p3(ops.cat((double(lateral4), c3), 1))
        p4 = self.C3_n3(ops.cat((self.bu_conv2(p3), lateral4), 1))
        p5 = self.C3_n4(ops.cat((self.bu_conv1(p4), lateral5), 1))
        return p3, p4, p5


class ResLayer(nn.Cell):
    """1 x 1 convolution to half the channels and 3 x 3 back, with a shortcut.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int, conv: Callable[..., nn.Cell]):
        super().__init__()
        self.layer1 = conv(channels, channels // 2)
        self.layer2 = conv(channels // 2, channels, 3)

    def construct(self, x: Tensor) -> Tensor:
        return x + self.layer2(self.layer1(x))


class Darknet53(nn.Cell):
    """YOLOv3's backbone with spatial pyramid pooling.

    Shape: image (B, 3, H, W) -> C3 (B, 256, H / 8, .), C4 (B, 512, H / 16, .), C5 (B, 512, H / 32,
        .).
    Source: arXiv:1804.02767; original ``yolox/models/darknet.py``.
    """

    def __init__(self, act: Callable[[], nn.Cell]):
        super().__init__()
        conv = partial(ConvBNAct, act=act)

        def stage(in_channels: int, blocks: int) -> list[nn.Cell]:
            channels = 2 * in_channels
            return [
                conv(in_channels, channels, 3, stride=2),
                *[ResLayer(channels, conv) for _ in range(blocks)],
            ]

        self.stem = nn.SequentialCell(conv(3, 32, 3), *stage(32, 1))
        self.dark2 = nn.SequentialCell(*stage(64, 2))
        self.dark3 = nn.SequentialCell(*stage(128, 8))
        self.dark4 = nn.SequentialCell(*stage(256, 8))
        self.dark5 = nn.SequentialCell(
            *stage(512, 4),
            conv(1024, 512),
            conv(512, 1024, 3),
            SPPBottleneck(1024, 512, act),
            conv(512, 1024, 3),
            conv(1024, 512),
        )

    def construct(self, image: Tensor) -> Features:
        c3 = self.dark3(self.dark2(self.stem(image)))
        c4 = self.dark4(c3)
        return c3, c4, self.dark5(c4)


class YOLOFPN(nn.Cell):
    """Darknet-53 with a top-down path.

    Shape: image (B, 3, H, W) -> P3 (B, 128, H / 8, .), P4 (B, 256, H / 16, .), P5 (B, 512, H / 32,
        .).
    Source: original ``yolox/models/yolo_fpn.py``.
    """

    def __init__(self, act: Callable[[], nn.Cell]):
        super().__init__()
        conv = partial(ConvBNAct, act=act)

        def five(in_channels: int, channels: int) -> nn.SequentialCell:
            return nn.SequentialCell(
                conv(in_channels, channels),
                conv(channels, 2 * channels, 3),
                conv(2 * channels, channels),
                conv(channels, 2 * channels, 3),
                conv(2 * channels, channels),
            )

        self.backbone = Darknet53(act)
        self.out1_cbl = conv(512, 256)
        self.out1 = five(256 + 512, 256)
        self.out2_cbl = conv(256, 128)
        self.out2 = five(128 + 256, 128)

    def construct(self, image: Tensor) -> Features:
        c3, c4, c5 = self.backbone(image)
        p4 = self.out1(ops.cat((double(self.out1_cbl(c5)), c4), 1))
        p3 = self.out2(ops.cat((double(self.out2_cbl(p4)), c3), 1))
        return p3, p4, c5


class DecoupledHead(nn.Cell):
    """On each level: a stem, two convolutions for the classes, and two for box and objectness.

    Args:
        in_channels: of the three levels.
        channels: channels inside the head.
        num_classes: K.
        conv: makes the 3 x 3 convolutions.
        act: activation of the stems.

    Shape: P3, P4, P5 -> reg (B, 4, h, w), obj (B, 1, h, w), cls (B, K, h, w) of stride 8, then 16,
        then 32.
    Source: original ``yolox/models/yolo_head.py``.
    """

    def __init__(
        self,
        in_channels: tuple[int, int, int],
        channels: int,
        num_classes: int,
        conv: Callable[..., nn.Cell],
        act: Callable[[], nn.Cell],
    ):
        super().__init__()
        prior = float(-np.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))

        def towers() -> nn.CellList:
            return nn.CellList(
                [
                    nn.SequentialCell(conv(channels, channels, 3), conv(channels, channels, 3))
                    for _ in STRIDES
                ]
            )

        def predictors(outputs: int) -> nn.CellList:
            return nn.CellList([conv2d(channels, outputs, 1, has_bias=True) for _ in STRIDES])

        self.cls_convs, self.reg_convs = towers(), towers()
        self.cls_preds, self.reg_preds, self.obj_preds = (
            predictors(num_classes),
            predictors(4),
            predictors(1),
        )
        self.stems = nn.CellList([ConvBNAct(c, channels, act=act) for c in in_channels])
        for predictor in (*self.cls_preds, *self.obj_preds):
            predictor.bias.set_data(Tensor(np.full(predictor.bias.shape, prior), float32))

    def construct(self, p3: Tensor, p4: Tensor, p5: Tensor) -> Heads:
        return in_float32(self._level(p3, 0) + self._level(p4, 1) + self._level(p5, 2))

    def _level(self, feature: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stems[level](feature)
        box = self.reg_convs[level](x)
        return (
            self.reg_preds[level](box),
            self.obj_preds[level](box),
            self.cls_preds[level](self.cls_convs[level](x)),
        )


class YOLOX(nn.Cell):
    """The detector in training form.

    Args:
        scale: the variant.
        num_classes: K.
        input_size: default (height, width) of the input, multiples of 32.

    Shape: images (B, 3, H, W) -> logits reg (B, 4, ., .) x, y, w, h; obj (B, 1, ., .); cls (B, K,
        ., .) of stride 8, then the same three of strides 16 and 32. One prediction per cell.
    Source: arXiv:2107.08430; original ``yolox/models/yolox.py`` and ``yolo_head.py``.
    """

    family = "yolox"
    strides = STRIDES

    def __init__(self, scale: Scale, num_classes: int, input_size: tuple[int, int]):
        super().__init__()
        self.scale = scale
        self.num_classes = num_classes
        self.architecture = {}
        self.input_spec = official_input(input_size)
        channels, hidden = scale.stem_channels, int(256 * scale.width)
        if scale.darknet:
            act = partial(nn.LeakyReLU, 0.1)
            self.backbone = YOLOFPN(act)
            self.head = DecoupledHead(
                (128, 256, 512), hidden, num_classes, partial(ConvBNAct, act=act), act
            )
        else:
            conv = DWConv if scale.depthwise else ConvBNAct
            self.backbone = PAFPN(channels, scale.backbone_repeats, scale.repeats, conv)
            self.head = DecoupledHead(
                (4 * channels, 8 * channels, 16 * channels), hidden, num_classes, conv, nn.SiLU
            )

    def construct(self, images: Tensor) -> Heads:
        return self.head(*self.backbone(images))

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (B, A, 4) xyxy in pixels of the input and scores (B, A, K) = objectness *
        class.

        Rows: stride 8 first; inside a level cells row by row.
        """
        heads = self.construct(images)
        x, y, width, height = self.boxes(heads)
        half_width, half_height = width * 0.5, height * 0.5
        boxes = ops.stack((x - half_width, y - half_height, x + half_width, y + half_height), 2)
        _, objectness, classes = self.flat(heads)
        scores = ops.expand_dims(ops.sigmoid(objectness), 1) * ops.sigmoid(classes)
        return boxes, ops.transpose(scores, (0, 2, 1))

    def decode(self, heads: Heads) -> Tensor:
        """Raw heads -> (B, A, 5 + K): cx, cy, w, h in pixels, objectness and class
        probabilities.
        """
        return self._rows(ops.stack(self.boxes(heads), 1), heads)

    def undecoded(self, heads: Heads) -> Tensor:
        """Like ``decode``, but with box logits."""
        return self._rows(self.flat(heads)[0], heads)

    def flat(self, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
        """Concatenate the logits of all levels: reg (B, 4, A), obj (B, A), cls (B, K, A),
        float32.
        """
        batch = heads[0].shape[0]
        reg, obj, cls = (
            ops.cat(
                [
                    ops.reshape(ops.cast(level, float32), (batch, level.shape[1], -1))
                    for level in heads[kind::3]
                ],
                2,
            )
            for kind in range(3)
        )
        return reg, ops.reshape(obj, (batch, -1)), cls

    def boxes(self, heads: Heads) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute cx, cy, w, h of all predictions in pixels of the input, each (B, A)."""
        return self.boxes_of(self.flat(heads)[0], self.grid(heads))

    def boxes_of(
        self, reg: Tensor, grid: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute ``boxes`` from the logits (B, 4, A) of ``flat`` and the ``grid``."""
        # the ONNX export has no unbind
        x, y, width, height = reg[:, 0], reg[:, 1], reg[:, 2], reg[:, 3]
        column, row, stride = grid
        return (
            (x + column) * stride,
            (y + row) * stride,
            ops.exp(width) * stride,
            ops.exp(height) * stride,
        )

    def levels(self, heads: Heads) -> tuple[tuple[Tensor, Tensor, float], ...]:
        """Return, per level, the indices of its columns (w,) and rows (h,), and its stride in
        pixels.
        """
        found = ()
        for level, stride in enumerate(self.strides):
            height, width = heads[3 * level].shape[2:]
            found = found + ((cell_numbers(width), cell_numbers(height), float(stride)),)
        return found

    def grid(self, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
        """Return column and row of every prediction's cell, and its stride in pixels, each (A,)
        float32.
        """
        return cell_grid(tuple(level.shape[2:] for level in heads[::3]), self.strides)

    def priors(self, height: int, width: int) -> Priors:
        """Return the cells of all predictions for an input of this size, in the order of
        ``predict``.
        """
        return grid_priors(height, width, self.strides)

    def to_deploy(self) -> "YOLOXDeploy":
        """Return a new cell for inference with folded batch norms."""
        return YOLOXDeploy(self)

    def _rows(self, boxes: Tensor, heads: Heads) -> Tensor:
        """Combine boxes (B, 4, A) and probabilities to (B, A, 5 + K)."""
        _, objectness, classes = self.flat(heads)
        probabilities = ops.sigmoid(ops.cat((ops.expand_dims(objectness, 1), classes), 1))
        return ops.transpose(ops.cat((boxes, probabilities), 1), (0, 2, 1))


class YOLOXDeploy(DeployForm):
    """The detector for inference.

    Shape: images (B, 3, H, W) -> (B, A, 5 + K): box logits x, y, w, h, objectness, class
        probabilities. The caller decodes boxes: center (v + cell) * stride, size exp(v) * stride.
    Source: export form of the original, ``tools/export_onnx.py``.
    """

    def __init__(self, source: YOLOX):
        super().__init__(source, YOLOX(source.scale, source.num_classes, source.input_spec.size))

    def construct(self, images: Tensor) -> Tensor:
        return self.network.undecoded(self.network(images))

    def decoded(self, images: Tensor) -> Tensor:
        """(B, A, 5 + K): cx, cy, w, h in pixels, objectness and class probabilities."""
        return self.network.decode(self.network(images))


def _built(name: str, num_classes: int, input_size: tuple[int, int] | None) -> YOLOX:
    """Build a model after checks. Raises: ValueError if there is no class."""
    if num_classes < 1:
        raise ValueError(f"yolox: num_classes must be at least 1, got {num_classes}")
    facts = VARIANTS[name]
    return YOLOX(facts.scale, num_classes, input_size or facts.input_size)


@register_model
def yolox_nano(num_classes: int = 80, *, input_size: tuple[int, int] | None = None) -> YOLOX:
    """YOLOX-Nano, with depthwise convolutions; ``variants`` has the facts about all scales.

    Args:
        num_classes: classes of the head.
        input_size: default (height, width) of the input; None means the published one.
    """
    return _built("yolox_nano", num_classes, input_size)


@register_model
def yolox_tiny(num_classes: int = 80, *, input_size: tuple[int, int] | None = None) -> YOLOX:
    """YOLOX-Tiny. Args as ``yolox_nano``."""
    return _built("yolox_tiny", num_classes, input_size)


@register_model
def yolox_s(num_classes: int = 80, *, input_size: tuple[int, int] | None = None) -> YOLOX:
    """YOLOX-S. Args as ``yolox_nano``."""
    return _built("yolox_s", num_classes, input_size)


@register_model
def yolox_m(num_classes: int = 80, *, input_size: tuple[int, int] | None = None) -> YOLOX:
    """YOLOX-M. Args as ``yolox_nano``."""
    return _built("yolox_m", num_classes, input_size)


@register_model
def yolox_l(num_classes: int = 80, *, input_size: tuple[int, int] | None = None) -> YOLOX:
    """YOLOX-L. Args as ``yolox_nano``."""
    return _built("yolox_l", num_classes, input_size)


@register_model
def yolox_x(num_classes: int = 80, *, input_size: tuple[int, int] | None = None) -> YOLOX:
    """YOLOX-X. Args as ``yolox_nano``."""
    return _built("yolox_x", num_classes, input_size)


@register_model
def yolox_darknet53(num_classes: int = 80, *, input_size: tuple[int, int] | None = None) -> YOLOX:
    """YOLOX on Darknet-53. Args as ``yolox_nano``."""
    return _built("yolox_darknet53", num_classes, input_size)

"""Yolo-FastestV2: a ShuffleNetV2 backbone, a light feature pyramid, and decoupled heads on strides
16 and 32.
"""

from collections.abc import Sequence

import numpy as np

from mindyolo_ext.backend import Tensor, float32, nn, ops
from mindyolo_ext.layers.activation import sole_reader
from mindyolo_ext.layers.conv import conv2d
from mindyolo_ext.layers.deploy import DeployForm
from mindyolo_ext.layers.grid import cell_positions
from mindyolo_ext.layers.heads import in_float32
from mindyolo_ext.layers.pool import HalvingMaxPool
from mindyolo_ext.layers.resize import double
from mindyolo_ext.models.registry import register_model
from mindyolo_ext.models.yolo_fastestv2.variants import (
    COCO_ANCHORS,
    STRIDES,
    VARIANTS,
    Scale,
    official_input,
)
from mindyolo_ext.priors import Priors, checked_anchors, grid_priors

Heads = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _conv_bn(
    in_channels: int, out_channels: int, kernel_size: int = 1, *, stride: int = 1, group: int = 1
) -> list[nn.Cell]:
    """Build a convolution without bias and a batch norm, as two entries of a sequence."""
    return [
        conv2d(in_channels, out_channels, kernel_size, stride=stride, group=group),
        nn.BatchNorm2d(out_channels, eps=1e-5, momentum=0.9),
    ]


def _main_branch(channels: int, stride: int) -> nn.SequentialCell:
    """Build pointwise, depthwise and pointwise convolutions of ``channels`` channels."""
    return nn.SequentialCell(
        *_conv_bn(channels, channels),
        sole_reader(nn.ReLU()),
        *_conv_bn(channels, channels, 3, stride=stride, group=channels),
        *_conv_bn(channels, channels),
        sole_reader(nn.ReLU()),
    )


class DownBlock(nn.Cell):
    """First block of a stage: both branches read the whole input, channels double, and the size
    halves.

    Shape: (B, C, H, W) -> (B, 2 C, H / 2, W / 2), projection branch first.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.branch_main = _main_branch(channels, stride=2)
        self.branch_proj = nn.SequentialCell(
            *_conv_bn(channels, channels, 3, stride=2, group=channels),
            *_conv_bn(channels, channels),
            sole_reader(nn.ReLU()),
        )

    def construct(self, x: Tensor) -> Tensor:
        return ops.cat((self.branch_proj(x), self.branch_main(x)), 1)


class ShuffleBlock(nn.Cell):
    """Even channels pass, odd channels go through the main branch and come second.

    The de-interleaving at the input is ShuffleNetV2's channel shuffle, moved from the end of the
    previous block.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.branch_main = _main_branch(channels // 2, stride=1)

    def construct(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        half = (batch, channels // 2, height, width)
        even, odd = ops.split(ops.reshape(x, (batch, channels // 2, 2, height * width)), 1, 2)
        return ops.cat((ops.reshape(even, half), self.branch_main(ops.reshape(odd, half))), 1)


def _stage(out_channels: int, blocks: int) -> nn.SequentialCell:
    """Build a stage that halves the size and doubles the channels to ``out_channels``."""
    return nn.SequentialCell(
        DownBlock(out_channels // 2), *[ShuffleBlock(out_channels) for _ in range(blocks - 1)]
    )


class ShuffleNetV2(nn.Cell):
    """The backbone.

    Shape: image (B, 3, H, W) -> C2 (B, 96, H / 16, W / 16), C3 (B, 192, H / 32, W / 32).
    Source: arXiv:1807.11164; original ``model/backbone/shufflenetv2.py``.
    """

    def __init__(self, scale: Scale):
        super().__init__()
        self.first_conv = nn.SequentialCell(
            *_conv_bn(3, scale.stem, 3, stride=2), sole_reader(nn.ReLU())
        )
        self.maxpool = HalvingMaxPool()
        self.stage2, self.stage3, self.stage4 = (
            _stage(channels, blocks) for channels, blocks in scale.stages
        )

    def construct(self, image: Tensor) -> tuple[Tensor, Tensor]:
        c2 = self.stage3(self.stage2(self.maxpool(self.first_conv(image))))
        return c2, self.stage4(c2)


class HeadTower(nn.Cell):
    """Two pairs of depthwise 5 x 5 and pointwise convolutions; the last is linear.

    Shape: (B, 72, h, w) -> the same.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.block = nn.SequentialCell(
            *_conv_bn(channels, channels, 5, group=channels),
            sole_reader(nn.ReLU()),
            *_conv_bn(channels, channels),
            *_conv_bn(channels, channels, 5, group=channels),
            sole_reader(nn.ReLU()),
            *_conv_bn(channels, channels),
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.block(x)


class LightFPN(nn.Cell):
    """Top-down neck with a class tower and a box tower per level.

    Shape: C2 (B, 96, 2 h, 2 w), C3 (B, 192, h, w) -> class and box features of stride 16, then of
        stride 32, each (B, 72, ., .).
    Source: original ``model/fpn.py``; the class tower also feeds the objectness.
    """

    def __init__(self, scale: Scale):
        super().__init__()
        (c2_channels, _), (c3_channels, _) = scale.stages[1:]
        channels = scale.head
        self.conv1x1_2 = nn.SequentialCell(
            *_conv_bn(c2_channels + c3_channels, channels), sole_reader(nn.ReLU())
        )
        self.conv1x1_3 = nn.SequentialCell(*_conv_bn(c3_channels, channels), sole_reader(nn.ReLU()))
        self.cls_head_2 = HeadTower(channels)
        self.reg_head_2 = HeadTower(channels)
        self.reg_head_3 = HeadTower(channels)
        self.cls_head_3 = HeadTower(channels)

    def construct(self, c2: Tensor, c3: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        s3 = self.conv1x1_3(c3)
        s2 = self.conv1x1_2(ops.cat((double(c3), c2), 1))
        return self.cls_head_2(s2), self.reg_head_2(s2), self.cls_head_3(s3), self.reg_head_3(s3)


class YoloFastestV2(nn.Cell):
    """The detector in training form.

    Args:
        scale: channels and depths.
        num_classes: classes of the head.
        anchors: (width, height) in pixels; the first half belongs to stride 16, the second to
            stride 32. They are not scaled with the input size.
        input_size: default (height, width) of the input, multiples of 32.

    Shape: images (B, 3, H, W) -> logits reg (B, 4 a, ., .), obj (B, a, ., .), cls (B, K, ., .) of
        stride 16, then the same three of stride 32, with a anchors per level. Channels of reg:
        anchor slowest, then x, y, w, h. One class vector per cell serves all its anchors.
    Raises: ValueError for anchors that are not an even number of positive pairs.
    Source: original ``model/detector.py``; decode after ``utils/utils.py``. Unlike the original,
        ``anchors`` defines the number of anchors in every part.
    """

    family = "yolo_fastestv2"
    strides = STRIDES

    def __init__(
        self,
        scale: Scale,
        num_classes: int,
        anchors: Sequence[Sequence[float]],
        input_size: tuple[int, int],
    ):
        super().__init__()
        self.scale, self.num_classes = scale, num_classes
        self.anchors = checked_anchors(anchors, len(STRIDES), "yolo_fastestv2")
        self.architecture = {"anchors": [list(pair) for pair in self.anchors]}
        self.input_spec = official_input(input_size)
        self.anchors_per_level = len(self.anchors) // len(STRIDES)
        self.backbone = ShuffleNetV2(scale)
        self.fpn = LightFPN(scale)
        self.output_reg_layers = conv2d(scale.head, 4 * self.anchors_per_level, 1, has_bias=True)
        self.output_obj_layers = conv2d(scale.head, self.anchors_per_level, 1, has_bias=True)
        self.output_cls_layers = conv2d(scale.head, num_classes, 1, has_bias=True)
        self.anchor_sizes = tuple(
            Tensor(level[None, :, :, None], float32)  # (1, a, 2, 1)
            for level in np.split(np.array(self.anchors), len(STRIDES))
        )

    def construct(self, images: Tensor) -> Heads:
        cls_2, reg_2, cls_3, reg_3 = self.fpn(*self.backbone(images))
        heads = (
            self.output_reg_layers(reg_2),
            self.output_obj_layers(cls_2),
            self.output_cls_layers(cls_2),
            self.output_reg_layers(reg_3),
            self.output_obj_layers(cls_3),
            self.output_cls_layers(cls_3),
        )
        return in_float32(heads)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (B, A, 4) xyxy in pixels of the input and scores (B, A, K) = objectness *
        class.

        Rows: stride 16 first; inside a level cells row by row, anchors fastest.
        """
        centers, sizes, objectness, classes = self._decoded(self.construct(images))
        boxes = ops.cat((centers - sizes * 0.5, centers + sizes * 0.5), 2)
        return boxes, objectness * classes

    def decode(self, heads: Heads) -> Tensor:
        """Decode raw heads to (B, A, 5 + K): cx, cy, w, h in pixels, objectness, class
        probabilities.
        """
        centers, sizes, objectness, classes = self._decoded(heads)
        return ops.cat((centers, sizes, objectness, classes), 2)

    def priors(self, height: int, width: int) -> Priors:
        """Return cell, level and anchor of each row of ``predict`` for an input of ``height`` x
        ``width`` pixels.
        """
        sizes = np.array(self.anchors, np.float32).reshape(len(self.strides), -1, 2)
        return grid_priors(height, width, self.strides, sizes)

    def to_deploy(self) -> "YoloFastestV2Deploy":
        """Return a new cell for inference with folded batch norms."""
        return YoloFastestV2Deploy(self)

    def _decoded(self, heads: Heads) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return centers (B, A, 2), sizes (B, A, 2), objectness (B, A, 1) and class probabilities
        (B, A, K).
        """
        fine = self._decoded_level(heads[:3], 0)
        coarse = self._decoded_level(heads[3:], 1)
        return (
            ops.cat((fine[0], coarse[0]), 1),
            ops.cat((fine[1], coarse[1]), 1),
            ops.cat((fine[2], coarse[2]), 1),
            ops.cat((fine[3], coarse[3]), 1),
        )

    def _decoded_level(
        self, heads: tuple[Tensor, Tensor, Tensor], level: int
    ) -> tuple[Tensor, ...]:
        """Compute the four parts of ``_decoded`` for one level, A = h * w * a."""
        reg, obj, cls = heads
        batch, _, height, width = reg.shape
        anchors, cells, stride = self.anchors_per_level, height * width, self.strides[level]
        reg = 2.0 * ops.sigmoid(ops.reshape(reg, (batch, anchors, 4, cells)))
        xy, wh = ops.split(reg, 2, 2)  # (B, a, 2, cells)
        grid = ops.reshape(cell_positions(height, width), (1, 1, 2, cells))
        centers = (xy - 0.5 + grid) * stride
        sizes = wh * wh * self.anchor_sizes[level]
        objectness = ops.sigmoid(ops.reshape(obj, (batch, anchors, 1, cells)))
        classes = ops.softmax(ops.reshape(cls, (batch, 1, self.num_classes, cells)), 2)
        classes = ops.broadcast_to(classes, (batch, anchors, self.num_classes, cells))
        return self._rows(centers), self._rows(sizes), self._rows(objectness), self._rows(classes)

    def _rows(self, x: Tensor) -> Tensor:
        """(B, a, n, cells) -> (B, cells * a, n), anchors fastest."""
        batch, anchors, values, cells = x.shape
        return ops.reshape(ops.transpose(x, (0, 3, 1, 2)), (batch, cells * anchors, values))


class YoloFastestV2Deploy(DeployForm):
    """The detector for inference: 238,847 parameters with 80 classes and three anchors per level.

    Shape: images (B, 3, H, W) -> (B, H / 16, W / 16, 5 a + K), (B, H / 32, W / 32, 5 a + K). The
        channels are 4 a sigmoids of the box logits (anchor slowest, then x, y, w, h), a objectness
        sigmoids, K class probabilities. The caller decodes boxes: center (2 v - 0.5 + cell) *
        stride, size (2 v)^2 * anchor.
    Source: export form of the original's ``model/detector.py``.
    """

    def __init__(self, source: YoloFastestV2):
        super().__init__(
            source,
            YoloFastestV2(source.scale, source.num_classes, source.anchors, source.input_spec.size),
        )
        self.anchors = source.anchors

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        heads = self.network(images)
        return self._merged(heads[:3]), self._merged(heads[3:])

    def _merged(self, heads: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Merge reg, obj, cls of one level to (B, h, w, 5 a + K) probabilities."""
        reg, obj, cls = heads
        merged = ops.cat((ops.sigmoid(ops.cat((reg, obj), 1)), ops.softmax(cls, 1)), 1)
        return ops.transpose(merged, (0, 2, 3, 1))


@register_model
def yolo_fastestv2(
    num_classes: int = 80,
    *,
    anchors: Sequence[Sequence[float]] | None = None,
    input_size: tuple[int, int] | None = None,
) -> YoloFastestV2:
    """Yolo-FastestV2; ``variants`` has its facts.

    Args:
        num_classes: classes of the head.
        anchors: (width, height) pairs in pixels, first those of stride 16; None means the
            original's for COCO.
        input_size: default (height, width) of the input; None means the published one.
    """
    if num_classes < 1:
        raise ValueError(f"yolo_fastestv2: num_classes must be at least 1, got {num_classes}")
    facts = VARIANTS["yolo_fastestv2"]
    return YoloFastestV2(
        facts.scale,
        num_classes,
        COCO_ANCHORS if anchors is None else anchors,
        input_size or facts.input_size,
    )

"""Simple YOLO: a ResNet or Darknet backbone, spatial pyramid pooling, a path aggregation neck, and
three levels of anchors.

Parameters have the original's names, those of the ResNets torchvision's.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from mindyolo_ext.backend import Parameter, Tensor, float32, nn, ops
from mindyolo_ext.backend.initial import he_normal
from mindyolo_ext.backend.sizes import in_any_size
from mindyolo_ext.layers.activation import sole_reader
from mindyolo_ext.layers.conv import conv2d
from mindyolo_ext.layers.deploy import DeployForm
from mindyolo_ext.layers.grid import cell_grid
from mindyolo_ext.layers.heads import in_float32
from mindyolo_ext.layers.pool import HalvingMaxPool, MaxPoolPyramid
from mindyolo_ext.layers.resize import double
from mindyolo_ext.models.registry import register_model
from mindyolo_ext.models.simple_yolo.variants import (
    ASSIGNMENTS,
    COCO_ANCHORS,
    DEFAULT_WIDTH,
    STRIDES,
    VARIANTS,
    Backbone,
    official_input,
)
from mindyolo_ext.priors import Priors, checked_anchors, grid_priors

_LOWEST = -1e30

Heads = tuple[Tensor, Tensor, Tensor]


class LearnedLeak(nn.Cell):
    """ReLU with a learned slope for negative values, one for all channels. Shape: any -> the
    same.
    """

    def __init__(self):
        super().__init__()
        self.activation = _Slope()

    def construct(self, x: Tensor) -> Tensor:
        return ops.prelu(x, ops.cast(self.activation.weight, x.dtype))


class _Slope(nn.Cell):
    """Holds the slope by the original's name."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(Tensor(np.full((1,), 0.25, np.float32)), name="weight")


WIDEST_DARKNET = 4  # twice this would have 400 million parameters
ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leakyrelu": partial(nn.LeakyReLU, 0.01),
    "prelu": LearnedLeak,
    "celu": nn.CELU,
    "elu": nn.ELU,
    "hardswish": nn.HSwish,
    "hardtanh": nn.Hardtanh,
    "gelu": partial(nn.GELU, False),
    "selu": nn.SeLU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "none": nn.Identity,
}
_WITHOUT_NEGATIVES = ("relu", "relu6", "sigmoid")


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.9)


def conv_bn_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    act: str,
    *,
    stride: int = 1,
    group: int = 1,
    has_bias: bool = False,
) -> nn.SequentialCell:
    """Build convolution, batch norm and activation as entries 0, 1 and 2 of a sequence."""
    convolution = conv2d(
        in_channels, out_channels, kernel_size, stride=stride, group=group, has_bias=has_bias
    )
    return nn.SequentialCell(convolution, _norm(out_channels), sole_reader(ACTIVATIONS[act]()))


class ResidualBlock(nn.Cell):
    """Two 3 x 3 convolutions with a shortcut.

    Shape: (B, in_channels, H, W) -> (B, channels, H / stride, W / stride).
    Source: arXiv:1512.03385; torchvision ``BasicBlock``.
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int, act: str):
        super().__init__()
        self.conv1 = _conv(in_channels, channels, 3, stride)
        self.bn1 = _norm(channels)
        self.relu = sole_reader(ACTIVATIONS[act]())
        self.conv2 = _conv(channels, channels, 3)
        self.bn2 = _norm(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def construct(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Cell):
    """1 x 1, 3 x 3 and 1 x 1 convolutions with a shortcut; the 3 x 3 one has the stride.

    Shape: (B, in_channels, H, W) -> (B, channels, H / stride, W / stride); the first two
        convolutions have ``width``.
    Source: arXiv:1512.03385; torchvision ``Bottleneck``.
    """

    def __init__(self, in_channels: int, channels: int, *, width: int, stride: int, act: str):
        super().__init__()
        self.conv1 = _conv(in_channels, width, 1)
        self.bn1 = _norm(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = _norm(width)
        self.conv3 = _conv(width, channels, 1)
        self.bn3 = _norm(channels)
        self.relu = sole_reader(ACTIVATIONS[act]())
        self.downsample = _shortcut(in_channels, channels, stride)

    def construct(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """Create a convolution with torchvision's initialization: normal, scaled by the number of
    outputs.
    """
    return conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        draw=lambda shape: he_normal(shape, "fan_out"),
    )


def _shortcut(in_channels: int, channels: int, stride: int) -> nn.Cell:
    """Create the projection of a shortcut: none, or a 1 x 1 convolution."""
    if in_channels == channels and stride == 1:
        return nn.Identity()
    return nn.SequentialCell(_conv(in_channels, channels, 1, stride), _norm(channels))


class ResNet(nn.Cell):
    """ResNet without pooling and classifier, with every width times ``sparsity``, rounded down.

    Shape: image (B, 3, H, W) -> maps of strides 8, 16 and 32; the last has ``channels`` channels,
        each before it half.
    Source: torchvision ``resnet.py``; the widths follow from the original's ``models/mresnet.py``.
    """

    def __init__(self, facts: Backbone, sparsity: float, act: str):
        super().__init__()
        stem = int(64 * sparsity)
        self.conv1 = _conv(3, stem, 7, 2)
        self.bn1 = _norm(stem)
        self.relu = sole_reader(ACTIVATIONS[act]())
        self.maxpool = HalvingMaxPool(0.0 if act in _WITHOUT_NEGATIVES else _LOWEST)
        channels, layers = stem, []
        for i, count in enumerate(facts.blocks):
            full = 64 * 2**i
            width, wider = (
                int(full * sparsity),
                int((4 * full if facts.bottleneck else full) * sparsity),
            )
            cells = []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                cells.append(
                    Bottleneck(channels, wider, width=width, stride=stride, act=act)
                    if facts.bottleneck
                    else ResidualBlock(channels, wider, stride=stride, act=act)
                )
                channels = wider
            layers.append(nn.SequentialCell(*cells))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.channels = channels

    def construct(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        p3 = self.layer2(self.layer1(x))
        p4 = self.layer3(p3)
        return p3, p4, self.layer4(p4)


class DarknetBlock(nn.Cell):
    """1 x 1 and 3 x 3 convolutions with a shortcut, without activation after the sum. Shape: (B, C,
    H, W) -> the same.
    """

    def __init__(self, channels: int, act: str):
        super().__init__()
        self.conv = nn.SequentialCell(
            conv_bn_act(channels, channels // 2, 1, act),
            conv_bn_act(channels // 2, channels, 3, act),
        )

    def construct(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Darknet(nn.Cell):
    """Darknet-53 without classifier, with ``int(32 * sparsity)`` channels in the first convolution.

    Shape: image (B, 3, H, W) -> maps of strides 8, 16 and 32; the last has ``channels`` channels,
        each before it half.
    Source: arXiv:1804.02767; original ``models/darknet.py``.
    """

    def __init__(self, facts: Backbone, sparsity: float, act: str):
        super().__init__()
        first = int(32 * sparsity)
        self.stage0 = nn.SequentialCell(
            conv_bn_act(3, first, 3, act), conv_bn_act(first, 2 * first, 3, act, stride=2)
        )
        self.stage1, self.stage2, self.stage3, self.stage4, self.stage5 = (
            nn.SequentialCell(*[DarknetBlock(first * 2 ** (i + 1), act) for _ in range(count)])
            for i, count in enumerate(facts.blocks)
        )
        self.down1, self.down2, self.down3, self.down4 = (
            conv_bn_act(first * 2**i, first * 2 ** (i + 1), 3, act, stride=2) for i in (1, 2, 3, 4)
        )
        self.channels = first * 32

    def construct(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stage2(self.down1(self.stage1(self.stage0(image))))
        p3 = self.stage3(self.down2(x))
        p4 = self.stage4(self.down3(p3))
        return p3, p4, self.stage5(self.down4(p4))


class SPP(nn.Cell):
    """Concatenate a map with its maxima over 5 x 5, 9 x 9 and 13 x 13 windows. Shape: (B, C, H, W)
    -> the same.
    """

    def __init__(self, channels: int, act: str):
        super().__init__()
        self.conv1 = conv_bn_act(channels, channels // 2, 1, act)
        self.pyramid = MaxPoolPyramid()
        self.conv2 = conv_bn_act(channels // 2 * 4, channels, 1, act)

    def construct(self, x: Tensor) -> Tensor:
        return self.conv2(self.pyramid(self.conv1(x)))


class PAN(nn.Cell):
    """Top-down and bottom-up paths between three levels of C / 4, C / 2 and C channels.

    Shape: maps of strides 8, 16 and 32 -> the same.
    Source: arXiv:1803.01534; original ``models/modules.py``.
    """

    def __init__(self, channels: int, act: str):
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.up1 = conv_bn_act(channels, half, 1, act)
        self.down1 = conv_bn_act(quarter, quarter, 3, act, stride=2)
        self.down2 = conv_bn_act(half, half, 3, act, stride=2)
        self.up2 = nn.SequentialCell(
            conv_bn_act(channels, quarter, 1, act), conv_bn_act(quarter, quarter, 3, act)
        )
        self.head1 = nn.SequentialCell(
            conv_bn_act(half, quarter, 1, act), conv_bn_act(quarter, quarter, 3, act)
        )
        self.head2 = self._separable(half, act)
        self.head3 = self._separable(channels, act)

    def construct(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p5 = self.up1(p5)
        p4 = self.up2(ops.cat((double(p5), p4), 1))
        p3 = self.head1(ops.cat((double(p4), p3), 1))
        n4 = self.head2(ops.cat((self.down1(p3), p4), 1))
        return p3, n4, self.head3(ops.cat((self.down2(n4), p5), 1))

    @staticmethod
    def _separable(channels: int, act: str) -> nn.SequentialCell:
        """Build depthwise 3 x 3, pointwise with bias, and pointwise convolutions."""
        return nn.SequentialCell(
            nn.SequentialCell(
                conv_bn_act(channels, channels, 3, act, group=channels),
                conv_bn_act(channels, channels, 1, act, has_bias=True),
            ),
            conv_bn_act(channels, channels, 1, act),
        )


class DetectionHead(nn.Cell):
    """One 1 x 1 convolution without bias per level."""

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        self.heads = nn.CellList(
            [conv2d(channels // 2 ** (2 - i), outputs, 1) for i in range(len(STRIDES))]
        )

    def construct(self, p3: Tensor, p4: Tensor, p5: Tensor) -> Heads:
        return in_float32((self.heads[0](p3), self.heads[1](p4), self.heads[2](p5)))


class SimpleYOLO(nn.Cell):
    """The detector in training form.

    Args:
        backbone: one of ``variants``.
        num_classes: classes of the head.
        channel_sparsity: factor for all widths, above 0; at most 1 for a ResNet, 4 for a darknet.
        assignment: ``single_grid``, ``nearby_grid`` or ``all_grid``; it defines how far from its
            cell a box may lie, so decoding depends on it, and a checkpoint only works with its own
            assignment.
        act: activation, a key of ``ACTIVATIONS``.
        anchors: (width, height) in pixels, equally many for strides 8, 16 and 32, in that order.
        input_size: default (height, width) of the input, multiples of 32.

    Shape: images (B, 3, H, W) -> logits of strides 8, 16 and 32, each (B, a * (5 + K), h, w).
        Channels: anchor slowest, then objectness, x, y, w, h, classes.
    Raises: ValueError for values outside these rules.
    Source: original ``models/yolo.py``.
    """

    family = "simple_yolo"
    strides = STRIDES

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        channel_sparsity: float,
        assignment: str,
        act: str,
        anchors: Sequence[Sequence[float]],
        input_size: tuple[int, int],
    ):
        super().__init__()
        _check(backbone.name, num_classes, channel_sparsity, assignment, act)
        self.num_classes, self.assignment, self.facts = num_classes, assignment, backbone
        self.anchors = checked_anchors(anchors, len(STRIDES), "simple_yolo")
        self.architecture = {
            "channel_sparsity": float(channel_sparsity),
            "assignment": assignment,
            "act": act,
            "anchors": [list(pair) for pair in self.anchors],
        }
        self.input_spec = official_input(input_size)
        self.anchors_per_level = len(self.anchors) // len(STRIDES)
        kind = Darknet if backbone.name == "darknet" else ResNet
        self.backbone = kind(backbone, channel_sparsity, act)
        channels = self.backbone.channels
        if channels < 4 or channels % 4:
            raise ValueError(
                f"simple_yolo: channel_sparsity {channel_sparsity} leaves {channels} channels at "
                "stride 32, wanted a multiple of 4"
            )
        self.spp = SPP(channels, act)
        self.pan = PAN(channels, act)
        self.det_head = DetectionHead(channels, self.anchors_per_level * (5 + num_classes))

    def construct(self, images: Tensor) -> Heads:
        p3, p4, p5 = self.backbone(images)
        p3, p4, p5 = self.pan(p3, p4, self.spp(p5))
        return self.det_head(p3, p4, p5)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (B, A, 4) xyxy in pixels of the input, clipped to it, with corners swapped
        if a side is negative, and scores (B, A, K) = objectness * class; with one class, only the
        objectness.

        Rows: stride 8 first; inside a level anchors slowest, then cells row by row.
        """
        rows = self.flat(self.construct(images))
        x, y, width, height = self.boxes_of(rows[:, 1:5], images.shape[2:])
        right, bottom = images.shape[3], images.shape[2]
        boxes = ops.stack(
            (
                ops.clamp(x - width * 0.5, 0.0, right),
                ops.clamp(y - height * 0.5, 0.0, bottom),
                ops.clamp(x + width * 0.5, 0.0, right),
                ops.clamp(y + height * 0.5, 0.0, bottom),
            ),
            2,
        )
        scores = ops.sigmoid(rows[:, 0:1])
        if self.num_classes > 1:
            scores = scores * ops.sigmoid(rows[:, 5:])
        return boxes, ops.transpose(scores, (0, 2, 1))

    def decode(self, heads: Heads) -> Tensor:
        """Decode raw heads to (B, A, 5 + K): objectness, cx, cy, w, h in pixels, class
        probabilities.
        """
        rows = self.flat(heads)
        size = (heads[0].shape[2] * self.strides[0], heads[0].shape[3] * self.strides[0])
        boxes = ops.stack(self.boxes_of(rows[:, 1:5], size), 1)
        decoded = ops.cat((ops.sigmoid(rows[:, 0:1]), boxes, ops.sigmoid(rows[:, 5:])), 1)
        return ops.transpose(decoded, (0, 2, 1))

    def flat(self, heads: Heads) -> Tensor:
        """Reshape raw heads to (B, 5 + K, A) logits, with A in the order of ``predict``."""
        parts = ()
        for logits in heads:
            batch, _, height, width = logits.shape
            anchors, values = self.anchors_per_level, 5 + self.num_classes
            split = ops.transpose(
                ops.reshape(logits, (batch, anchors, values, height * width)), (0, 2, 1, 3)
            )
            parts = parts + (ops.reshape(split, (batch, values, anchors * height * width)),)
        return ops.cat(parts, 2)

    def boxes_of(
        self, logits: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decode logits x, y, w, h (B, 4, A) to cx, cy, w, h in pixels of an input of ``size``
        (height, width), each (B, A).

        Sides are linear in their logits and may be negative.
        """
        column, row, stride, anchor_width, anchor_height, cells_x, cells_y = self._grid(size)
        x, y, width, height = logits[:, 0], logits[:, 1], logits[:, 2], logits[:, 3]
        if self.assignment == "single_grid":
            x, y = ops.sigmoid(x), ops.sigmoid(y)
        elif self.assignment == "nearby_grid":
            x, y = _tanh(x) * 1.5 + 0.5, _tanh(y) * 1.5 + 0.5
        else:
            x, y = _tanh(x) * cells_x, _tanh(y) * cells_y
        return (
            (x + column) * stride,
            (y + row) * stride,
            width * 4.0 * anchor_width,
            height * 4.0 * anchor_height,
        )

    def _grid(self, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return column, row and stride of every prediction's cell, width and height of its anchor,
        and the number of cells across and down; (A,) or (1, A).
        """
        sizes = tuple((size[0] // stride, size[1] // stride) for stride in self.strides)
        cells = cell_grid(sizes, self.strides, self.anchors_per_level)
        return cells + ops.split(_anchor_rows(self.anchors, sizes), 1, 0)

    def priors(self, height: int, width: int) -> Priors:
        """Return cell, level and anchor of each row of ``predict`` for an input of ``height`` x
        ``width`` pixels.
        """
        sizes = np.array(self.anchors, np.float32).reshape(len(self.strides), -1, 2)
        return grid_priors(height, width, self.strides, sizes, anchors_fastest=False)

    def to_deploy(self) -> "SimpleYOLODeploy":
        """Return a new cell for inference with folded batch norms."""
        return SimpleYOLODeploy(self)


class SimpleYOLODeploy(DeployForm):
    """The detector for inference; ``construct`` returns the raw heads like the training form."""

    def __init__(self, source: SimpleYOLO):
        super().__init__(
            source,
            SimpleYOLO(
                source.facts,
                source.num_classes,
                input_size=source.input_spec.size,
                **source.architecture,
            ),
        )
        self.anchors, self.assignment = source.anchors, source.assignment

    def construct(self, images: Tensor) -> Heads:
        return self.network(images)


def _computed_anchor_rows(
    anchors: tuple[tuple[float, float], ...], sizes: tuple[tuple[int, int], ...]
) -> Tensor:
    """Compute ``_anchor_rows`` with operators."""
    per_level, parts = len(anchors) // len(sizes), ()
    for level, (height, width) in enumerate(sizes):
        ones = ops.ones((1, height * width), float32)
        own = anchors[level * per_level : (level + 1) * per_level]
        parts = parts + tuple(
            ops.cat((ones * across, ones * down, ones * width, ones * height))
            for across, down in own
        )
    return ops.cat(parts, 1)


@in_any_size(_computed_anchor_rows)
@ops.constexpr
def _anchor_rows(
    anchors: tuple[tuple[float, float], ...], sizes: tuple[tuple[int, int], ...]
) -> Tensor:
    """Return width and height of every prediction's anchor, and the cells across and down its
    level, (4, A).
    """
    per_level, parts = len(anchors) // len(sizes), []
    for level, (height, width) in enumerate(sizes):
        own = np.array(anchors[level * per_level : (level + 1) * per_level], np.float64)
        rows = np.column_stack((own, np.tile((width, height), (per_level, 1))))
        parts.append(np.repeat(rows, height * width, 0))
    return Tensor(np.concatenate(parts).T.astype(np.float32))


def _tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent; ``ops.tanh`` on a CPU has errors up to 1e-4, which matter if it spans a
    whole image.
    """
    return 2.0 * ops.sigmoid(2.0 * x) - 1.0


def _check(backbone: str, num_classes: int, sparsity: float, assignment: str, act: str) -> None:
    """Check the arguments of ``SimpleYOLO``. Raises: ValueError."""
    if num_classes < 1:
        raise ValueError(f"simple_yolo: num_classes must be at least 1, got {num_classes}")
    if not 0 < sparsity <= (WIDEST_DARKNET if backbone == "darknet" else 1):
        raise ValueError(
            "simple_yolo: channel_sparsity must be above 0, and at most 1 for a ResNet and "
            f"{WIDEST_DARKNET} for a darknet, got {sparsity} for {backbone}"
        )
    if assignment not in ASSIGNMENTS:
        raise ValueError(
            f"simple_yolo: assignment must be one of {ASSIGNMENTS}, got {assignment!r}"
        )
    if act not in ACTIVATIONS:
        raise ValueError(f"simple_yolo: act must be one of {tuple(ACTIVATIONS)}, got {act!r}")


def _built(
    name: str,
    num_classes: int,
    *,
    channel_sparsity: float,
    assignment: str,
    act: str,
    anchors: Sequence[Sequence[float]] | None,
    input_size: tuple[int, int] | None,
) -> SimpleYOLO:
    """Build the model of a variant, with its defaults."""
    facts = VARIANTS[name]
    return SimpleYOLO(
        facts.scale,
        num_classes,
        channel_sparsity=channel_sparsity,
        assignment=assignment,
        act=act,
        anchors=COCO_ANCHORS if anchors is None else anchors,
        input_size=input_size or facts.input_size,
    )


@register_model
def simple_yolo_resnet18(
    num_classes: int = 20,
    *,
    channel_sparsity: float = DEFAULT_WIDTH,
    assignment: str = "nearby_grid",
    act: str = "relu",
    anchors: Sequence[Sequence[float]] | None = None,
    input_size: tuple[int, int] | None = None,
) -> SimpleYOLO:
    """ResNet-18 backbone; ``variants`` has the facts about all backbones.

    Args:
        num_classes: classes of the head.
        channel_sparsity, assignment, act: as in ``SimpleYOLO``.
        anchors: (width, height) pairs in pixels, those of stride 8 first; None means COCO's.
        input_size: default (height, width) of the input; None means the published one.
    """
    return _built(
        "simple_yolo_resnet18",
        num_classes,
        channel_sparsity=channel_sparsity,
        assignment=assignment,
        act=act,
        anchors=anchors,
        input_size=input_size,
    )


@register_model
def simple_yolo_resnet34(
    num_classes: int = 20,
    *,
    channel_sparsity: float = DEFAULT_WIDTH,
    assignment: str = "nearby_grid",
    act: str = "relu",
    anchors: Sequence[Sequence[float]] | None = None,
    input_size: tuple[int, int] | None = None,
) -> SimpleYOLO:
    """ResNet-34 backbone. Args as ``simple_yolo_resnet18``."""
    return _built(
        "simple_yolo_resnet34",
        num_classes,
        channel_sparsity=channel_sparsity,
        assignment=assignment,
        act=act,
        anchors=anchors,
        input_size=input_size,
    )


@register_model
def simple_yolo_resnet50(
    num_classes: int = 20,
    *,
    channel_sparsity: float = DEFAULT_WIDTH,
    assignment: str = "nearby_grid",
    act: str = "relu",
    anchors: Sequence[Sequence[float]] | None = None,
    input_size: tuple[int, int] | None = None,
) -> SimpleYOLO:
    """ResNet-50 backbone. Args as ``simple_yolo_resnet18``."""
    return _built(
        "simple_yolo_resnet50",
        num_classes,
        channel_sparsity=channel_sparsity,
        assignment=assignment,
        act=act,
        anchors=anchors,
        input_size=input_size,
    )


@register_model
def simple_yolo_resnet101(
    num_classes: int = 20,
    *,
    channel_sparsity: float = DEFAULT_WIDTH,
    assignment: str = "nearby_grid",
    act: str = "relu",
    anchors: Sequence[Sequence[float]] | None = None,
    input_size: tuple[int, int] | None = None,
) -> SimpleYOLO:
    """ResNet-101 backbone. Args as ``simple_yolo_resnet18``."""
    return _built(
        "simple_yolo_resnet101",
        num_classes,
        channel_sparsity=channel_sparsity,
        assignment=assignment,
        act=act,
        anchors=anchors,
        input_size=input_size,
    )


@register_model
def simple_yolo_darknet(
    num_classes: int = 20,
    *,
    channel_sparsity: float = DEFAULT_WIDTH,
    assignment: str = "nearby_grid",
    act: str = "relu",
    anchors: Sequence[Sequence[float]] | None = None,
    input_size: tuple[int, int] | None = None,
) -> SimpleYOLO:
    """Darknet-53 backbone. Args as ``simple_yolo_resnet18``."""
    return _built(
        "simple_yolo_darknet",
        num_classes,
        channel_sparsity=channel_sparsity,
        assignment=assignment,
        act=act,
        anchors=anchors,
        input_size=input_size,
    )

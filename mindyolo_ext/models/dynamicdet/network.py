"""DynamicDet: two cascaded detectors of the YOLOv7 type, and a router that detects the images for
which the first one suffices.

The first detector consists of backbone and head; the second one of backbone2, which reads the image
and all maps of backbone, and head2. The router reads the maps of backbone. Layer names follow
YOLOv7's drawings; the original numbers its layers, and ``names.py`` translates.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from mindyolo_ext.backend import Tensor, float32, nn, ops
from mindyolo_ext.layers.conv import ConvBNAct, GivenConv, conv2d
from mindyolo_ext.layers.deploy import DeployForm
from mindyolo_ext.layers.elan import ELAN, Down, ImplicitConv
from mindyolo_ext.layers.grid import cell_positions
from mindyolo_ext.layers.heads import in_float32
from mindyolo_ext.layers.rep import RepVGGBlock
from mindyolo_ext.layers.resize import double, space_to_depth
from mindyolo_ext.layers.spp import SPPCSPC
from mindyolo_ext.models.dynamicdet.variants import (
    ANCHORS_PER_LEVEL,
    VARIANTS,
    Scale,
    official_input,
)
from mindyolo_ext.models.registry import register_model
from mindyolo_ext.priors import Priors, checked_anchors, grid_priors

ROUTER_REDUCTION = 4
LINKS = 5  # maps of backbone that backbone2 reads

Maps = tuple[Tensor, ...]


class Stage(nn.Cell):
    """Downsampling by two, followed by an ELAN block.

    Args:
        in_channels: channels of the input.
        width, out_channels: of the ELAN block.
        depth: of the ELAN block.
        pooled: downsample with ``Down`` instead of one convolution of ``halved`` channels.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H / 2, W / 2). ``fused`` (B, halved, H / 2, W
        / 2) is added before the ELAN block; ``beside`` as in ``Down``.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        *,
        depth: int,
        halved: int,
        pooled: bool,
    ):
        super().__init__()
        self.pooled = pooled
        self.down = (
            Down(in_channels, halved // 2)
            if pooled
            else ConvBNAct(in_channels, halved, 3, stride=2)
        )
        self.elan = ELAN(halved, width, out_channels, depth=depth, dense=False)

    def construct(
        self, x: Tensor, fused: Tensor | None = None, beside: Tensor | None = None
    ) -> Tensor:
        x = self.down(x, beside) if self.pooled else self.down(x)
        return self.elan(x if fused is None else x + fused)


def _stem(scale: Scale) -> nn.CellList:
    """Full size, half the size, half the size; P6: the re-organized image has half the size
    already.
    """
    if scale.p6:
        return nn.CellList([ConvBNAct(12, scale.stem[0], 3)])
    first, second, third = scale.stem
    return nn.CellList(
        [ConvBNAct(3, first, 3), ConvBNAct(first, second, 3, stride=2), ConvBNAct(second, third, 3)]
    )


def _stages(scale: Scale) -> nn.CellList:
    """Build the stages of a backbone, stride 4 first."""
    stages, channels = [], scale.stem[-1]
    for i, (width, out_channels) in enumerate(scale.stages):
        pooled = i > 0 and not scale.p6
        stages.append(
            Stage(
                channels,
                width,
                out_channels,
                depth=scale.depth,
                halved=_halved(scale, i),
                pooled=pooled,
            )
        )
        channels = out_channels
    return nn.CellList(stages)


def _halved(scale: Scale, stage: int) -> int:
    """Return the channels after the downsampling of a stage."""
    if scale.p6:
        return scale.stages[stage][1]
    return 2 * scale.stem[-1] if stage == 0 else scale.stages[stage - 1][1]


class Backbone(nn.Cell):
    """The first backbone.

    Shape: images (B, 3, H, W) -> the map of the stem (stride 2), then those of the stages, strides
        4, 8, 16, 32 and with P6 64.
    """

    def __init__(self, scale: Scale):
        super().__init__()
        self.p6 = scale.p6
        self.stem = _stem(scale)
        self.stages = _stages(scale)

    def construct(self, images: Tensor) -> Maps:
        x = space_to_depth(images) if self.p6 else images
        for conv in self.stem:
            x = conv(x)
        maps = (x,)
        for stage in self.stages:
            x = stage(x)
            maps = maps + (x,)
        return maps


class DualBackbone(nn.Cell):
    """The second backbone: like the first, but before each ELAN block it adds the first backbone's
    maps of that stride and all larger ones, through 1 x 1 convolutions.

    Args:
        scale: the variant.

    Shape: images (B, 3, H, W) and the last five maps of ``Backbone`` -> one map per level of the
        head, stride 8 first.
    Source: original ``cfg/*.yaml``, ``CBLinear`` and ``CBFuse`` of ``models/common.py``;
        arXiv:2107.00420.
    """

    def __init__(self, scale: Scale):
        super().__init__()
        self.p6, self.levels, self.beside = scale.p6, scale.levels, scale.beside
        outs = [out for _, out in scale.stages]
        sources = outs if scale.p6 else [scale.stem[-1], *outs]
        chunks = [_halved(scale, i) for i in range(len(outs))]
        chunks = chunks if scale.p6 else [scale.stem[1], *chunks]
        self.bounds = tuple(int(n) for n in np.cumsum([0, *chunks]))
        # Map i has i + 1 chunks of channels, one for each place where it is added
        self.links = nn.CellList(
            [
                conv2d(source, self.bounds[i + 1], 1, has_bias=True)
                for i, source in enumerate(sources)
            ]
        )
        self.chunks = nn.CellList([GivenConv(channels) for channels in chunks])
        self.stem = _stem(scale)
        self.stages = _stages(scale)

    def construct(self, images: Tensor, features: Maps) -> Maps:
        x = self.stem[0](space_to_depth(images) if self.p6 else images)
        place = 0
        if not self.p6:
            x = self.stem[2](self.stem[1](x) + self._fused(features, 0))
            place = 1
        maps = ()
        for i in range(len(self.stages)):
            beside = features[i] if i == self.beside else None
            x = self.stages[i](x, self._fused(features, place + i), beside)
            maps = maps + (x,)
        return maps[-self.levels :]

    def _fused(self, features: Maps, place: int) -> Tensor:
        """Sum chunk ``place`` of the features from there on, upsampled to the size of the first of
        them.

        Neighbors differ by a factor of two, so the partial sum is upsampled step by step, and most
        of the work is done on small maps.
        """
        total = self._chunk(features, LINKS - 1, place)
        for i in range(LINKS - 2, place - 1, -1):
            total = double(total) + self._chunk(features, i, place)
        return total

    def _chunk(self, features: Maps, i: int, place: int) -> Tensor:
        """Compute the channels of link ``i`` that are added at ``place``; convolving only them
        saves splitting a map.
        """
        begin, end, link = self.bounds[place], self.bounds[place + 1], self.links[i]
        return self.chunks[place](features[i], link.weight[begin:end], link.bias[begin:end])


class Head(nn.Cell):
    """A spatial pyramid, top-down and bottom-up paths of ELAN blocks, and one prediction layer per
    level.

    Args:
        scale: the variant.
        num_classes: K.

    Shape: maps of a backbone, stride 8 first -> per level (B, 3 (5 + K), h, w): anchor slowest,
        then x, y, w, h, objectness, classes; logits.
    """

    def __init__(self, scale: Scale, num_classes: int):
        super().__init__()
        sources = [out for _, out in scale.stages][-scale.levels :]
        self.levels = scale.levels
        outs = [out for _, out in scale.neck]
        coarse_first = range(self.levels - 2, -1, -1)

        def elan(level: int, in_channels: int) -> ELAN:
            return ELAN(in_channels, *scale.neck[level], depth=scale.depth, dense=scale.dense)

        self.spp = SPPCSPC(sources[-1], outs[-1])
        self.laterals = nn.CellList([ConvBNAct(outs[i + 1], outs[i]) for i in coarse_first])
        self.taps = nn.CellList([ConvBNAct(sources[i], outs[i]) for i in coarse_first])
        self.top_down = nn.CellList([elan(i, 2 * outs[i]) for i in coarse_first])
        if scale.p6:
            self.down = nn.CellList(
                [ConvBNAct(outs[i], outs[i + 1], 3, stride=2) for i in range(self.levels - 1)]
            )
            joined = [2 * outs[i + 1] for i in range(self.levels - 1)]
        else:
            self.down = nn.CellList([Down(outs[i], outs[i]) for i in range(self.levels - 1)])
            joined = [2 * outs[i] + outs[i + 1] for i in range(self.levels - 1)]
        self.bottom_up = nn.CellList([elan(i + 1, joined[i]) for i in range(self.levels - 1)])
        last: Callable[..., nn.Cell] = _rep_conv if scale.reparameterised else _three_by_three
        self.outs = nn.CellList([last(out, 2 * out) for out in outs])
        self.detect = nn.CellList(
            [ImplicitConv(2 * out, ANCHORS_PER_LEVEL * (5 + num_classes)) for out in outs]
        )

    def construct(self, maps: Maps) -> Maps:
        x = self.spp(maps[-1])
        kept = (x,)  # coarse first
        for i in range(self.levels - 1):
            tap = self.taps[i](maps[self.levels - 2 - i])
            x = self.top_down[i](ops.cat((tap, double(self.laterals[i](x))), 1))
            kept = kept + (x,)
        fine_first = (x,)
        for i in range(self.levels - 1):
            x = self.bottom_up[i](ops.cat((self.down[i](x), kept[self.levels - 2 - i]), 1))
            fine_first = fine_first + (x,)
        heads = ()
        for i in range(self.levels):
            heads = heads + (self.detect[i](self.outs[i](fine_first[i])),)
        return in_float32(heads)


def _three_by_three(in_channels: int, out_channels: int) -> ConvBNAct:
    return ConvBNAct(in_channels, out_channels, 3)


def _rep_conv(in_channels: int, out_channels: int) -> RepVGGBlock:
    return RepVGGBlock(in_channels, out_channels, act=nn.SiLU)


class AdaptiveRouter(nn.Cell):
    """Predict how easy an image is, from the means of the first backbone's maps.

    Shape: maps (B, c_i, ., .) -> logits (B,); their sigmoid is near 1 for an image for which the
        first detector suffices.
    Source: arXiv:2304.05552; original ``models/common.py``.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.layer1 = conv2d(channels, channels // ROUTER_REDUCTION, 1, has_bias=True)
        self.layer2 = conv2d(channels // ROUTER_REDUCTION, 1, 1, has_bias=True)

    def construct(self, maps: Maps) -> Tensor:
        hidden = ops.relu(self.layer1(self.pooled(maps)))
        return ops.cast(ops.reshape(self.layer2(hidden), (-1,)), float32)

    def pooled(self, maps: Maps) -> Tensor:
        """Compute the input of the two layers, (B, sum of c_i, 1, 1)."""
        means = ()
        for x in maps:
            batch, channels, height, width = x.shape
            cells = ops.reshape(ops.cast(x, float32), (batch, channels, height * width))
            means = means + (ops.mean(cells, 2),)
        means = ops.cat(means, 1)
        return ops.reshape(means, means.shape + (1, 1))


class DynamicDet(nn.Cell):
    """The detector in training form.

    Args:
        scale: the variant.
        num_classes: K.
        router: include the router (training step 2, inference); without it, the cascade of training
            step 1.
        anchors: (width, height) in pixels, three per level, finest level first.
        input_size: default (height, width) of the input, multiples of the largest stride.

    Shape: images (B, 3, H, W) -> the heads' logits of the first detector, stride 8 first, then
        those of the second, each (B, 3 (5 + K), h, w); with a router last ``easiness`` (B,).
    Raises: ValueError for anchors that are not three positive pairs per level.
    Source: arXiv:2304.05552; original ``models/yolo.py``.

    It is a ROUTED model: ``glance`` computes the easiness of each image and the inputs of ``first``
    and ``second``, so that a program can run only one of them. ``predict`` runs both and chooses.
    Images with an easiness below ``dy_thres`` take the second exit. Without a router every image
    has easiness 0, so the cascade is evaluated by its second detector, unless ``dy_thres`` is 0.
    """

    family = "dynamicdet"

    def __init__(
        self,
        scale: Scale,
        num_classes: int,
        *,
        router: bool,
        anchors: Sequence[Sequence[float]],
        input_size: tuple[int, int],
    ):
        super().__init__()
        levels = scale.levels
        self.scale, self.num_classes, self.has_router = scale, num_classes, router
        self.strides = tuple(8 * 2**i for i in range(levels))
        self.anchors = checked_anchors(anchors, levels, "dynamicdet", per_level=ANCHORS_PER_LEVEL)
        self.architecture = {"router": router, "anchors": [list(pair) for pair in self.anchors]}
        self.input_spec = official_input(input_size, self.strides[-1])
        self.dy_thres = 0.5
        if router:
            self.router = AdaptiveRouter(scale.stem[-1] + sum(out for _, out in scale.stages))
        self.backbone = Backbone(scale)
        self.backbone2 = DualBackbone(scale)
        self.head = Head(scale, num_classes)
        self.head2 = Head(scale, num_classes)
        for head in (self.head, self.head2):
            for stride, level in zip(self.strides, head.detect):
                _prior_biases(level.conv, stride, num_classes)
        self.anchor_sizes = tuple(
            Tensor(pairs.T.reshape(1, 2, ANCHORS_PER_LEVEL, 1), float32)
            for pairs in np.split(np.array(self.anchors, np.float64), levels)
        )

    def construct(self, images: Tensor) -> Maps:
        maps = self.backbone(images)
        features = maps[-LINKS:]
        heads = self.first_heads(features) + self.second_heads(images, features)
        return heads + (ops.sigmoid(self.router(maps)),) if self.has_router else heads

    def glance(self, images: Tensor) -> tuple[Tensor, Maps]:
        """Compute the easiness (B,), and the maps that the two exits read."""
        maps = self.backbone(images)
        easiness = (
            ops.sigmoid(self.router(maps))
            if self.has_router
            else ops.zeros((images.shape[0],), float32)
        )
        return easiness, maps[-LINKS:]

    def first_heads(self, features: Maps) -> Maps:
        """Compute the logits of the first detector, level by level."""
        return self.head(features[-len(self.strides) :])

    def second_heads(self, images: Tensor, features: Maps) -> Maps:
        """Compute the logits of the second detector, level by level."""
        return self.head2(self.backbone2(images, features))

    def first(self, features: Maps) -> tuple[Tensor, Tensor]:
        """Compute boxes (B, A, 4) and scores (B, A, K) of the first detector."""
        return self.boxes_and_scores(self.first_heads(features))

    def second(self, images: Tensor, features: Maps) -> tuple[Tensor, Tensor]:
        """Compute boxes (B, A, 4) and scores (B, A, K) of the second detector."""
        return self.boxes_and_scores(self.second_heads(images, features))

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (B, A, 4) xyxy in pixels of the input and scores (B, A, K) = objectness *
        class, from each image's exit.

        Rows: stride 8 first; inside a level anchor by anchor, cells row by row.
        """
        easiness, features = self.glance(images)
        if not self.has_router or self.dy_thres in (0, 1):
            return self.second(images, features) if self.dy_thres > 0 else self.first(features)
        hard = ops.reshape(easiness < self.dy_thres, (-1, 1, 1))
        pairs = zip(self.second(images, features), self.first(features))
        return tuple(ops.where(hard, second, first) for second, first in pairs)

    def boxes_and_scores(self, heads: Maps) -> tuple[Tensor, Tensor]:
        """Compute the result of ``predict`` from the logits of one detector."""
        boxes, scores = (), ()
        for level in range(len(self.strides)):
            center, size, probabilities = self._decoded_level(heads[level], level)
            half = size * 0.5
            boxes = boxes + (self._rows(ops.cat((center - half, center + half), 1)),)
            score = probabilities[:, 0:1]
            score = score if self.num_classes == 1 else score * probabilities[:, 1:]
            scores = scores + (self._rows(score),)
        return ops.cat(boxes, 1), ops.cat(scores, 1)

    def decoded(self, heads: Maps) -> Tensor:
        """Decode the logits of one detector to (B, A, 5 + K): cx, cy, w, h in pixels, objectness
        and class probabilities.
        """
        rows = ()
        for level in range(len(self.strides)):
            rows = rows + (self._rows(ops.cat(self._decoded_level(heads[level], level), 1)),)
        return ops.cat(rows, 1)

    def priors(self, height: int, width: int) -> Priors:
        """Return cell, level and anchor of each row of ``predict`` for an input of ``height`` x
        ``width`` pixels.
        """
        sizes = np.array(self.anchors, np.float32).reshape(len(self.strides), -1, 2)
        return grid_priors(height, width, self.strides, sizes, anchors_fastest=False)

    def to_deploy(self) -> "DynamicDetDeploy":
        """Return a new cell for inference, with folded batch norms and merged RepConv and implicit
        layers.
        """
        return DynamicDetDeploy(self)

    def _decoded_level(self, logits: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return centers (B, 2, 3, cells), sizes (B, 2, 3, cells) in pixels and probabilities (B, 1
        + K, 3, cells).
        """
        batch, _, height, width = logits.shape
        values = ops.reshape(
            ops.cast(logits, float32), (batch, ANCHORS_PER_LEVEL, -1, height * width)
        )
        values = ops.transpose(ops.sigmoid(values), (0, 2, 1, 3))
        grid = ops.reshape(cell_positions(height, width), (1, 2, 1, height * width))
        center = (2.0 * values[:, 0:2] - 0.5 + grid) * self.strides[level]
        size = 2.0 * values[:, 2:4]
        return center, size * size * self.anchor_sizes[level], values[:, 4:]

    def _rows(self, x: Tensor) -> Tensor:
        """(B, n, 3, cells) -> (B, 3 cells, n)."""
        batch, values, anchors, cells = x.shape
        return ops.reshape(ops.transpose(x, (0, 2, 3, 1)), (batch, anchors * cells, values))


class DynamicDetDeploy(DeployForm):
    """The detector for inference, routed like the training form.

    Shape: images (B, 3, H, W) -> as the training form.
    """

    def __init__(self, source: DynamicDet):
        network = DynamicDet(
            source.scale,
            source.num_classes,
            router=source.has_router,
            anchors=source.anchors,
            input_size=source.input_spec.size,
        )
        network.dy_thres = source.dy_thres
        super().__init__(source, network)
        self.has_router, self.anchors = source.has_router, source.anchors

    def construct(self, images: Tensor) -> Maps:
        return self.network(images)

    def glance(self, images: Tensor) -> tuple[Tensor, Maps]:
        """See ``DynamicDet.glance``."""
        return self.network.glance(images)

    def first(self, features: Maps) -> tuple[Tensor, Tensor]:
        """See ``DynamicDet.first``."""
        return self.network.first(features)

    def second(self, images: Tensor, features: Maps) -> tuple[Tensor, Tensor]:
        """See ``DynamicDet.second``."""
        return self.network.second(images, features)

    def first_heads(self, features: Maps) -> Maps:
        """See ``DynamicDet.first_heads``."""
        return self.network.first_heads(features)

    def second_heads(self, images: Tensor, features: Maps) -> Maps:
        """See ``DynamicDet.second_heads``."""
        return self.network.second_heads(images, features)


def _prior_biases(conv: nn.Conv2d, stride: int, num_classes: int) -> None:
    """Initialize biases for about eight objects per 640 x 640 image and equally likely classes."""
    bias = conv.bias.asnumpy().reshape(ANCHORS_PER_LEVEL, 5 + num_classes).copy()
    bias[:, 4] += math.log(8 / (640 / stride) ** 2)
    bias[:, 5:] += math.log(0.6 / (num_classes - 0.99))
    conv.bias.set_data(Tensor(bias.reshape(-1), float32))


def _built(
    name: str,
    num_classes: int,
    router: bool,
    anchors: Sequence[Sequence[float]] | None,
    input_size: tuple[int, int] | None,
) -> DynamicDet:
    """Build a model after checks. Raises: ValueError if there is no class."""
    if num_classes < 1:
        raise ValueError(f"dynamicdet: num_classes must be at least 1, got {num_classes}")
    facts = VARIANTS[name]
    return DynamicDet(
        facts.scale,
        num_classes,
        router=router,
        anchors=facts.scale.anchors if anchors is None else anchors,
        input_size=input_size or facts.input_size,
    )


@register_model
def dy_yolov7(
    num_classes: int = 80,
    *,
    router: bool = True,
    anchors: Sequence[Sequence[float]] | None = None,
    input_size: tuple[int, int] | None = None,
) -> DynamicDet:
    """Dy-YOLOv7; ``variants`` has the facts about all scales.

    Args:
        num_classes: classes of the heads.
        router: include the router, as needed for training step 2 and inference; False builds the
            cascade of training step 1.
        anchors: (width, height) pairs in pixels, three per level, finest level first; None means
            the original's.
        input_size: default (height, width) of the input; None means the published one.
    """
    return _built("dy_yolov7", num_classes, router, anchors, input_size)


@register_model
def dy_yolov7x(
    num_classes: int = 80,
    *,
    router: bool = True,
    anchors: Sequence[Sequence[float]] | None = None,
    input_size: tuple[int, int] | None = None,
) -> DynamicDet:
    """Dy-YOLOv7-X. Args as ``dy_yolov7``."""
    return _built("dy_yolov7x", num_classes, router, anchors, input_size)


@register_model
def dy_yolov7_w6(
    num_classes: int = 80,
    *,
    router: bool = True,
    anchors: Sequence[Sequence[float]] | None = None,
    input_size: tuple[int, int] | None = None,
) -> DynamicDet:
    """Dy-YOLOv7-W6, with a fourth level of stride 64. Args as ``dy_yolov7``."""
    return _built("dy_yolov7_w6", num_classes, router, anchors, input_size)


@register_model
def dy_yolov7_w0125(
    num_classes: int = 80,
    *,
    router: bool = True,
    anchors: Sequence[Sequence[float]] | None = None,
    input_size: tuple[int, int] | None = None,
) -> DynamicDet:
    """Dy-YOLOv7 with an eighth of the channels, for quick checks. Args as ``dy_yolov7``."""
    return _built("dy_yolov7_w0125", num_classes, router, anchors, input_size)

"""Gold-YOLO: a RepVGG or CSP backbone, gather-and-distribute in place of a feature pyramid, and an
anchor-free head.

Modules have the original's names, so a checkpoint's tensors need no mapping.
"""

from functools import partial

import numpy as np

from mindyolo_ext.backend import Tensor, float32, nn, ops
from mindyolo_ext.backend.initial import constant, he_normal
from mindyolo_ext.layers.activation import sole_reader
from mindyolo_ext.layers.conv import ConvBNAct, Product, conv2d
from mindyolo_ext.layers.deploy import DeployForm
from mindyolo_ext.layers.distances import DistanceBins
from mindyolo_ext.layers.grid import cell_grid
from mindyolo_ext.layers.heads import DistanceHead, in_float32
from mindyolo_ext.layers.rep import BepC3, Block, ConvWrapper, RepBlock, RepVGGBlock
from mindyolo_ext.layers.resize import adaptive_average, bilinear
from mindyolo_ext.layers.spp import SPPF, SimCSPSPPF
from mindyolo_ext.models.gold_yolo.variants import (
    FORMS,
    REG_MAX,
    STRIDES,
    VARIANTS,
    Scale,
    published_input,
)
from mindyolo_ext.models.registry import register_model
from mindyolo_ext.priors import Priors, grid_priors

# Width and height in pixels of the anchors of fuse_ab's second branch, by level.
ANCHORS = (
    ((10, 13), (19, 19), (33, 23)),
    ((30, 61), (59, 59), (59, 119)),
    ((116, 90), (185, 185), (373, 326)),
)

Features = tuple[Tensor, Tensor, Tensor]

# Transformer and injections use PyTorch's default constants of batch norm
TorchNormConv = partial(ConvBNAct, act=nn.Identity, eps=1e-5, momentum=0.9)
SimConv = partial(ConvBNAct, act=nn.ReLU)


def _block(scale: Scale) -> Block:
    """Return the builder of a scale's 3 x 3 blocks."""
    return ConvWrapper if scale.silu else RepVGGBlock


def _stage(scale: Scale, channels: int, repeats: int) -> nn.Cell:
    """Build ``repeats`` blocks of equal width, as a chain or inside a CSP stage."""
    if scale.csp:
        act = nn.SiLU if scale.silu else nn.ReLU
        hidden = int(channels * scale.csp)
        return BepC3(channels, hidden, repeats, block=_block(scale), act=act)
    return RepBlock([_block(scale)(channels, channels) for _ in range(repeats)])


class Backbone(nn.Cell):
    """EfficientRep (n, s) or CSPBepBackbone (m, l).

    Shape: image (B, 3, H, W) -> C2 (B, 128 w, H / 4, .), C3 (B, 256 w, H / 8, .), C4 (B, 512 w, H /
        16, .), C5 (B, 1024 w, H / 32, .).
    Source: original ``yolov6/models/efficientrep.py``.
    """

    def __init__(self, scale: Scale):
        super().__init__()
        widths = [scale.channels(base) for base in (64, 128, 256, 512, 1024)]
        repeats = [scale.repeats(base) for base in (6, 12, 18, 6)]
        pooling = (
            SPPF(widths[4], nn.SiLU if scale.silu else nn.ReLU)
            if scale.csp
            else SimCSPSPPF(widths[4])
        )

        def stage(number: int, *more: nn.Cell) -> nn.SequentialCell:
            before, after = widths[number - 2 : number]
            return nn.SequentialCell(
                _block(scale)(before, after, stride=2),
                _stage(scale, after, repeats[number - 2]),
                *more,
            )

        self.stem = _block(scale)(3, widths[0], stride=2)
        self.ERBlock_2 = stage(2)
        self.ERBlock_3 = stage(3)
        self.ERBlock_4 = stage(4)
        self.ERBlock_5 = stage(5, pooling)

    def construct(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        c2 = self.ERBlock_2(self.stem(image))
        c3 = self.ERBlock_3(c2)
        c4 = self.ERBlock_4(c3)
        return c2, c3, c4, self.ERBlock_5(c4)


class LocalFusion(nn.Cell):
    """Fuse the level below, the level itself and the level above at the size of the level (LAF).

    Shape: below (B, C, 2 h, 2 w), level (B, in_channels, h, w), above (B, C, h / 2, w / 2) -> (B,
        C, h, w).
    Source: original ``gold_yolo/common.py``, SimFusion_3in.
    """

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.cv1 = SimConv(in_channels, channels)
        self.cv_fuse = SimConv(3 * channels, channels)

    def construct(self, below: Tensor, level: Tensor, above: Tensor) -> Tensor:
        size = level.shape[2:]
        return self.cv_fuse(
            ops.cat((adaptive_average(below, size), self.cv1(level), bilinear(above, size)), 1)
        )


class Injection(nn.Cell):
    """Inject global information into a level: it gates the local map and is added to it.

    Shape: local (B, C, H, W), shared (B, C, h, w) -> (B, C, H, W).
    Source: original ``gold_yolo/transformer.py``, InjectionMultiSum_Auto_pool.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.local_embedding = TorchNormConv(channels, channels)
        self.global_embedding = TorchNormConv(channels, channels)
        self.global_act = TorchNormConv(channels, channels)
        for conv in (self.local_embedding, self.global_embedding, self.global_act):
            conv.conv.weight.set_data(he_normal(conv.conv.weight.shape))

    def construct(self, local: Tensor, shared: Tensor) -> Tensor:
        size = local.shape[2:]
        gate, value = self.global_act(shared), self.global_embedding(shared)
        if size[0] < shared.shape[2]:  # as in the original, which does not resize the gate here
            gate, value = adaptive_average(gate, size), adaptive_average(value, size)
        else:
            gate, value = (
                bilinear(ops.clamp(gate + 3.0, 0.0, 6.0) / 6.0, size),
                bilinear(value, size),
            )
        return self.local_embedding(local) * gate + value


class LinearConv(nn.Cell):
    """1 x 1 convolution and batch norm.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.c = conv2d(in_channels, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-5, momentum=0.9)

    def construct(self, x: Tensor) -> Tensor:
        return self.bn(self.c(x))


class Attention(nn.Cell):
    """Multi-head self-attention over the cells, with 1 x 1 convolutions and without scaled
    products.

    Shape: (B, C, H, W) -> the same.
    Source: original ``gold_yolo/transformer.py``; arXiv:2204.05525.
    """

    def __init__(self, channels: int, heads: int, key_channels: int = 8):
        super().__init__()
        self.heads = heads
        self.to_q = LinearConv(channels, heads * key_channels)
        self.to_k = LinearConv(channels, heads * key_channels)
        self.to_v = LinearConv(channels, heads * key_channels * 2)
        self.proj = nn.SequentialCell(nn.ReLU6(), LinearConv(heads * key_channels * 2, channels))
        self.product = Product()
        gamma = self.proj[1].bn.gamma
        gamma.set_data(constant(gamma.shape, 0.0))

    def construct(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        cells = height * width
        query = ops.reshape(self.to_q(x), (batch, self.heads, -1, cells))
        key = ops.reshape(self.to_k(x), (batch, self.heads, -1, cells))
        value = ops.reshape(self.to_v(x), (batch, self.heads, -1, cells))
        likeness = ops.cast(self.product(ops.transpose(query, (0, 1, 3, 2)), key), float32)
        attention = ops.softmax(likeness, -1)
        out = self.product(value, ops.transpose(attention, (0, 1, 3, 2)))
        return self.proj(ops.reshape(out, (batch, -1, height, width)))


class FeedForward(nn.Cell):
    """1 x 1, 3 x 3 depthwise and 1 x 1 convolution.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = LinearConv(channels, channels)
        self.dwconv = conv2d(channels, channels, 3, group=channels, has_bias=True)
        self.act = sole_reader(nn.ReLU6())
        self.fc2 = LinearConv(channels, channels)

    def construct(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class TransformerBlock(nn.Cell):
    """Attention and feed-forward, each added to its input.

    Shape: x (B, C, H, W), optional factors of the two branches (B,) each -> (B, C, H, W).
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.attn = Attention(channels, heads)
        self.mlp = FeedForward(channels)

    def construct(
        self, x: Tensor, keep_attention: Tensor | None = None, keep_mlp: Tensor | None = None
    ) -> Tensor:
        x = x + self._kept(self.attn(x), keep_attention)
        return x + self._kept(self.mlp(x), keep_mlp)

    def _kept(self, branch: Tensor, keep: Tensor | None) -> Tensor:
        return branch if keep is None else branch * ops.reshape(keep, (-1, 1, 1, 1))


class HighFusion(nn.Cell):
    """Transformer blocks on the coarsest map.

    Args:
        channels: channels of the map.
        blocks, heads: of the transformer.

    Shape: x (B, C, H, W), keep (2 * (blocks - 1), B) or None, see ``GoldYOLO`` -> (B, C, H, W).
    """

    def __init__(self, channels: int, blocks: int, heads: int):
        super().__init__()
        self.transformer_blocks = nn.CellList(
            [TransformerBlock(channels, heads) for _ in range(blocks)]
        )
        self.rest = tuple(range(1, blocks))

    def construct(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.transformer_blocks[0](x)
        for i in self.rest:
            if keep is None:
                x = self.transformer_blocks[i](x)
            else:
                x = self.transformer_blocks[i](x, keep[2 * i - 2], keep[2 * i - 1])
        return x


class GatherDistribute(nn.Cell):
    """The neck: gathers and fuses all levels and distributes the result to each of them, once low,
    once high.

    Shape: C2..C5 of the backbone -> P3 (B, 128 w, H / 8, .), N4 (B, 256 w, H / 16, .), N5 (B, 512
        w, H / 32, .).
    Source: arXiv:2309.11331; original ``gold_yolo/reppan.py``.
    """

    def __init__(self, scale: Scale):
        super().__init__()
        c2, c3, c4, c5 = (scale.channels(base) for base in (128, 256, 512, 1024))
        p3, p4, n4, n5 = (scale.channels(base) for base in (128, 256, 256, 512))
        repeats, block, blocks = scale.repeats(12), _block(scale), scale.transformer[0]
        self.low_channels, self.high_channels = (p4, p3), (n4, n5)
        self.p4_feeds_n5 = scale.silu
        self.low_IFM = nn.SequentialCell(
            ConvBNAct(c2 + c3 + c4 + c5, scale.gather),
            *[block(scale.gather, scale.gather) for _ in range(3)],
            ConvBNAct(scale.gather, p4 + p3),
        )
        self.reduce_layer_c5 = SimConv(c5, p4)
        self.LAF_p4 = LocalFusion(c4, p4)
        self.Inject_p4 = Injection(p4)
        self.Rep_p4 = _stage(scale, p4, repeats)
        self.reduce_layer_p4 = SimConv(p4, p3)
        self.LAF_p3 = LocalFusion(c3, p3)
        self.Inject_p3 = Injection(p3)
        self.Rep_p3 = _stage(scale, p3, repeats)
        self.high_IFM = HighFusion(p3 + p4 + c5, blocks, scale.transformer[1])
        self.conv_1x1_n = conv2d(p3 + p4 + c5, n4 + n5, 1, has_bias=True)
        self.Inject_n4 = Injection(n4)
        self.Rep_n4 = _stage(scale, n4, repeats)
        self.Inject_n5 = Injection(n5)
        self.Rep_n5 = _stage(scale, n5, repeats)

    def construct(
        self, levels: tuple[Tensor, Tensor, Tensor, Tensor], keep: Tensor | None = None
    ) -> Features:
        c2, c3, c4, c5 = levels
        size4, size5 = c4.shape[2:], c5.shape[2:]
        gathered = ops.cat(
            (adaptive_average(c2, size4), adaptive_average(c3, size4), c4, bilinear(c5, size4)), 1
        )
        for_p4, for_p3 = ops.split(self.low_IFM(gathered), self.low_channels, 1)
        c5_half = self.reduce_layer_c5(c5)
        p4 = self.Rep_p4(self.Inject_p4(self.LAF_p4(c3, c4, c5_half), for_p4))
        p4_half = self.reduce_layer_p4(p4)
        p3 = self.Rep_p3(self.Inject_p3(self.LAF_p3(c2, c3, p4_half), for_p3))

        size6 = ((size5[0] + 1) // 2, (size5[1] + 1) // 2)
        gathered = ops.cat(
            (adaptive_average(p3, size6), adaptive_average(p4, size6), adaptive_average(c5, size6)),
            1,
        )
        fused = self.conv_1x1_n(self.high_IFM(gathered, keep))
        for_n4, for_n5 = ops.split(fused, self.high_channels, 1)
        n4 = self.Rep_n4(self.Inject_n4(ops.cat((adaptive_average(p3, size4), p4_half), 1), for_n4))
        below = p4 if self.p4_feeds_n5 else n4
        n5 = self.Rep_n5(
            self.Inject_n5(ops.cat((adaptive_average(below, size5), c5_half), 1), for_n5)
        )
        return p3, n4, n5


class GoldYOLO(nn.Cell):
    """The detector in training form.

    Args:
        scale: the variant.
        num_classes: K.
        form: one of ``FORMS``; it decides what the head predicts.
        input_size: default (height, width) of the input, multiples of 32.

    Shape: images (B, 3, H, W), optional keep -> raw maps of stride 8, then 16, then 32, before any
        activation: classes (B, K, h, w) and distances (B, 4 * 17, h, w), the logits of 17 bins for
        left, top, right, bottom; form ``fuse_ab`` adds classes (B, 3 K, h, w) and boxes (B, 3 * 4,
        h, w) of three anchors, form ``distill`` the distances themselves (B, 4, h, w) in cells.
        keep (len(drop_rates), B): factors of the transformer's branches for stochastic depth, 0 or
        1 / (1 - rate).
    Source: arXiv:2309.11331; original ``yolov6/models/yolo.py``.
    """

    family = "gold_yolo"
    strides = STRIDES
    reg_max = REG_MAX

    def __init__(self, scale: Scale, num_classes: int, form: str, input_size: tuple[int, int]):
        super().__init__()
        self.scale, self.form, self.num_classes = scale, form, num_classes
        self.architecture = {"form": form}
        self.input_spec = published_input(input_size)
        rates = np.linspace(0, 0.1, scale.transformer[0])
        self.drop_rates = tuple(float(rate) for rate in np.repeat(rates[1:], 2))
        self.backbone = Backbone(scale)
        self.neck = GatherDistribute(scale)
        self.detect = DistanceHead(
            tuple(scale.channels(base) for base in (128, 256, 512)),
            num_classes,
            4 * (self.reg_max + 1),
            form,
        )
        self.outputs_per_level = {"plain": 2, "fuse_ab": 4, "distill": 3}[form]
        self.bins = DistanceBins(self.reg_max)

    def construct(self, images: Tensor, keep: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.neck_and_heads(images, keep)[1]

    def neck_and_heads(
        self, images: Tensor, keep: Tensor | None = None
    ) -> tuple[Features, tuple[Tensor, ...]]:
        """Compute the three maps that enter the head, and the result of ``construct``."""
        features = self.neck(self.backbone(images), keep)
        return in_float32(features), self.detect(*features)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (B, A, 4) xyxy in pixels of the input and scores (B, A, K).

        Rows: stride 8 first; inside a level cells row by row.
        """
        heads = self.construct(images)
        return ops.stack(self.boxes(heads), 2), ops.transpose(self.flat(heads)[0], (0, 2, 1))

    def decode(self, heads: tuple[Tensor, ...]) -> Tensor:
        """Decode raw heads to (B, A, 5 + K): cx, cy, w, h in pixels, 1, class probabilities."""
        x1, y1, x2, y2 = self.boxes(heads)
        classes = self.flat(heads)[0]
        box = ops.stack(((x1 + x2) * 0.5, (y1 + y2) * 0.5, x2 - x1, y2 - y1, ops.ones_like(x1)), 1)
        return ops.transpose(ops.cat((box, classes), 1), (0, 2, 1))

    def boxes(self, heads: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute x1, y1, x2, y2 of all predictions in pixels of the input, each (B, A)."""
        flat = self.flat(heads)
        distances = flat[2] if self.form == "distill" else self.bins(flat[1])[0]
        x, y, stride = self.points(heads)
        left, top, right, bottom = (
            distances[:, 0],
            distances[:, 1],
            distances[:, 2],
            distances[:, 3],
        )
        return (x - left) * stride, (y - top) * stride, (x + right) * stride, (y + bottom) * stride

    def flat(self, heads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Concatenate the anchor-free branch of all levels, float32: class probabilities (B, K, A),
        logits of the distances (B, 4 * 17, A) and, in form ``distill``, distances (B, 4, A) in
        cells.
        """
        found = (ops.sigmoid(self._side_by_side(heads, 0)), self._side_by_side(heads, 1))
        if self.form == "distill":
            found = found + (self._side_by_side(heads, 2),)
        return found

    def flat_ab(self, heads: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Concatenate the anchor-based branch of form ``fuse_ab``: class probabilities (B, K, 3 A)
        and boxes (B, 4, 3 A) as offset x, y from the cell's center, width and height, all in cells.

        Rows: stride 8 first; inside a level anchor by anchor, each cell by cell.
        """
        classes, boxes = (), ()
        for level, stride in enumerate(self.strides):
            logits, raw = (
                ops.reshape(ops.cast(x, float32), (x.shape[0], x.shape[1], -1))
                for x in heads[4 * level + 2 : 4 * level + 4]
            )
            classes = classes + ops.split(logits, self.num_classes, 1)
            parts = ops.split(raw, 2, 1)  # for every anchor the center, then the size
            for anchor in range(3):
                size = ops.sigmoid(parts[2 * anchor + 1]) * 2.0
                anchor_size = Tensor([[side / stride] for side in ANCHORS[level][anchor]], float32)
                boxes = boxes + (ops.cat((parts[2 * anchor], size * size * anchor_size), 1),)
        return ops.sigmoid(ops.cat(classes, 2)), ops.cat(boxes, 2)

    def points(self, heads: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Return center x and y of every prediction's cell, in cells of its level, and its stride
        in pixels, each (A,).
        """
        return self._grid(heads, 1)

    def points_ab(self, heads: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``points`` of the predictions of ``flat_ab``, each (3 A,)."""
        return self._grid(heads, 3)

    def priors(self, height: int, width: int) -> Priors:
        """Return the cells of all predictions for an input of this size, in the order of
        ``predict``.
        """
        return grid_priors(height, width, self.strides)

    def to_deploy(self) -> "GoldYOLODeploy":
        """Return a new cell for inference, with RepVGG blocks as single convolutions and folded
        batch norms.
        """
        return GoldYOLODeploy(self)

    def _side_by_side(self, heads: tuple[Tensor, ...], kind: int) -> Tensor:
        """Concatenate output ``kind`` of all levels, (B, C, A) float32."""
        return ops.cat(
            [
                ops.reshape(ops.cast(level, float32), (level.shape[0], level.shape[1], -1))
                for level in heads[kind :: self.outputs_per_level]
            ],
            2,
        )

    def _grid(self, heads: tuple[Tensor, ...], repeats: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return cell centers and strides, repeated ``repeats`` times per level."""
        sizes = tuple(level.shape[2:] for level in heads[:: self.outputs_per_level])
        column, row, stride = cell_grid(sizes, self.strides, repeats)
        return column + 0.5, row + 0.5, stride


class GoldYOLODeploy(DeployForm):
    """The detector for inference.

    Shape: images (B, 3, H, W) -> (B, A, 5 + K): cx, cy, w, h in pixels, 1, class probabilities.
    Source: export form of the original, ``deploy/ONNX/export_onnx.py``.
    """

    def __init__(self, source: GoldYOLO):
        super().__init__(
            source, GoldYOLO(source.scale, source.num_classes, source.form, source.input_spec.size)
        )

    def construct(self, images: Tensor) -> Tensor:
        return self.network.decode(self.network(images))


def _built(name: str, num_classes: int, form: str, input_size: tuple[int, int] | None) -> GoldYOLO:
    """Build a model after checks. Raises: ValueError if there is no class or no such form."""
    if num_classes < 1:
        raise ValueError(f"gold_yolo: num_classes must be at least 1, got {num_classes}")
    if form not in FORMS:
        raise ValueError(f"gold_yolo: form must be one of {FORMS}, got {form!r}")
    facts = VARIANTS[name]
    return GoldYOLO(facts.scale, num_classes, form, input_size or facts.input_size)


@register_model
def gold_yolo_n(
    num_classes: int = 80, *, form: str = "plain", input_size: tuple[int, int] | None = None
) -> GoldYOLO:
    """Gold-YOLO-N; ``variants`` has the facts about all scales.

    Args:
        num_classes: classes of the head.
        form: ``fuse_ab`` for training step 1, ``distill`` for step 2 (n and s; the published
            weights), or ``plain`` (training without either; the published weights of m and l).
        input_size: default (height, width) of the input; None means the published one.
    """
    return _built("gold_yolo_n", num_classes, form, input_size)


@register_model
def gold_yolo_s(
    num_classes: int = 80, *, form: str = "plain", input_size: tuple[int, int] | None = None
) -> GoldYOLO:
    """Gold-YOLO-S. Args as ``gold_yolo_n``."""
    return _built("gold_yolo_s", num_classes, form, input_size)


@register_model
def gold_yolo_m(
    num_classes: int = 80, *, form: str = "plain", input_size: tuple[int, int] | None = None
) -> GoldYOLO:
    """Gold-YOLO-M. Args as ``gold_yolo_n``."""
    return _built("gold_yolo_m", num_classes, form, input_size)


@register_model
def gold_yolo_l(
    num_classes: int = 80, *, form: str = "plain", input_size: tuple[int, int] | None = None
) -> GoldYOLO:
    """Gold-YOLO-L. Args as ``gold_yolo_n``."""
    return _built("gold_yolo_l", num_classes, form, input_size)

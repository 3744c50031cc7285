"""Names of DynamicDet: the original numbers its modules, with one sequence per part; ``MODULES``
lists the module of each number.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mindyolo_ext.checkpoint.names import Ignored, NamesTable, Recognition, Unfolded
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.models.dynamicdet.variants import ANCHORS_PER_LEVEL, VARIANTS, Scale

FINEST_STRIDE = 8
NUMBERLESS = ""  # a module without weights: pooling, concatenation, upsampling, sum
BY_CHANNELS = {facts.scale.first_channels: name for name, facts in VARIANTS.items()}
STEMS = (
    ("model_b.0.conv.weight", "model_b.1.conv.weight"),
    ("model_b.1.conv.weight", "model_b.2.conv.weight"),
)
MARKS = ("model_b2.0.conv.weight", "model_h.0.cv1.conv.weight", "model_h2.0.cv1.conv.weight")
ROUTER = "router.layer1.weight"
FUSED = (
    "fused weights, which the original's programs do not write: {name} {what}; convert the "
    "checkpoint they were fused from"
)


def _elan(place: str, depth: int) -> list[str]:
    """Two 1 x 1 convolutions, the chain, the join, the last 1 x 1 convolution."""
    return [
        f"{place}.cv1",
        f"{place}.cv2",
        *(f"{place}.chain.{i}" for i in range(depth)),
        NUMBERLESS,
        f"{place}.out",
    ]


def _down(place: str) -> list[str]:
    """Max-pool, the 1 x 1 convolution after it, the other branch, the join."""
    return [NUMBERLESS, f"{place}.pooled", f"{place}.narrow", f"{place}.conv", NUMBERLESS]


def _stage(i: int, depth: int, *, p6: bool, fused: bool) -> list[str]:
    """One stage of a backbone. ``fused``: maps of the other backbone are added before the ELAN
    block.
    """
    place = f"stages.{i}"
    down = [f"{place}.down"] if i == 0 or p6 else _down(f"{place}.down")
    return [*down, *[NUMBERLESS] * fused, *_elan(f"{place}.elan", depth)]


def _backbone(depth: int, *, p6: bool) -> list[str]:
    stem = [NUMBERLESS, "stem.0"] if p6 else ["stem.0", "stem.1", "stem.2"]
    stages = [_stage(i, depth, p6=p6, fused=False) for i in range(4 + p6)]
    return sum(stages, stem)


def _backbone2(depth: int, *, p6: bool) -> list[str]:
    links = [f"links.{i}" for i in range(5)]
    stem = ["stem.0"] if p6 else ["stem.0", "stem.1", NUMBERLESS, "stem.2"]
    stages = [_stage(i, depth, p6=p6, fused=True) for i in range(4 + p6)]
    return sum(stages, links + stem)


def _head(depth: int, *, p6: bool) -> list[str]:
    names, levels = ["spp"], 3 + p6
    for i in range(levels - 1):
        names += [
            f"laterals.{i}",
            NUMBERLESS,
            f"taps.{i}",
            NUMBERLESS,
            *_elan(f"top_down.{i}", depth),
        ]
    for i in range(levels - 1):
        names += [f"down.{i}", NUMBERLESS] if p6 else _down(f"down.{i}")
        names += _elan(f"bottom_up.{i}", depth)
    return [*names, *(f"outs.{i}" for i in range(levels)), "detect"]


def _inside(
    theirs: str, ours: str, levels: int, *, reparameterised: bool
) -> Iterator[tuple[str, str]]:
    """Yield (original's name, ours) of a numbered module and of parts inside it with other names,
    in its order.
    """
    kind = ours.split(".")[1]
    if kind == "links":
        yield f"{theirs}.conv", ours
    elif kind == "detect":
        for buffer in ("anchors", "anchor_grid"):
            yield f"{theirs}.{buffer}", f"{ours}.{buffer}"
        for name, leaf in (("m.{}", "conv"), ("ia.{}.implicit", "ia"), ("im.{}.implicit", "im")):
            for i in range(levels):
                yield f"{theirs}.{name.format(i)}", f"{ours}.{i}.{leaf}"
    else:
        yield theirs, ours
        if kind == "outs" and reparameterised:
            for branch in ("rbr_dense", "rbr_1x1"):
                yield f"{theirs}.{branch}.0", f"{ours}.{branch}.conv"
                yield f"{theirs}.{branch}.1", f"{ours}.{branch}.bn"


def _modules(scale: Scale) -> dict[str, str]:
    """Map name prefixes of the original to ours, for everything but the router, in the original's
    order.
    """
    depth, p6 = scale.depth, scale.p6
    head = _head(depth, p6=p6)
    parts = (
        ("model_b", "backbone", _backbone(depth, p6=p6)),
        ("model_b2", "backbone2", _backbone2(depth, p6=p6)),
        ("model_h", "head", head),
        ("model_h2", "head2", head),
    )
    return dict(
        row
        for sequence, part, names in parts
        for number, name in enumerate(names)
        if name != NUMBERLESS
        for row in _inside(
            f"{sequence}.{number}",
            f"{part}.{name}",
            scale.levels,
            reparameterised=scale.reparameterised,
        )
    )


MODULES = {name: _modules(facts.scale) for name, facts in VARIANTS.items()}


class DynamicDetNames(NamesTable):
    """Names of three scales and a narrow one, of training step 1 (no router) or 2.

    Source: ``cfg/*.yaml``, ``models/yolo.py``, ``models/common.py``, and ``strip_optimizer`` in
        ``utils/general.py`` of the original.
    """

    family = "dynamicdet"
    entry = "model"
    beside = {
        "epoch": -1,
        "best_fitness": 0.0,
        "training_results": None,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "wandb_id": None,
    }

    def recognize(self, tensors: Mapping[str, np.ndarray]) -> list[Recognition]:
        if not all(name in tensors for name in MARKS):
            return []
        stem = next((pair for pair in STEMS if all(name in tensors for name in pair)), None)
        channels = tuple(int(tensors[name].shape[0]) for name in stem) if stem else ()
        if channels not in BY_CHANNELS:
            known = "; ".join(
                f"{name} {first}, {second}" for (first, second), name in BY_CHANNELS.items()
            )
            raise CheckpointError(
                f"dynamicdet: {', '.join(map(str, channels)) or 'no'} channels in the first "
                f"layers, wanted one of {known}"
            )
        model = BY_CHANNELS[channels]
        last = (
            next(theirs for theirs, ours in MODULES[model].items() if ours == "head2.detect.0.conv")
            + ".weight"
        )
        if last not in tensors:
            raise CheckpointError(
                f"dynamicdet: {last} is missing, which determines the classes of {model}"
            )
        outputs = int(tensors[last].shape[0])
        classes = outputs // ANCHORS_PER_LEVEL - 5
        if outputs % ANCHORS_PER_LEVEL or classes < 1:
            raise CheckpointError(
                f"dynamicdet: {last} has {outputs} channels, wanted {ANCHORS_PER_LEVEL} anchors "
                "with 5 values and at least one class each"
            )
        return [
            Recognition(
                model, classes, keywords={"router": ROUTER in tensors}, renames=self.renames(model)
            )
        ]

    def renames(self, model: str) -> Mapping[str, str]:
        return MODULES[model]

    def to_target(self, name: str, norms: frozenset[str]) -> str | Ignored:
        if name.endswith((".detect.anchors", ".detect.anchor_grid")):
            return Ignored("anchors are a keyword of the builder")
        return super().to_target(name, norms)

    def unfolded(self, tensors: Mapping[str, np.ndarray]) -> Unfolded:
        for name in tensors:
            if ".rbr_reparam." in name:
                raise CheckpointError(
                    "dynamicdet: " + FUSED.format(name=name, what="joins the branches of a block")
                )
            block = name.removesuffix(".conv.bias")
            if block != name and f"{block}.bn.weight" not in tensors and block not in LINKS:
                raise CheckpointError(
                    "dynamicdet: " + FUSED.format(name=name, what="stands for a norm")
                )
        first, second = (_anchors(tensors, head) for head in ("model_h.", "model_h2."))
        if first is None or second is None or np.array_equal(first, second):
            return Unfolded(tensors)
        return Unfolded(
            tensors,
            warnings=(
                "the two heads have different anchors (the original's automatic anchors reach the "
                "second one only); both exits use the second one's, with which both were trained",
            ),
        )

    def builder_keywords(
        self, tensors: Mapping[str, np.ndarray], anchors: tuple[float, ...] | None
    ) -> dict[str, object]:
        found = _anchors(tensors, "model_h2.")
        if found is not None and anchors is not None:
            raise CheckpointError("dynamicdet: anchors were given, but the file has its own")
        if found is None and anchors is None:
            raise CheckpointError(
                "dynamicdet: the file has no anchor_grid of the second head: give the anchors with "
                "--anchors"
            )
        pairs = np.asarray(anchors if found is None else found, np.float64).reshape(-1)
        if pairs.size % 2:
            raise CheckpointError(
                f"dynamicdet: {pairs.size} anchor numbers, wanted width and height of each anchor"
            )
        return {"anchors": pairs.reshape(-1, 2).tolist()}

    def constants(self, architecture: Mapping[str, Any] | None = None) -> Mapping[str, np.ndarray]:
        if architecture is None:
            return {}
        pixels = np.asarray(architecture["anchors"], np.float32).reshape(-1, ANCHORS_PER_LEVEL, 2)
        cells = pixels / _strides(len(pixels))
        return {
            f"{head}.detect.{name}": array
            for head in ("head", "head2")
            for name, array in (("anchors", cells), ("anchor_grid", pixels[:, None, :, None, None]))
        }


LINKS = {
    theirs.removesuffix(".conv")
    for theirs, ours in MODULES["dy_yolov7"].items()
    if ".links." in ours
}


def _strides(levels: int) -> np.ndarray:
    """Return the pixels per cell, (levels, 1, 1)."""
    return FINEST_STRIDE * 2.0 ** np.arange(levels, dtype=np.float32).reshape(-1, 1, 1)


def _anchors(tensors: Mapping[str, np.ndarray], head: str) -> np.ndarray | None:
    """Return widths and heights of a head's anchors in pixels (levels, 3, 2); None if the file has
    none.
    """
    grid = next(
        (name for name in tensors if name.startswith(head) and name.endswith(".anchor_grid")), None
    )
    if grid is None:
        return None
    pixels = np.asarray(tensors[grid], np.float32)
    if pixels.ndim != 6 or pixels.shape != (len(pixels), 1, ANCHORS_PER_LEVEL, 1, 1, 2):
        raise CheckpointError(
            f"dynamicdet: {grid} is {pixels.shape}, wanted (levels, 1, {ANCHORS_PER_LEVEL}, 1, 1, "
            "2)"
        )
    pixels = pixels.reshape(-1, ANCHORS_PER_LEVEL, 2)
    cells = grid.removesuffix("anchor_grid") + "anchors"
    if cells in tensors and not np.array_equal(tensors[cells] * _strides(len(pixels)), pixels):
        raise CheckpointError(
            f"dynamicdet: {cells} in cells and {grid} in pixels are not the same anchors"
        )
    return pixels


TABLE = DynamicDetNames()

"""Helpers for the tests of the simple YOLO's checkpoints: its original names and shapes, and
numbers for them.
"""

from collections.abc import Iterator

import numpy as np

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
DARKNET = (1, 2, 8, 8, 4)
COUNTER = "num_batches_tracked"

Shapes = dict[str, tuple[int, ...]]


def numbers(shape: tuple[int, ...], index: int) -> np.ndarray:
    """Numbers between 0 and 1 that differ from their neighbors and from those of tensors with
    another index.
    """
    count = int(np.prod(shape))
    return ((7 * np.arange(count) + 13 * index) % 101 / 101).astype(np.float32).reshape(shape)


def filled(shapes: Shapes) -> dict[str, np.ndarray]:
    """Numbers for all tensors; counters are 3."""
    return {
        name: np.array(3) if name.endswith(COUNTER) else numbers(shape, index)
        for index, (name, shape) in enumerate(shapes.items())
    }


def light(shapes: Shapes) -> dict[str, np.ndarray]:
    """Zeros without memory."""
    return {
        name: np.broadcast_to(np.zeros((), np.float32), shape) for name, shape in shapes.items()
    }


def torchvision_resnet(
    depth: int, share: float = 1.0, *, classes: int = 1000, counters: bool = True
) -> Shapes:
    """The state dict of torchvision's ResNet, with all widths times ``share``; old files have no
    counters.
    """
    shapes = dict(_resnet(depth, share))
    outputs = _wide(512 if depth < 50 else 2048, share)
    shapes |= {"fc.weight": (classes, outputs), "fc.bias": (classes,)}
    return {name: shape for name, shape in shapes.items() if counters or not name.endswith(COUNTER)}


def detector(backbone: int | str, share: float, classes: int, *, per_level: int = 3) -> Shapes:
    """The original detector's state dict; ``backbone`` is the depth of a ResNet, or ``darknet``."""
    if backbone == "darknet":
        rows, channels = _darknet(int(32 * share)), 32 * int(32 * share)
    else:
        rows, channels = _resnet(backbone, share), _wide(512 if backbone < 50 else 2048, share)
    shapes = {f"backbone.{name}": shape for name, shape in rows}
    half, quarter = channels // 2, channels // 4
    convolutions = [
        ("spp.conv1", channels, half, 1),
        ("spp.conv2", 4 * half, channels, 1),
        ("pan.up1", channels, half, 1),
        ("pan.down1", quarter, quarter, 3),
        ("pan.down2", half, half, 3),
        ("pan.up2.0", channels, quarter, 1),
        ("pan.up2.1", quarter, quarter, 3),
        ("pan.head1.0", half, quarter, 1),
        ("pan.head1.1", quarter, quarter, 3),
    ]
    for head, width in (("pan.head2", half), ("pan.head3", channels)):
        convolutions += [
            (f"{head}.0.0", 1, width, 3),
            (f"{head}.0.1", width, width, 1),
            (f"{head}.1", width, width, 1),
        ]
    for name, inputs, outputs, side in convolutions:
        shapes[f"{name}.0.weight"] = (outputs, inputs, side, side)
        if name.endswith(".0.1"):
            shapes[f"{name}.0.bias"] = (outputs,)
        shapes |= dict(_norm(f"{name}.1", outputs))
    return shapes | {
        f"det_head.heads.{level}.weight": (per_level * (5 + classes), width, 1, 1)
        for level, width in enumerate((quarter, half, channels))
    }


def _wide(channels: int, share: float) -> int:
    return int(channels * share)


def _norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{leaf}", (channels,)
    yield f"{name}.{COUNTER}", ()


def _resnet(depth: int, share: float) -> Iterator[tuple[str, tuple[int, ...]]]:
    stem = channels = _wide(64, share)
    yield "conv1.weight", (stem, 3, 7, 7)
    yield from _norm("bn1", stem)
    for layer, count in enumerate(BLOCKS[depth]):
        width, wider = (
            _wide(64 * 2**layer, share),
            _wide((64 if depth < 50 else 256) * 2**layer, share),
        )
        for block in range(count):
            place = f"layer{layer + 1}.{block}"
            rows = (
                [(channels, width, 1), (width, width, 3), (width, wider, 1)]
                if depth >= 50
                else [(channels, wider, 3), (wider, wider, 3)]
            )
            for number, (inputs, outputs, side) in enumerate(rows, 1):
                yield f"{place}.conv{number}.weight", (outputs, inputs, side, side)
                yield from _norm(f"{place}.bn{number}", outputs)
            if block == 0 and (layer > 0 or depth >= 50):
                yield f"{place}.downsample.0.weight", (wider, channels, 1, 1)
                yield from _norm(f"{place}.downsample.1", wider)
            channels = wider


def _darknet(first: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    rows = [("stage0.0", 3, first, 3), ("stage0.1", first, 2 * first, 3)]
    for stage, count in enumerate(DARKNET, 1):
        channels = first * 2**stage
        if stage > 1:
            rows.append((f"down{stage - 1}", channels // 2, channels, 3))
        for block in range(count):
            rows += [
                (f"stage{stage}.{block}.conv.0", channels, channels // 2, 1),
                (f"stage{stage}.{block}.conv.1", channels // 2, channels, 3),
            ]
    for name, inputs, outputs, side in rows:
        yield f"{name}.0.weight", (outputs, inputs, side, side)
        yield from _norm(f"{name}.1", outputs)

"""How much arithmetic an image costs, counted from the layers that run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindyolo_ext.backend import Tensor, nn, ops
from mindyolo_ext.engine.build import load_model

Size = tuple[int, int]


@dataclass(frozen=True)
class RoutedGflops:
    """GFLOPs of a routed model, part by part.

    Args:
        glance: first backbone and router, which every image takes.
        first, second: what an easy and what a hard image takes beside it.
    """

    glance: float
    first: float
    second: float

    @property
    def easy(self) -> float:
        """An image that leaves by the first exit."""
        return self.glance + self.first

    @property
    def hard(self) -> float:
        """An image that leaves by the second exit."""
        return self.glance + self.second

    def mean(self, share_easy: float) -> float:
        """An image on average, where ``share_easy`` of them (0..1) are easy."""
        return share_easy * self.easy + (1.0 - share_easy) * self.hard


def gflops(model: nn.Cell, size: Size) -> float:
    """GFLOPs of the deploy form for one image.

    Two operations per multiply-add of a convolution or dense layer, as publications count them.
    Biases, activations, pooling, resizing, the decoding of boxes and the two products of attention
    are left out. For DynamicDet the counter ``thop``, which publications mostly use, gives the same
    to four digits.

    Args:
        model: a network of this project, in training or deploy form. Of a routed model it is a hard
            image that counts, see ``routed_gflops``.
        size: (height, width) of the input.
    """
    if getattr(model, "routed", False):
        return routed_gflops(model, size).hard
    deploy = _deploy(model)
    return _at_size(
        deploy, lambda side: (_operations(deploy, lambda: deploy.predict(_images(side))),), size
    )[0]


def routed_gflops(model: nn.Cell, size: Size) -> RoutedGflops:
    """GFLOPs of each part of a routed model for one image, counted as ``gflops`` does.

    Args:
        model: a model with ``glance``, ``first`` and ``second``, in training or deploy form.
        size: (height, width) of the input.
    """
    deploy = _deploy(model)

    def parts(side: int) -> tuple[int, ...]:
        images = _images(side)
        _, features = deploy.glance(images)
        return tuple(
            _operations(deploy, run)
            for run in (
                lambda: deploy.glance(images),
                lambda: deploy.first(features),
                lambda: deploy.second(images, features),
            )
        )

    return RoutedGflops(*_at_size(deploy, parts, size))


def describe_gflops(weight: str | Path) -> str:
    """One sentence on the operations of the network in a checkpoint of ours. Raises: as
    ``load_model``.
    """
    model, _ = load_model(weight)
    height, width = model.input_spec.size
    if not getattr(model, "routed", False):
        return f"{gflops(model, (height, width)):.4g} GFLOPs at {height}x{width}"
    parts = routed_gflops(model, (height, width))
    return (
        f"{parts.easy:.4g} GFLOPs for an easy image, {parts.hard:.4g} for a hard one "
        f"at {height}x{width}"
    )


def _deploy(model: nn.Cell) -> nn.Cell:
    return model.to_deploy() if hasattr(model, "to_deploy") else model


def _images(side: int) -> Tensor:
    """One black image, (1, 3, side, side)."""
    return Tensor(np.zeros((1, 3, side, side), np.float32))


def _at_size(deploy: nn.Cell, count: Callable[[int], tuple[int, ...]], size: Size) -> list[float]:
    """GFLOPs at ``size`` from operations counted at two small sizes.

    The work of a layer grows with the area, unless it reads pooled values; so two sizes tell all.
    """
    small = max(deploy.strides)
    with _eager():
        counts = np.array([count(small), count(2 * small)], np.float64)
    per_pixel = (counts[1] - counts[0]) / (3 * small**2)
    fixed = counts[0] - per_pixel * small**2
    return [float(value) / 1e9 for value in fixed + per_pixel * size[0] * size[1]]


@contextmanager
def _eager() -> Iterator[None]:
    """Layers run one by one, as Python calls them: the only mode in which MindSpore lets one
    look on.
    """
    import mindspore as ms

    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=before)


def _operations(network: nn.Cell, run: Callable[[], object]) -> int:
    """Operations of the convolutions and dense layers of ``network`` that take part in
    ``run()``.
    """
    total = 0

    def add(weight: Tensor, output: Tensor) -> None:
        nonlocal total
        total += 2 * int(np.prod(output.shape)) * int(np.prod(weight.shape[1:]))

    hooks = [
        cell.register_forward_hook(lambda cell, _, output: add(cell.weight, output))
        for _, cell in network.cells_and_names()
        if isinstance(cell, nn.Dense)
    ]
    try:
        with _watched_convolutions(add):
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return total


@contextmanager
def _watched_convolutions(add: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Inside, every convolution, of a layer or by a part of its weights, tells ``add`` weight
    and output.
    """
    plain = ops.Conv2D.__call__

    def watched(self: ops.Conv2D, x: Tensor, weight: Tensor) -> Tensor:
        output = plain(self, x, weight)
        add(weight, output)
        return output

    ops.Conv2D.__call__ = watched  # layers have hooks, operators have not
    try:
        yield
    finally:
        ops.Conv2D.__call__ = plain

"""Count the operations per image from the layers that run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.mode import eager
from mindyolo_ext.backend.observe import watched_convolutions, watched_layers
from mindyolo_ext.contracts import Cell, Inference, Model, Routed, RoutedInference
from mindyolo_ext.engine.build import load_model

Size = tuple[int, int]


@dataclass(frozen=True)
class RoutedGflops:
    """GFLOPs of the parts of a routed model.

    Args:
        glance: first backbone and router, which every image passes.
        first, second: additional GFLOPs of an easy and of a hard image.
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
        """Mean over images of which ``share_easy`` (0..1) are easy."""
        return share_easy * self.easy + (1.0 - share_easy) * self.hard


def gflops(model: Inference, size: Size) -> float:
    """GFLOPs of the deploy form for one image.

    A multiply-add of a convolution or dense layer counts as two operations, as in publications.
    Biases, activations, pooling, resizing, the decoding of boxes and the two products of attention
    are left out. For DynamicDet the counter ``thop``, which most publications use, gives the same
    number to four digits.

    Args:
        model: a network of this project, in training or deploy form. For a routed model a hard
            image is counted, see ``routed_gflops``.
        size: (height, width) of the input.
    """
    if isinstance(model, Routed):
        return routed_gflops(model, size).hard
    deploy = _deploy(model)
    return _at_size(
        deploy, lambda side: (_operations(deploy, lambda: deploy.predict(_images(side))),), size
    )[0]


def routed_gflops(model: RoutedInference, size: Size) -> RoutedGflops:
    """GFLOPs of each part of a routed model for one image, counted as ``gflops`` does.

    Args:
        model: a routed network in training or deploy form.
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
    """Describe the operations of the network in a checkpoint in one sentence. Raises: as
    ``load_model``.
    """
    model, _ = load_model(weight)
    height, width = model.input_spec.size
    if not isinstance(model, Routed):
        return f"{gflops(model, (height, width)):.4g} GFLOPs at {height}x{width}"
    parts = routed_gflops(model, (height, width))
    return (
        f"{parts.easy:.4g} GFLOPs for an easy image, {parts.hard:.4g} for a hard one "
        f"at {height}x{width}"
    )


def _deploy(model: Inference) -> Inference:
    return model.to_deploy() if isinstance(model, Model) else model


def _images(side: int) -> Tensor:
    """One black image, (1, 3, side, side)."""
    return Tensor(np.zeros((1, 3, side, side), np.float32))


def _at_size(deploy: Inference, count: Callable[[int], tuple[int, ...]], size: Size) -> list[float]:
    """GFLOPs at ``size`` from operations counted at two small sizes.

    A layer's operations grow with the area, or are constant if it reads pooled values, so two sizes
    are enough.
    """
    small = max(deploy.strides)
    with eager():
        counts = np.array([count(small), count(2 * small)], np.float64)
    per_pixel = (counts[1] - counts[0]) / (3 * small**2)
    fixed = counts[0] - per_pixel * small**2
    return [float(value) / 1e9 for value in fixed + per_pixel * size[0] * size[1]]


def _operations(network: Cell, run: Callable[[], object]) -> int:
    """Operations of the convolutions and dense layers of ``network`` that ``run()`` calls."""
    total = 0

    def add(weight: Tensor, output: Tensor) -> None:
        nonlocal total
        total += 2 * int(np.prod(output.shape)) * int(np.prod(weight.shape[1:]))

    def add_dense(_: str, layer: nn.Dense, output: Tensor) -> None:
        add(layer.weight, output)

    with watched_layers(network, add_dense, kind=nn.Dense), watched_convolutions(add):
        run()
    return total

"""What the parts of this package promise each other. No framework.

Letters in shapes: B images, H W input size, A predictions of all levels, M padded boxes per image,
K classes, T loss terms. ``docs/design.md`` draws how data flows through these parts;
``tests/models/test_contracts.py`` holds every family to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike

from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.priors import Priors

if TYPE_CHECKING:
    from mindyolo_ext.backend import Parameter, Tensor

BoxesAndScores: TypeAlias = "tuple[Tensor, Tensor]"


class Cell(Protocol):
    """What the engine uses of a backend's ``nn.Cell``."""

    def parameters_and_names(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its place in the cell, ``backbone.stem.conv.weight``."""

    def get_parameters(self) -> Iterable[Parameter]:
        """Every parameter once."""

    def trainable_params(self) -> list[Parameter]:
        """The parameters that a training changes."""

    def cells_and_names(self) -> Iterator[tuple[str, Cell]]:
        """The cell itself under an empty name, and every cell below it by its place."""

    def name_cells(self) -> Mapping[str, Cell]:
        """The cells directly below it by name."""

    def set_train(self, mode: bool = True) -> Cell:
        """Use statistics of the batch, or stored ones if ``mode`` is False; returns the cell."""


@runtime_checkable
class Inference(Protocol):
    """What evaluation, prediction and export need of a network, in training or deploy form.

    Attributes:
        family: name of the record that the network belongs to.
        num_classes: K.
        strides: pixels per cell of each level, finest first.
        input_spec: how a photo becomes the network's input; it travels with checkpoints.
        architecture: keywords of the builder that a checkpoint must remember; plain JSON.
    """

    family: str
    num_classes: int
    strides: tuple[int, ...]
    input_spec: InputSpec
    architecture: dict[str, Any]

    def predict(self, images: Tensor) -> BoxesAndScores:
        """Final boxes and confidences.

        Shape: images (B, 3, H, W) in the convention of ``input_spec`` -> boxes (B, A, 4) float32
            xyxy in pixels of the input, scores (B, A, K) in 0..1.
        """


@runtime_checkable
class Model(Inference, Cell, Protocol):
    """A detector in training form; ``construct(images)`` gives its raw heads."""

    def priors(self, height: int, width: int) -> Priors:
        """Cell, level and anchor of each row of ``predict`` for an input of this size."""

    def to_deploy(self) -> Inference:
        """A new cell for inference: batch norms folded, branches merged; ``self`` stays as it is.

        Its ``construct`` is the form that an exported file has.
        """


@runtime_checkable
class Routed(Protocol):
    """What a network has besides, if it decides per image how much to compute.

    Both its training form and its deploy form have this. Without a router all images have easiness
    0. ``predict`` runs both exits and picks; it is the reference for programs that run an image's
    own exit alone.

    Attributes:
        has_router: whether it can tell easy images from hard ones.
    """

    has_router: bool

    def glance(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """images (B, 3, H, W) -> easiness (B,) in 0..1, and the features both exits read."""

    def first(self, features: tuple[Tensor, ...]) -> BoxesAndScores:
        """The exit of easy images; rows as in ``predict``."""

    def second(self, images: Tensor, features: tuple[Tensor, ...]) -> BoxesAndScores:
        """The exit of hard images; rows as in ``predict``."""

    def first_heads(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Raw heads of the first exit, one per level."""

    def second_heads(self, images: Tensor, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Raw heads of the second exit, one per level."""


@runtime_checkable
class RoutedInference(Inference, Routed, Protocol):
    """A routed network in training or deploy form."""


@runtime_checkable
class RoutedModel(Model, Routed, Protocol):
    """A routed detector in training form.

    Attributes:
        dy_thres: default threshold; images whose easiness is below it take the second exit.
    """

    dy_thres: float


@dataclass(frozen=True)
class StepClock:
    """Where a training stands before a step.

    Args:
        iteration: steps done before this one, over all epochs.
        epoch: 0-based, of ``epochs``.
        seed: the recipe's.
        rank: of this process; random numbers of a step come from (seed, iteration, rank).
    """

    iteration: int
    epoch: int
    epochs: int
    seed: int = 0
    rank: int = 0


class Trainable(Cell, Protocol):
    """A model with its loss, the cell that the engine trains.

    Calling it maps images (B, 3, H, W), targets (B, M, 5) class, cx, cy, w, h in 0..1 and mask
    (B, M) 0/1 to the total () and the terms (T,). With several ranks both are the rank's SHARE of
    the global batch's loss: normalisers go through ``backend.distributed.GlobalSum``, so n ranks
    with batch b equal one rank with batch n * b.

    Attributes:
        model: the network; its parameters keep the names they have in it.
        term_names: T names.
    """

    model: Model
    term_names: tuple[str, ...]

    def matches(self, images: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Which prediction is trained on which box, (B, M, A) float 0/1, 0 where ``mask`` is."""


@runtime_checkable
class Stepped(Protocol):
    """What a trainable has besides, if it depends on the epoch or draws random numbers."""

    def begin_step(self, clock: StepClock) -> None:
        """Set, on the host and before every step, parameters of its own that nobody trains."""


class SteppedTrainable(Trainable, Stepped, Protocol):
    """A trainable that the engine prepares before every step."""


class Predictor(Protocol):
    """The one way from images to boxes, whatever runs the network.

    Attributes:
        input_spec, num_classes: of the network.
    """

    input_spec: InputSpec
    num_classes: int

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """images (B, 3, H, W) float32 in the convention of ``input_spec``, or uint8 BGR
        (B, H, W, 3) -> boxes (B, A, 4) xyxy, scores (B, A, K).
        """

    def compile(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> bool:
        """Prepare for inputs of ``shape`` without running; False if nothing had to be done."""


class NetworkPredictor(Predictor, Protocol):
    """A predictor that runs a network of this project on the framework.

    Attributes:
        network: what is run, in training or deploy form.
    """

    network: Inference

    def update(self, model: Model) -> None:
        """Take over the weights of ``model`` without compiling again."""


class Meter(Protocol):
    """Time that a part of a network has taken, and the images that it worked on."""

    images: int
    seconds: float

    @property
    def milliseconds(self) -> float:
        """Per image; 0 before the first."""


@runtime_checkable
class RoutingPredictor(Predictor, Protocol):
    """What a predictor of a routed model has besides.

    Attributes:
        dy_thres: images whose easiness is below it take the second exit.
        easiness: (B,) of the last call.
        meters: by part, ``glance``, ``first`` and ``second``, since ``reset``.
    """

    dy_thres: float
    easiness: np.ndarray
    meters: Mapping[str, Meter]

    def __call__(
        self, images: np.ndarray, valid: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As ``Predictor``; images behind the first ``valid`` are padding, whose rows are 0."""

    def glance(self, images: np.ndarray) -> Any:
        """Set ``easiness`` and decide nothing; what it returns is the predictor's own."""

    def reset(self) -> None:
        """Let the meters begin anew."""


Builder: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Variant:
    """The facts of one scale; nothing else in the package repeats them.

    Args:
        title: as people write it, ``YOLOX-Nano``.
        scale: widths, depths and switches, in the family's own type; ``network`` reads it.
        input_size: (height, width) of the published evaluation.
        parameters: trainable ones with 80 classes, counted here.
        published: what the authors say, by what it is: ``AP``, ``GFLOPs``, ``parameters, M``, ...
        weights: address where the authors offer the weights; empty if they offer none.
    """

    title: str
    scale: Any
    input_size: tuple[int, int]
    parameters: int
    published: Mapping[str, float] = field(default_factory=dict)
    weights: str = ""


@dataclass(frozen=True)
class Family:
    """What a family has; its folder in ``models`` is called like it and holds the rest.

    Args:
        name: registry name, as in ``model.family``.
        title: as people write it.
        variants: by the name of the builder in ``network``; the first is the smallest.
        losses: names of the trainables in ``loss``; the first is what a recipe trains with that
            names none.
        augmentations: names of the steps in ``augment``, if it has that module.
        paper, repository: of the original.
        terms: licence of the original and of its weights.
        parents: families that this one may import from.
        input_styles: names of the input conventions that its weights exist with, the usual one
            first, as ``names`` describes them; empty if there is only one.
        has_original: whether ``original`` can run the original program beside this one.
    """

    name: str
    title: str
    variants: Mapping[str, Variant]
    losses: tuple[str, ...]
    augmentations: tuple[str, ...] = ()
    paper: str = ""
    repository: str = ""
    terms: str = ""
    parents: tuple[str, ...] = ()
    input_styles: tuple[str, ...] = ()
    has_original: bool = False

    @property
    def smallest(self) -> str:
        """The variant that costs least."""
        return next(iter(self.variants))

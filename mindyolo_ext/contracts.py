"""The interfaces between the parts of this package. Loads no framework.

Letters in shapes: B images, H W input size, A predictions of all levels, M padded boxes per image,
K classes, T loss terms. ``docs/design.md`` shows how data flows through these parts;
``tests/models/test_contracts.py`` enforces them for every family.
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
    """The part of a backend's ``nn.Cell`` that the engine uses."""

    def parameters_and_names(self) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter with its path in the cell, such as
        ``backbone.stem.conv.weight``.
        """

    def get_parameters(self) -> Iterable[Parameter]:
        """Yield every parameter once."""

    def trainable_params(self) -> list[Parameter]:
        """Return the parameters that training updates."""

    def cells_and_names(self) -> Iterator[tuple[str, Cell]]:
        """Yield the cell itself under an empty name, and every cell below it by its path."""

    def name_cells(self) -> Mapping[str, Cell]:
        """Return the direct children by name."""

    def set_train(self, mode: bool = True) -> Cell:
        """Use the batch's statistics, or stored ones if ``mode`` is False. Returns the cell."""


@runtime_checkable
class Inference(Protocol):
    """A network as evaluation, prediction and export need it, in training or deploy form.

    Attributes:
        family: name of the record that the network belongs to.
        num_classes: K.
        strides: pixels per cell of each level, finest first.
        input_spec: how a photo becomes the network's input; checkpoints store it.
        architecture: keywords of the builder that a checkpoint must remember; plain JSON.
    """

    family: str
    num_classes: int
    strides: tuple[int, ...]
    input_spec: InputSpec
    architecture: dict[str, Any]

    def predict(self, images: Tensor) -> BoxesAndScores:
        """Return final boxes and confidences.

        Shape: images (B, 3, H, W) in the convention of ``input_spec`` -> boxes (B, A, 4) float32
            xyxy in pixels of the input, scores (B, A, K) in 0..1.
        """


@runtime_checkable
class Model(Inference, Cell, Protocol):
    """A detector in training form; ``construct(images)`` gives its raw heads."""

    def priors(self, height: int, width: int) -> Priors:
        """Return cell, level and anchor of each row of ``predict`` for an input of this size."""

    def to_deploy(self) -> Inference:
        """Return a new cell for inference, with folded batch norms and merged branches; ``self`` is
        not changed.

        Its ``construct`` is what an exported file computes.
        """


@runtime_checkable
class Routed(Protocol):
    """Additional methods of a network that decides per image how much to compute.

    Both its training form and its deploy form have this. Without a router all images have easiness
    0. ``predict`` runs both exits and chooses; it is the reference for programs that run only the
    exit an image needs.

    Attributes:
        has_router: whether it can tell easy images from hard ones.
    """

    has_router: bool

    def glance(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute the easiness (B,) in 0..1 of images (B, 3, H, W), and the features both exits
        use.
        """

    def first(self, features: tuple[Tensor, ...]) -> BoxesAndScores:
        """Run the exit for easy images; rows as in ``predict``."""

    def second(self, images: Tensor, features: tuple[Tensor, ...]) -> BoxesAndScores:
        """Run the exit for hard images; rows as in ``predict``."""

    def first_heads(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute the raw heads of the first exit, one per level."""

    def second_heads(self, images: Tensor, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute the raw heads of the second exit, one per level."""


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
    """The progress of a training before a step.

    Args:
        iteration: steps done before this one, over all epochs.
        epoch: 0-based, of ``epochs``.
        seed: the recipe's.
        rank: of this process; random numbers of a step depend on (seed, iteration, rank).
        images: of the step, over all ranks; 0 if the caller does not know.
    """

    iteration: int
    epoch: int
    epochs: int
    seed: int = 0
    rank: int = 0
    images: int = 0


class Trainable(Cell, Protocol):
    """A model with its loss: the cell that the engine trains.

    Calling it maps images (B, 3, H, W), targets (B, M, 5) class, cx, cy, w, h in 0..1 and mask
    (B, M) 0/1 to the total () and the terms (T,). With several ranks both are the rank's SHARE of
    the global batch's loss: normalizers go through ``backend.distributed.GlobalSum``, so n ranks
    with batch b equal one rank with batch n * b.

    Attributes:
        model: the network; its parameters keep the names they have in it.
        term_names: T names.
    """

    model: Model
    term_names: tuple[str, ...]

    def matches(self, images: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Return which prediction is trained on which box, (B, M, A) float 0/1, 0 where ``mask`` is
        0.
        """


@runtime_checkable
class Stepped(Protocol):
    """An additional method of trainables that depend on the epoch or draw random numbers."""

    def begin_step(self, clock: StepClock) -> None:
        """Set untrained parameters, such as random numbers, on the host before every step."""


class SteppedTrainable(Trainable, Stepped, Protocol):
    """A trainable that the engine prepares before every step."""


class Predictor(Protocol):
    """The only path from images to boxes, whatever runs the network.

    Attributes:
        input_spec, num_classes: of the network.
    """

    input_spec: InputSpec
    num_classes: int

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict: images (B, 3, H, W) float32 in the convention of ``input_spec``, or uint8 BGR
        (B, H, W, 3) -> boxes (B, A, 4) xyxy, scores (B, A, K).
        """

    def compile(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> bool:
        """Prepare for inputs of ``shape`` without running; returns False if nothing had to be
        done.
        """


class NetworkPredictor(Predictor, Protocol):
    """A predictor that runs a network of this project on the framework.

    Attributes:
        network: the network that is run, in training or deploy form.
    """

    network: Inference

    def update(self, model: Model) -> None:
        """Copy the weights of ``model`` without compiling again."""


class Meter(Protocol):
    """Time that a part of a network has taken, and the images that it worked on."""

    images: int
    seconds: float

    @property
    def milliseconds(self) -> float:
        """Milliseconds per image; 0 before the first."""


@runtime_checkable
class RoutingPredictor(Predictor, Protocol):
    """The additional members of a predictor of a routed model.

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
        """As ``Predictor``; images after the first ``valid`` are padding, and their rows are 0."""

    def glance(self, images: np.ndarray) -> Any:
        """Set ``easiness`` without choosing an exit; the result is private to the predictor."""

    def reset(self) -> None:
        """Reset the meters."""


Builder: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Variant:
    """Facts about one scale of a family; they are stated only here.

    Args:
        title: the usual spelling, such as ``YOLOX-Nano``.
        scale: widths, depths and switches as a type of the family; ``network`` reads it.
        input_size: (height, width) of the published evaluation.
        parameters: number of trainable parameters with 80 classes, counted here.
        published: the authors' numbers by name: ``AP``, ``GFLOPs``, ``parameters, M``, ...
        weights: URL of the authors' weights; empty if there are none.
    """

    title: str
    scale: Any
    input_size: tuple[int, int]
    parameters: int
    published: Mapping[str, float] = field(default_factory=dict)
    weights: str = ""


@dataclass(frozen=True)
class EvaluationProtocol:
    """How authors measured their published accuracy; ``mindyolo-ext reproduce`` repeats it.

    Args:
        numbers: fact of ``Variant.published`` -> metric to compare it with: one of
            ``EvalResult.values``, such as ``AP``; for a routed model one with a share,
            ``AP, 90 % easy``. Both are in percent.
        data: usual name of the data.
        images: number of images.
        settings: required settings, by key of the recipe; they override any recipe.
        input_style: name of the input convention of these weights; empty if there is only one.
        architecture: keywords of the builder that these weights have.
        remark: differences of the original that may affect the last digit.
    """

    numbers: Mapping[str, str]
    data: str
    images: int
    settings: Mapping[str, Any]
    input_style: str = ""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""


@dataclass(frozen=True)
class Family:
    """The record of a family. Its folder in ``models`` has the same name and holds the rest.

    Args:
        name: registry name, as in ``model.family``.
        title: the usual spelling.
        variants: by the name of the builder in ``network``; the first is the
            smallest.
        losses: names of the trainables in ``loss``; the first is the default of recipes.
        augmentations: names of the steps in the module ``augment``, if there is one.
        paper, repository: of the original.
        terms: license of the original and of its weights.
        verified: what was compared with the original program, in a few words, for the README.
        parents: families that this one may import from.
        input_styles: names of the input conventions that its weights exist with, the usual one
            first, as ``names`` describes them; empty if there is only one.
        has_original: whether ``original`` can run the original program for a comparison.
        protocols: how the published numbers of ``variants`` were measured; the first one that fits
            given weights is used.
    """

    name: str
    title: str
    variants: Mapping[str, Variant]
    losses: tuple[str, ...]
    augmentations: tuple[str, ...] = ()
    paper: str = ""
    repository: str = ""
    terms: str = ""
    verified: str = ""
    parents: tuple[str, ...] = ()
    input_styles: tuple[str, ...] = ()
    has_original: bool = False
    protocols: tuple[EvaluationProtocol, ...] = ()

    @property
    def smallest(self) -> str:
        """The name of the smallest variant."""
        return next(iter(self.variants))

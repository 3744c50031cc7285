"""Split a network for export: one part for most models, two or three for a routed one."""

from collections.abc import Sequence
from dataclasses import dataclass

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.contracts import Cell, Inference, Routed
from mindyolo_ext.engine.predictor import Predict
from mindyolo_ext.errors import UsageError

BOXES = ("boxes", "scores")
FEATURE = "feature"  # feature0, feature1, ... connect the first file with the others


@dataclass(frozen=True)
class Part:
    """A network that is exported to its own file.

    Args:
        name: suffix of the file's name, empty for a whole model.
        holds: description of the contents.
        network: the cell.
        inputs: input names, without the features.
        outputs: names of the first outputs.
        further: prefix of the names of all other outputs, which are numbered.
        reads_features: whether the features are inputs too, after ``inputs``.
    """

    name: str
    holds: str
    network: Cell
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    further: str = FEATURE
    reads_features: bool = False

    @property
    def is_entry(self) -> bool:
        """Whether it reads images only; later parts process one image that was sent to them."""
        return not self.reads_features

    def input_names(self, known: Sequence[str]) -> list[str]:
        """Names of all inputs; ``known`` are the arrays that earlier parts return."""
        return [
            *self.inputs,
            *(name for name in known if self.reads_features and name.startswith(FEATURE)),
        ]

    def output_names(self, count: int) -> list[str]:
        """Names of all ``count`` outputs."""
        return [*self.outputs, *(f"{self.further}{i}" for i in range(count - len(self.outputs)))]


class Glance(nn.Cell):
    """``model.glance``, with the first detector's head if ``head`` is set.

    Shape: images (B, 3, H, W) -> the outputs of ``FirstExit`` if ``head``; easiness (B,); features.
    """

    def __init__(self, model: Routed, *, head: bool, raw: bool):
        super().__init__(auto_prefix=False)
        self.model, self.head, self.raw = model, head, raw

    def construct(self, images: Tensor) -> tuple[Tensor, ...]:
        easiness, features = self.model.glance(images)
        found = ()
        if self.head:
            found = self.model.first_heads(features) if self.raw else self.model.first(features)
        return found + (easiness,) + features


class FirstExit(nn.Cell):
    """Shape: features -> boxes (B, A, 4) and scores (B, A, K), or the heads' logits if ``raw``."""

    def __init__(self, model: Routed, *, raw: bool):
        super().__init__(auto_prefix=False)
        self.model, self.raw = model, raw

    def construct(self, *features: Tensor) -> tuple[Tensor, ...]:
        return self.model.first_heads(features) if self.raw else self.model.first(features)


class SecondExit(nn.Cell):
    """Shape: images (B, 3, H, W), features -> as ``FirstExit``."""

    def __init__(self, model: Routed, *, raw: bool):
        super().__init__(auto_prefix=False)
        self.model, self.raw = model, raw

    def construct(self, images: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
        if self.raw:
            return self.model.second_heads(images, features)
        return self.model.second(images, features)


def parts_of(deploy: Inference, *, raw: bool, count: int | None = None) -> list[Part]:
    """Split a network into parts, in the order in which an image passes them.

    Args:
        deploy: the deploy form of a network.
        raw: return the network's own outputs instead of boxes and scores.
        count: for a routed model: 2 for the first detector with the router, and the second
            detector; 3 for the first backbone with the router, the head of the first detector, and
            the second detector. None means 2.

    A routed model without its router is one network, because it cannot choose an exit.

    Raises: ValueError for another count, or a count for a model that is not split.
    """
    if not (isinstance(deploy, Routed) and deploy.has_router):
        if count is not None:
            raise UsageError(
                f"parts={count}: {deploy.family} without a router is one network; leave parts out"
            )
        network, outputs = (deploy, ()) if raw else (Predict(deploy), BOXES)
        return [Part("", "", network, ("images",), outputs, further="output")]
    if count not in (None, 2, 3):
        raise UsageError(f"parts: a routed model becomes 2 or 3 files, got {count}")
    found = tuple(f"output{i}" for i in range(len(deploy.strides))) if raw else BOXES
    second = Part(
        "second",
        "second detector",
        SecondExit(deploy, raw=raw),
        ("images",),
        found,
        reads_features=True,
    )
    if count == 3:
        return [
            Part(
                "router",
                "first backbone and router",
                Glance(deploy, head=False, raw=raw),
                ("images",),
                ("easiness",),
            ),
            Part(
                "first",
                "head of the first detector",
                FirstExit(deploy, raw=raw),
                (),
                found,
                reads_features=True,
            ),
            second,
        ]
    return [
        Part(
            "first",
            "first detector and router",
            Glance(deploy, head=True, raw=raw),
            ("images",),
            (*found, "easiness"),
        ),
        second,
    ]

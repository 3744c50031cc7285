"""Trainables by name: builders of the Cell that the engine trains.

A trainable is a Cell ``(images (B,3,H,W), targets (B,M,5), mask (B,M)) -> (total, terms)``:
``total`` is a scalar, ``terms`` a ``(T,)`` tensor whose names stand in ``trainable.term_names``.
With several ranks both are the rank's SHARE of the loss of the global batch: shares add up
(normalisers go through ``backend.distributed.GlobalSum``), so n ranks with batch b equal one rank
with batch n*b.
"""
from collections.abc import Callable
from typing import TypeVar

from mindyolo_ext.backend import nn

Builder = TypeVar("Builder", bound=Callable[..., nn.Cell])
_BUILDERS: dict[str, Callable[..., nn.Cell]] = {}


def register_trainable(builder: Builder) -> Builder:
    """Return ``builder`` after entering it in the registry under its own name."""
    if builder.__name__ in _BUILDERS:
        raise ValueError(f"register_trainable: two builders are called {builder.__name__!r}")
    _BUILDERS[builder.__name__] = builder
    return builder


def list_trainables() -> list[str]:
    """All registered names, sorted."""
    return sorted(_BUILDERS)


def create_trainable(name: str, model: nn.Cell, **keywords: object) -> nn.Cell:
    """Build the trainable ``name`` around ``model``; ``keywords`` are the config's ``train.loss``.

    Raises: ValueError for a name that is not registered, TypeError for a keyword it does not take.
    """
    if name not in _BUILDERS:
        raise ValueError(f"create_trainable: unknown loss {name!r}, known are {', '.join(list_trainables())}")
    return _BUILDERS[name](model, **keywords)

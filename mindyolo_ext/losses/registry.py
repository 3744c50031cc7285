"""Trainables by name: builders of the Cell that the engine trains.

A trainable is a Cell ``(images (B,3,H,W), targets (B,M,5), mask (B,M)) -> (total, terms)``:
``total`` is a scalar, ``terms`` a ``(T,)`` tensor whose names stand in ``trainable.term_names``.
With several ranks both are the rank's SHARE of the loss of the global batch: shares add up
(normalisers go through ``backend.distributed.GlobalSum``), so n ranks with batch b equal one rank
with batch n*b.

A trainable may have ``begin_step(clock: StepClock)``, which the engine calls on the host before
    every
step: what depends on the epoch, or on random numbers, is set there, in parameters of the trainable.
"""

from dataclasses import dataclass

from mindyolo_ext.backend import nn
from mindyolo_ext.registry import Registry

_TRAINABLES = Registry("loss")
register_trainable = _TRAINABLES.register
list_trainables = _TRAINABLES.names
check_loss_keywords = _TRAINABLES.check_keywords
loss_keywords = _TRAINABLES.keywords


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


def create_trainable(name: str, model: nn.Cell, **keywords: object) -> nn.Cell:
    """Build the trainable ``name`` around ``model``; ``keywords`` are the config's ``train.loss``.

    Raises: ValueError for a name that is not registered, TypeError for a keyword it does not take.
    """
    return _TRAINABLES.builder(name)(model, **keywords)

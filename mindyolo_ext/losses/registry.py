"""Trainables by name: builders of the Cell that the engine trains.

A trainable is a Cell ``(images (B,3,H,W), targets (B,M,5), mask (B,M)) -> (total, terms)``:
``total`` is a scalar, ``terms`` a ``(T,)`` tensor whose names stand in ``trainable.term_names``.
With several ranks both are the rank's SHARE of the loss of the global batch: shares add up
(normalisers go through ``backend.distributed.GlobalSum``), so n ranks with batch b equal one rank
with batch n*b.
"""
from mindyolo_ext.backend import nn
from mindyolo_ext.registry import Registry

_TRAINABLES = Registry("loss")
register_trainable = _TRAINABLES.register
list_trainables = _TRAINABLES.names
check_loss_keywords = _TRAINABLES.check_keywords


def create_trainable(name: str, model: nn.Cell, **keywords: object) -> nn.Cell:
    """Build the trainable ``name`` around ``model``; ``keywords`` are the config's ``train.loss``.

    Raises: ValueError for a name that is not registered, TypeError for a keyword it does not take.
    """
    return _TRAINABLES.builder(name)(model, **keywords)

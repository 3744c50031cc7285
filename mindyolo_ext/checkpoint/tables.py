"""Find the names table of weights among those of all families. Loads no framework."""

from collections.abc import Mapping
from itertools import islice

import numpy as np

from mindyolo_ext.checkpoint.names import NamesTable, Recognition
from mindyolo_ext.checkpoint.wrappers import beginnings, hidden_weights
from mindyolo_ext.errors import CheckpointError, shown
from mindyolo_ext.models.registry import families, part


def tables() -> dict[str, NamesTable]:
    """Return the names table of every family, by the family's name."""
    return {name: table_of(name) for name in families()}


def table_of(family: str) -> NamesTable:
    """Return the table of ``family``. Raises: ValueError for an unknown family."""
    return part(family, "names").TABLE


def is_known(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether a family knows these names, or at least the characteristic names of its networks."""
    for table in tables().values():
        try:
            if table.recognize(tensors):
                return True
        except CheckpointError:  # of this family, but of an unknown size
            return True
    return False


def recognize(
    tensors: Mapping[str, np.ndarray], *, where: str, model: str | None = None
) -> tuple[NamesTable, Recognition]:
    """Find the table and the model that these tensors belong to.

    Args:
        tensors: as returned by the reader.
        where: file, for messages.
        model: registry name, if the user selects one.

    Raises: CheckpointError if no family knows the names, or several models fit and none is named.
    """
    found = [
        (table, candidate) for table in tables().values() for candidate in table.recognize(tensors)
    ]
    chosen = [pair for pair in found if model is None or pair[1].model == model]
    if len(chosen) == 1:
        return chosen[0]
    if not found:
        raise CheckpointError(f"{where}: not weights of a known family ({_hints(tensors)}")
    names = ", ".join(sorted({candidate.model for _, candidate in found}))
    if not chosen:
        raise CheckpointError(f"{where}: holds weights of {names}, not of {model}")
    raise CheckpointError(f"{where}: fits any of {names}; select one with --model")


def _hints(tensors: Mapping[str, np.ndarray]) -> str:
    """Return a hint for weights of no known family."""
    sample = ", ".join(
        f"{shown(name)} {tuple(array.shape)}" for name, array in islice(tensors.items(), 4)
    )
    text = f"{len(tensors)} tensors: {sample}, ...), wanted one of {', '.join(tables())}"
    prefix = hidden_weights(tensors, is_known)
    if prefix:
        return f"{text}; names after {shown(prefix)}. are known: select them with --entry {prefix}"
    return f"{text}; names begin with {beginnings(tensors)}" if beginnings(tensors) else text

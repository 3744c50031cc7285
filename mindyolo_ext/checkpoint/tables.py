"""The names tables of all families, and which of them some weights belong to. No framework."""

from collections.abc import Mapping

import numpy as np

from mindyolo_ext.checkpoint.names import NamesTable, Recognition
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.models.registry import families, part


def tables() -> dict[str, NamesTable]:
    """The names table of every family, by the family's name."""
    return {name: table_of(name) for name in families()}


def table_of(family: str) -> NamesTable:
    """The table of ``family``. Raises: ValueError for an unknown family."""
    return part(family, "names").TABLE


def recognise(
    tensors: Mapping[str, np.ndarray], *, where: str, model: str | None = None
) -> tuple[NamesTable, Recognition]:
    """The table and the model these tensors belong to.

    Args:
        tensors: as the reader gives them.
        where: file, for messages.
        model: registry name, when the user names it.

    Raises: CheckpointError if no family knows the names, or several models fit and none is named.
    """
    found = [
        (table, candidate) for table in tables().values() for candidate in table.recognise(tensors)
    ]
    chosen = [pair for pair in found if model is None or pair[1].model == model]
    if len(chosen) == 1:
        return chosen[0]
    sample = ", ".join(f"{name} {tuple(array.shape)}" for name, array in list(tensors.items())[:4])
    if not found:
        raise CheckpointError(
            f"{where}: no family knows these weights ({len(tensors)} tensors: {sample}, ...), "
            f"wanted one of {', '.join(tables())}"
        )
    names = ", ".join(sorted({candidate.model for _, candidate in found}))
    if not chosen:
        raise CheckpointError(f"{where}: holds weights of {names}, not of {model}")
    raise CheckpointError(f"{where}: may be any of {names}; name one with --model")

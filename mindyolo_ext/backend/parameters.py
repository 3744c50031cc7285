"""Parameters of a Cell as NumPy arrays by name, and by optimiser group."""
from collections.abc import Mapping, Sequence

import numpy as np
from mindspore import Parameter, Tensor, nn

GROUPINGS = {"single": ("all",), "by_kind": ("weight", "norm", "bias")}


def named_parameters(cell: nn.Cell) -> dict[str, Parameter]:
    """Every parameter by its place in ``cell`` (``backbone.first_conv.0.weight``)."""
    return dict(cell.parameters_and_names())


def parameter_values(cell: nn.Cell) -> dict[str, np.ndarray]:
    """Copies of all values by name."""
    return {name: p.asnumpy().copy() for name, p in named_parameters(cell).items()}


def load_parameters(cell: nn.Cell, values: Mapping[str, np.ndarray], *, strict: bool = True) -> list[str]:
    """Set the parameters of ``cell``; nothing is set unless everything fits.

    Args:
        strict: every parameter must be given. Otherwise those that are absent keep their values.

    Returns: names of the parameters that were not given.
    Raises: ValueError for a name ``cell`` does not have, a missing one (strict), or another shape.
    """
    own = named_parameters(cell)
    missing = [n for n in own if n not in values]
    unknown = [n for n in values if n not in own]
    shapes = [f"{n} {tuple(values[n].shape)}, wanted {tuple(own[n].shape)}"
              for n in own if n in values and tuple(values[n].shape) != tuple(own[n].shape)]
    for problem, names in (("missing", missing if strict else []), ("not of this model", unknown), ("shape of", shapes)):
        if names:
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            raise ValueError(f"parameters {problem}: {'; '.join(names[:4])}{more}")
    for name, parameter in own.items():
        if name in values:
            parameter.set_data(Tensor(np.array(values[name], dtype=parameter.asnumpy().dtype)))
    return missing


def parameter_groups(cell: nn.Cell, grouping: str) -> list[list[Parameter]]:
    """Trainable parameters by group.

    Args:
        grouping: ``single``, or ``by_kind``: weights of convolutions and dense layers, scales of norms, biases.

    Raises: ValueError for another grouping.
    """
    if grouping not in GROUPINGS:
        raise ValueError(f"train.optimizer.groups must be one of {tuple(GROUPINGS)}, got {grouping!r}")
    trainable = [(n, p) for n, p in named_parameters(cell).items() if p.requires_grad]
    if grouping == "single":
        return [[p for _, p in trainable]]
    groups: dict[str, list[Parameter]] = {"weight": [], "norm": [], "bias": []}
    for name, parameter in trainable:
        leaf = name.rsplit(".", 1)[-1]
        groups["bias" if leaf in ("bias", "beta") else "norm" if leaf == "gamma" else "weight"].append(parameter)
    return [groups[g] for g in GROUPINGS["by_kind"]]


def freeze(cell: nn.Cell, prefixes: Sequence[str]) -> int:
    """Exclude parameters whose name starts with a prefix from training; returns how many.

    Raises: ValueError for a prefix that matches nothing.
    """
    own = named_parameters(cell)
    for prefix in prefixes:
        hits = [p for n, p in own.items() if n.startswith(prefix)]
        if not hits:
            raise ValueError(f"train.freeze: no parameter starts with {prefix!r}; names start with "
                             f"{', '.join(sorted({n.split('.')[0] for n in own}))}")
        for parameter in hits:
            parameter.requires_grad = False
    return sum(not p.requires_grad for p in own.values())

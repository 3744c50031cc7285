"""Parameters of a cell as NumPy arrays by name, and by optimizer group."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from mindyolo_ext.backend import Parameter, Tensor
from mindyolo_ext.contracts import Cell
from mindyolo_ext.errors import CheckpointError, ConfigError

GROUPINGS = ("single", "by_kind")
# group by leaf name, else weight
KINDS = {"bias": "bias", "beta": "bias", "gamma": "norm", "ia": "norm", "im": "norm"}


def named_parameters(cell: Cell) -> dict[str, Parameter]:
    """Return every parameter by its path in ``cell`` (``backbone.first_conv.0.weight``)."""
    return dict(cell.parameters_and_names())


def parameter_values(cell: Cell) -> dict[str, np.ndarray]:
    """Return copies of all values by name."""
    return {name: p.asnumpy().copy() for name, p in named_parameters(cell).items()}


def load_parameters(
    cell: Cell, values: Mapping[str, np.ndarray], *, strict: bool = True
) -> list[str]:
    """Set the parameters of ``cell``; nothing is set unless everything fits.

    Args:
        strict: whether every parameter must be given; otherwise absent ones keep their values.

    Returns: names of the parameters that were not given.
    Raises: CheckpointError for a name ``cell`` does not have, a missing one (strict), or another
        shape.
    """
    own = named_parameters(cell)
    missing = [n for n in own if n not in values]
    unknown = [n for n in values if n not in own]
    shapes = [
        f"{n} {tuple(values[n].shape)}, wanted {tuple(own[n].shape)}"
        for n in own
        if n in values and tuple(values[n].shape) != tuple(own[n].shape)
    ]
    absent = missing if strict else []
    for problem, names in (
        ("missing", absent),
        ("not of this model", unknown),
        ("shape of", shapes),
    ):
        if names:
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            raise CheckpointError(f"parameters {problem}: {'; '.join(names[:4])}{more}")
    for name, parameter in own.items():
        if name in values:
            parameter.set_data(Tensor(np.array(values[name], dtype=parameter.asnumpy().dtype)))
    return missing


def state_values(parameters: Iterable[Parameter]) -> dict[str, np.ndarray]:
    """Return copies of the training state (optimizer, moving average) by name."""
    return {p.name: p.asnumpy().copy() for p in parameters}


def load_state_values(parameters: Iterable[Parameter], values: Mapping[str, np.ndarray]) -> None:
    """Restore the result of ``state_values``. Raises: CheckpointError if names or shapes differ."""
    own = {p.name: p for p in parameters}
    missing, extra = sorted(set(own) - set(values)), sorted(set(values) - set(own))
    if missing or extra:
        raise CheckpointError(
            f"optimizer state: missing {missing}, unexpected {extra}; were optimizer, moving "
            "average or accumulation changed since the checkpoint?"
        )
    for name, parameter in own.items():
        if tuple(values[name].shape) != tuple(parameter.shape):
            raise CheckpointError(
                f"optimizer state: {name} has shape {values[name].shape}, wanted {parameter.shape}"
            )
        # a copy in C order; np.ascontiguousarray would turn () into (1,)
        parameter.set_data(Tensor(np.array(values[name], order="C")))


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share learning rate and weight decay."""

    name: str
    parameters: tuple[Parameter, ...]
    weight_decay: float = 0.0


def parameter_groups(
    cell: Cell, grouping: str = "single", weight_decay: float = 0.0
) -> list[ParameterGroup]:
    """Group the trainable parameters; empty groups are left out.

    Args:
        grouping: ``single`` (group ``all``, decay on everything), or ``by_kind``: ``weight`` (of
            convolutions and dense layers, with decay), ``norm`` (scales of norms, implicit vectors
            ``ia`` and ``im``) and ``bias``, both without decay.
        weight_decay: weight decay of the groups that have it.

    Raises: ConfigError for another grouping, or if nothing is trainable.
    """
    if grouping not in GROUPINGS:
        raise ConfigError(f"train.optimizer.groups must be one of {GROUPINGS}, got {grouping!r}")
    members: dict[str, list[Parameter]] = {"all": [], "weight": [], "norm": [], "bias": []}
    for name, parameter in named_parameters(cell).items():
        if parameter.requires_grad:
            kind = KINDS.get(name.rsplit(".", 1)[-1], "weight")
            members["all" if grouping == "single" else kind].append(parameter)
    groups = [
        ParameterGroup(name, tuple(own), weight_decay if name in ("all", "weight") else 0.0)
        for name, own in members.items()
        if own
    ]
    if not groups:
        raise ConfigError("no parameter is trainable; is everything in train.freeze?")
    return groups


def layers_of(cell: Cell) -> list[str]:
    """Return the paths of a network's layers in order, the backbone's first.

    A layer is two levels below the network (``backbone.stem``), or one more for each nested
    backbone or list (``backbone.backbone.dark2.0``). So the first ten layers of YOLOX are its
    backbone, as in MindYOLO and ultralytics.
    """
    found: dict[str, None] = {}
    for name in named_parameters(cell):
        parts = name.split(".")[:-1]
        depth = 3 if parts[1:2] == ["backbone"] else 2
        depth += bool(parts[depth : depth + 1] and parts[depth].isdecimal())
        found[".".join(parts[:depth])] = None
    return sorted(found, key=lambda place: not place.startswith("backbone"))


def freeze(cell: Cell, names: Sequence[str | int]) -> int:
    """Exclude parameters from training. Return their number.

    Args:
        names: prefixes of parameter names (``backbone.stem``), patterns of whole names
            (``*.alpha``), or numbers of layers in ``layers_of``.

    Raises: ConfigError for a name that matches nothing, or a number that no layer has.
    """
    own, layers = named_parameters(cell), layers_of(cell)
    for name in names:
        if isinstance(name, int):
            if not 0 <= name < len(layers):
                raise ConfigError(
                    f"train.freeze: wanted layers from 0 to {len(layers) - 1}, got {name}; layer 0 "
                    f"is {layers[0]}, the last {layers[-1]}"
                )
            name = f"{layers[name]}."
        is_pattern = any(sign in name for sign in "*?[")
        hits = [
            p
            for n, p in own.items()
            if (fnmatchcase(n, name) if is_pattern else n.startswith(name))
        ]
        if not hits:
            raise ConfigError(
                f"train.freeze: no parameter {'matches' if is_pattern else 'starts with'} "
                f"{name!r}; names start with {', '.join(sorted({n.split('.')[0] for n in own}))}"
            )
        for parameter in hits:
            parameter.requires_grad = False
    return sum(not p.requires_grad for p in own.values())

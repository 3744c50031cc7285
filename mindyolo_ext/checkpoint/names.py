"""Map parameter names between PyTorch and MindSpore, by a table that each family supplies.

A table is total in both directions: every tensor of the source is used or ignored with a reason,
and every parameter of the target is filled exactly once. ``map_tensors`` checks this, and the
shapes.
"""

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from mindyolo_ext.checkpoint.metadata import COUNTER
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.input_spec import InputSpec

TORCH_TO_MINDSPORE = {"running_mean": "moving_mean", "running_var": "moving_variance"}
NORM_LEAVES = {"weight": "gamma", "bias": "beta"}
MINDSPORE_TO_TORCH = {
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "gamma": "weight",
    "beta": "bias",
    "embedding_table": "weight",
}
STATE_PREFIX = "state."  # prefix of entries that only a resumed training needs
FOLDED = "was folded into a kernel; the norm only adds the kernel's bias"
DEPLOYED = (
    "deployed weights: {layers} folded layers were converted to training form, with identity "
    "norms. Evaluation is the same; for fine-tuning set train.freeze_bn=true, or start from "
    "weights that were not deployed"
)
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
Plain = None | bool | int | float | str
_DEEPEST = 12  # parts of a name that ``renames`` may replace
_STATE_PREFIXES = ("moments.", "moment1.", "moment2.", "accum.", "velocity.", STATE_PREFIX)
_STATE_NAMES = {
    "global_step",
    "learning_rate",
    "momentum",
    "epoch_num",
    "step_num",
    "current_iterator_step",
    "last_overflow_iterator_step",
    "updates",
}


@dataclass(frozen=True)
class Ignored:
    """A tensor of the source that the target does not need, and why."""

    reason: str


@dataclass(frozen=True)
class Recognition:
    """A model that a table recognizes in a file.

    Args:
        model: registry name.
        num_classes: number of classes of the head; None if the file has no head.
        keywords: further builder keywords that follow from the shapes.
        prefix: the names' prefix in the whole model, for a file that holds only a part of it.
        part: name of that part, empty for a whole model.
        renames: prefix of a name in the file -> prefix of the name that ``NamesTable.to_target``
            takes, for modules with other names; see ``renamed``.
    """

    model: str
    num_classes: int | None
    keywords: dict[str, object] = field(default_factory=dict)
    prefix: str = ""
    part: str = ""
    renames: Mapping[str, str] = field(default_factory=dict)

    def original_name(self, name: str) -> str:
        """Return the name in the whole model of the file's tensor ``name``, as
        ``NamesTable.to_target`` takes it.
        """
        return renamed(self.prefix + name, self.renames)


@dataclass(frozen=True)
class InputEvidence:
    """Evidence of the input convention that weights were trained with.

    Args:
        style: a key of ``NamesTable.input_styles``; empty without evidence.
        reason: the evidence, or why there is none.
    """

    style: str
    reason: str


@dataclass(frozen=True)
class Unfolded:
    """Tensors in training form, see ``NamesTable.unfolded``.

    Args:
        tensors: name in the original's training form -> array.
        origins: such a name -> the name in the file, if they differ.
        supplied: such a name -> why the file has no tensor for it.
        warnings: facts to check.
    """

    tensors: Mapping[str, np.ndarray]
    origins: Mapping[str, str] = field(default_factory=dict)
    supplied: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class NamesTable(ABC):
    """Recognize a family's checkpoints and map their names.

    Names of MindSpore checkpoints that are already parameter names pass through unchanged.

    ``entry`` is the entry with the weights in the original's files, empty for a bare state dict;
    ``beside`` holds the further entries that the original's programs need to read a file written
    here.
    """

    family: str
    entry: str = ""
    beside: Mapping[str, Plain] = MappingProxyType({})

    @abstractmethod
    def recognize(self, tensors: Mapping[str, np.ndarray]) -> list[Recognition]:
        """Return the models that fit these names and shapes; empty if they are of another
        family.
        """

    def to_target(self, name: str, norms: frozenset[str]) -> str | Ignored:
        """Return our parameter name, or why the tensor is not needed.

        Args:
            name: name in the original's ``state_dict``, after ``renames``.
            norms: names of the normalization layers, see ``find_norms``.
        """
        return leaf_to_mindspore(name, norms)

    def to_source(self, name: str) -> str:
        """Return the original's name of our parameter ``name``, before ``renames`` are undone."""
        return leaf_to_torch(name)

    def renames(self, model: str) -> Mapping[str, str]:
        """Map prefixes of names in the original to ours, in the original's order, for modules with
        other names.

        Args:
            model: registry name.
        """
        return {}

    def unfolded(self, tensors: Mapping[str, np.ndarray]) -> Unfolded:
        """Return ``tensors`` in the original's training form; folded weights of a deployed model
        are unfolded.
        """
        return Unfolded(tensors)

    def constants(self, architecture: Mapping[str, Any] | None = None) -> Mapping[str, np.ndarray]:
        """Return entries of the original's state dict that are not parameters of ours, by the names
        that ``renames`` gives.

        Args:
            architecture: builder keywords; without them, only entries that never differ are
                returned.
        """
        return {}

    def builder_keywords(
        self,
        tensors: Mapping[str, np.ndarray],
        anchors: tuple[float, ...] | None,
    ) -> dict[str, object]:
        """Return builder keywords for anchors that the user gave: width, height, width, height ...
        in pixels.

        Raises: CheckpointError if the family has no anchors, or the file needs them and none were
            given.
        """
        if anchors is not None:
            raise CheckpointError(f"{self.family}: anchors were given, but its models have none")
        return {}

    def sliced(
        self,
        tensors: Mapping[str, np.ndarray],
        recognition: Recognition,
        keywords: Mapping[str, object],
    ) -> Mapping[str, np.ndarray]:
        """Cut ``tensors`` to the width of the model that ``keywords`` define, for files that
        narrower models start from.

        Raises: CheckpointError if that is not possible.
        """
        return tensors

    def remarks(
        self,
        recognition: Recognition,
        given: Mapping[str, object],
        *,
        size_given: bool = False,
    ) -> list[str]:
        """Return assumptions about facts that the weights do not state. They are reported as
        warnings and stored in the checkpoint.

        Args:
            recognition: recognized model of the weights.
            given: builder keywords that the user named.
            size_given: whether the user named the input size.
        """
        return []

    def input_styles(self, recognition: Recognition, usual: InputSpec) -> dict[str, InputSpec]:
        """Return the input conventions of this family's weights, the usual one first; empty if
        there is only one.

        Args:
            recognition: recognized model of the weights.
            usual: the input of a new model, in the requested size.
        """
        return {}

    def input_evidence(
        self, recognition: Recognition, tensors: Mapping[str, np.ndarray]
    ) -> InputEvidence:
        """Determine which of ``input_styles`` the weights were trained with, if possible."""
        return InputEvidence("", "the weights do not show it")


def weights_only(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the entries of a checkpoint without optimizer state and other state of a training."""
    return {name: array for name, array in arrays.items() if not name.startswith(STATE_PREFIX)}


def renamed(name: str, renames: Mapping[str, str]) -> str:
    """Replace the longest prefix of ``name`` (up to a dot) that ``renames`` contains."""
    known = _known_beginning(name, renames)
    return renames[known] + name[len(known) :] if known else name


def _known_beginning(name: str, known: Container[str]) -> str:
    """Return the longest prefix of ``name`` (up to a dot) that is ``known``; empty if none is."""
    name = ".".join(name.split(".", _DEEPEST)[:_DEEPEST])  # no table has deeper names
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def find_norms(names: Iterable[str]) -> frozenset[str]:
    """Return the names of the layers with running statistics, by either framework's leaf names."""
    leaves = ("running_mean", "moving_mean")
    return frozenset(name.rpartition(".")[0] for name in names if name.rpartition(".")[2] in leaves)


def leaf_to_mindspore(name: str, norms: frozenset[str]) -> str | Ignored:
    """Convert the leaf of ``name`` to MindSpore's; convolutions and dense layers keep theirs."""
    layer, dot, leaf = name.rpartition(".")
    if leaf == COUNTER:
        return Ignored("counts training batches; no batch norm here has such a counter")
    if name.startswith(_STATE_PREFIXES) or name in _STATE_NAMES:
        return Ignored("state of an optimizer, not a weight")
    if leaf in TORCH_TO_MINDSPORE:
        return layer + dot + TORCH_TO_MINDSPORE[leaf]
    if layer in norms and leaf in NORM_LEAVES:
        return layer + dot + NORM_LEAVES[leaf]
    return name


def leaf_to_torch(name: str) -> str:
    """Convert the leaf of ``name`` to PyTorch's."""
    layer, dot, leaf = name.rpartition(".")
    return layer + dot + MINDSPORE_TO_TORCH.get(leaf, leaf)


@dataclass
class Mapped:
    """The result of ``map_tensors``.

    Args:
        values: our parameter name -> array of the parameter's type.
        sources: source name -> our name.
        ignored: source name -> reason.
        supplied: our name -> why the file has no tensor for it.
        unfilled: our parameters that the file does not hold (only for a part of a model).
        counters: layer -> number of batches in its statistics.
        warnings: numbers that changed their type.
    """

    values: dict[str, np.ndarray] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    supplied: dict[str, str] = field(default_factory=dict)
    unfilled: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def map_tensors(
    table: NamesTable,
    recognition: Recognition,
    tensors: Mapping[str, np.ndarray],
    targets: Mapping[str, np.ndarray],
    *,
    where: str,
    epsilons: Mapping[str, float] | None = None,
) -> Mapped:
    """Map ``tensors`` to our names, completely.

    Args:
        targets: our parameters with their shapes and types.
        where: file, for messages.
        epsilons: our batch norm -> its epsilon; with them, norms that were folded into the
            preceding convolution are unfolded.

    Raises: CheckpointError that lists batch norms without statistics, the first tensors without a
        target, parameters filled twice or not at all, wrong shapes, and constants that differ from
        the family's.
    """
    form, constants = table.unfolded(tensors), table.constants()
    form = _unfold_norms(form, table, recognition, targets, epsilons or {})
    result = Mapped(warnings=list(form.warnings))
    norms = _all_norms(form.tensors, table, recognition, targets)
    unknown, twice, shapes, altered, narrowed = [], [], [], [], []
    for place, array in form.tensors.items():
        name, full = form.origins.get(place, place), recognition.original_name(place)
        target = table.to_target(full, norms)
        layer, _, leaf = full.rpartition(".")
        if leaf == COUNTER and array.size == 1:
            result.counters[layer] = int(array.reshape(()))
        if full in constants:
            result.ignored[name] = "a constant of the architecture"
            if not np.array_equal(array, constants[full]):
                altered.append(f"{name} is {_numbers(array)}, wanted {_numbers(constants[full])}")
        elif isinstance(target, Ignored):
            result.ignored[name] = target.reason
        elif target not in targets:
            unknown.append(f"{name} {tuple(array.shape)}")
        elif target in result.values:
            twice.append(f"{name} and another both fill {target}")
        elif tuple(array.shape) != tuple(targets[target].shape):
            shapes.append(
                f"{name} is {tuple(array.shape)}, {target} is {tuple(targets[target].shape)}"
            )
        else:
            result.values[target] = np.asarray(array, targets[target].dtype)
            if place in form.supplied:
                result.supplied[target] = form.supplied[place]
            else:
                result.sources[name] = target
            if array.dtype != targets[target].dtype:
                narrowed.append(name)
    unfilled = [name for name in targets if name not in result.values]
    _check_statistics(unfilled, result, recognition, where=where)
    checks = [
        ("unknown tensors", unknown),
        ("parameters filled twice", twice),
        ("shapes that differ", shapes),
        ("constants of the architecture with other numbers", altered),
    ]
    if not recognition.part and not shapes:
        checks.append(("parameters of the model that the file lacks", unfilled))
    result.unfilled = unfilled
    for what, items in checks:
        if items:
            more = f" and {len(items) - 5} more" if len(items) > 5 else ""
            raise CheckpointError(
                f"{where}: {len(items)} {what} ({recognition.model}): {'; '.join(items[:5])}{more}"
            )
    if narrowed:
        result.warnings.append(
            f"{len(narrowed)} tensors changed their number type: {', '.join(narrowed[:5])}"
        )
    return result


def _all_norms(
    names: Iterable[str],
    table: NamesTable,
    recognition: Recognition,
    targets: Mapping[str, np.ndarray],
) -> frozenset[str]:
    """Return the normalization layers of the file and of the model, by the original's names."""
    return find_norms(map(recognition.original_name, names)) | frozenset(
        table.to_source(f"{layer}.gamma").rpartition(".")[0] for layer in find_norms(targets)
    )


def _unfold_norms(
    form: Unfolded,
    table: NamesTable,
    recognition: Recognition,
    targets: Mapping[str, np.ndarray],
    epsilons: Mapping[str, float],
) -> Unfolded:
    """Add to ``form`` the batch norms that were folded into a convolution, as norms that only add
    the bias that the convolution received.
    """
    norms = _all_norms(form.tensors, table, recognition, targets)
    ours = {
        place: table.to_target(recognition.original_name(place), norms) for place in form.tensors
    }
    present = {target for target in ours.values() if isinstance(target, str)}
    folded = {
        bias: layer
        for bias, layer in _biases_of_norms(targets).items()
        if layer in epsilons
        and bias not in targets
        and not any(f"{layer}.{leaf}" in present for leaf in _NORM)
    }
    places = {place: folded[target] for place, target in ours.items() if target in folded}
    if not places:
        return form
    backwards = {ours: theirs for theirs, ours in recognition.renames.items()}
    tensors, origins, supplied = dict(form.tensors), dict(form.origins), dict(form.supplied)
    for place, layer in places.items():
        bias = tensors.pop(place)
        for leaf, value in _identity_norm(bias, epsilons[layer]).items():
            source = renamed(table.to_source(f"{layer}.{leaf}"), backwards)
            source = source.removeprefix(recognition.prefix)
            tensors[source] = value
            if leaf == "beta":
                origins[source] = place
            else:
                supplied[source] = FOLDED
    warnings = (*form.warnings, DEPLOYED.format(layers=len(places)))
    return Unfolded(tensors, origins, supplied, warnings)


def _identity_norm(bias: np.ndarray, epsilon: float) -> dict[str, np.ndarray]:
    """Build a norm that only adds ``bias``, by leaf name."""
    return {
        "gamma": np.ones_like(bias),
        "beta": bias,
        "moving_mean": np.zeros_like(bias),
        "moving_variance": np.full_like(bias, 1 - epsilon),
    }


def _biases_of_norms(targets: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Map the bias that the convolution before a batch norm would have to that norm, by our
    names.
    """
    result, before = {}, ""
    for name, array in targets.items():
        layer, _, leaf = name.rpartition(".")
        if leaf == "weight" and array.ndim == 4:
            before = layer
        elif leaf == "gamma" and before and targets[f"{before}.weight"].shape[0] == len(array):
            result[f"{before}.bias"] = layer
            before = ""
    return result


def _check_statistics(
    unfilled: Sequence[str], found: Mapped, recognition: Recognition, *, where: str
) -> None:
    """Raises: CheckpointError if batch norms came without their running statistics."""
    lacking = [
        name.removesuffix(".moving_variance")
        for name in unfilled
        if name.endswith(".moving_variance")
        and name.removesuffix("moving_variance") + "gamma" in found.values
    ]
    if lacking:
        raise CheckpointError(
            f"{where}: {len(lacking)} batch norms have no running statistics "
            f"(running_mean, running_var), as {lacking[0]} ({recognition.model}). Files of "
            "named_parameters() lack them; save the network's state_dict() instead"
        )


def to_source_tensors(
    table: NamesTable,
    parameters: Mapping[str, np.ndarray],
    counters: Mapping[str, int] | int | None = None,
    *,
    model: str = "",
    architecture: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Map our parameters to the original's names, with its constants and the batch counters of
    PyTorch's BatchNorm.

    Args:
        counters: layer -> batches counted, one number for all, or None for 0.
        model: registry name, for families whose names depend on it.
        architecture: keywords of the builder, for families whose constants depend on them.

    Raises: CheckpointError if two parameters would get the same name.
    """
    result: dict[str, np.ndarray] = {}
    constants = dict(table.constants(architecture))
    for name, array in parameters.items():
        source = table.to_source(name)
        for constant in [c for c in constants if c.split(".")[0] == source.split(".")[0]]:
            result[constant] = constants.pop(constant)  # constants come first in their module
        if source in result:
            raise CheckpointError(f"{table.family}: two parameters would be named {source!r}")
        result[source] = np.asarray(array)
        layer, _, leaf = source.rpartition(".")
        if leaf == "running_var":
            seen = counters.get(layer, 0) if isinstance(counters, Mapping) else counters or 0
            result[f"{layer}.{COUNTER}"] = np.array(seen, np.int64)
    return _as_the_original(result, table.renames(model))


def source_names(table: NamesTable, names: Iterable[str], model: str) -> dict[str, str]:
    """Map our names of the parameters of ``model`` to the original's."""
    backwards = {ours: theirs for theirs, ours in table.renames(model).items()}
    return {name: renamed(table.to_source(name), backwards) for name in names}


def _as_the_original(
    tensors: dict[str, np.ndarray], renames: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Return ``tensors`` with the original's names, in its order; names that ``renames`` does not
    contain come first.
    """
    if not renames:
        return tensors
    backwards = {ours: theirs for theirs, ours in renames.items()}
    order = {"": -1, **{ours: place for place, ours in enumerate(backwards)}}
    names = sorted(tensors, key=lambda name: order[_known_beginning(name, backwards)])
    return {renamed(name, backwards): tensors[name] for name in names}


def _numbers(array: np.ndarray) -> str:
    """Format shape and first numbers, for messages."""
    flat = np.asarray(array).reshape(-1)
    return (
        f"{tuple(np.shape(array))}: "
        + ", ".join(f"{value:g}" for value in flat[:4])
        + (", ..." if flat.size > 4 else "")
    )

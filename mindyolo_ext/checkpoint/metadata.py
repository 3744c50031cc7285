"""What our checkpoints say about themselves, and the seal that ties it to their numbers."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from mindyolo_ext import __version__
from mindyolo_ext.checkpoint.limits import (
    MAX_ARCHITECTURE_VALUES,
    MAX_EPOCH,
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    MAX_SIDE,
    MAX_SIZE,
)
from mindyolo_ext.class_names import MAX_CLASSES
from mindyolo_ext.errors import CheckpointError, shown
from mindyolo_ext.input_spec import InputSpec

FORMAT_VERSION = 1
COUNTER = "num_batches_tracked"  # in ``extra``: batches that PyTorch's batch norms have seen
DIGEST = "sha256"  # of the metadata's own text and of all arrays
_SEALED = ("count", "order")  # what a seal adds beside the digest


@dataclass
class CheckpointMetadata:
    """What a checkpoint says about itself.

    Args:
        model: registry name of the model.
        num_classes: classes of its head.
        class_names: in class order.
        input_spec: how a picture becomes its input.
        architecture: further keywords of the builder, for example ``anchors``.
        epoch: finished epochs, None if unknown.
        metrics: name -> number of the last evaluation.
        source: where converted weights come from: file, sha256, format, ema.
        extra: anything else that is JSON, for example thresholds.
        version: of the package that wrote the file.
    """

    model: str
    num_classes: int
    class_names: list[str] = field(default_factory=list)
    input_spec: InputSpec = field(default_factory=InputSpec)
    architecture: dict[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    version: str = __version__

    def __post_init__(self) -> None:
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"CheckpointMetadata: {len(self.class_names)} class names for {self.num_classes} "
                "classes"
            )

    def to_json(self, **more: object) -> str:
        """One line of JSON. Raises: TypeError for values that JSON does not have."""
        return json.dumps({**asdict(self), "format": FORMAT_VERSION, **more}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "CheckpointMetadata":
        """The metadata written by ``to_json``.

        Raises: ValueError for unknown or missing keys, and values of another type.
        """
        values = _mapping(text)
        known = {f.name for f in fields(cls)}
        version = values.pop("format", None)
        if version != FORMAT_VERSION:
            raise ValueError(
                f"CheckpointMetadata: format {shown(version, 20)!r}, this program reads "
                f"{FORMAT_VERSION}"
            )
        for key in (DIGEST, *_SEALED):
            values.pop(key, None)
        if set(values) - known or {"model", "num_classes"} - set(values):
            raise ValueError(
                f"CheckpointMetadata: keys {shown(sorted(values), 400)}, wanted {sorted(known)}"
            )
        check_types(values)
        try:
            spec = InputSpec.from_json(json.dumps(values.pop("input_spec", {})))
        except (TypeError, ArithmeticError) as error:
            raise ValueError(f"CheckpointMetadata: input_spec ({error})") from error
        return cls(input_spec=spec, **values)


def seal(
    metadata: CheckpointMetadata, arrays: Mapping[str, np.ndarray], *, with_order: bool = False
) -> str:
    """``metadata`` as JSON with the number of ``arrays`` and a digest of it all.

    Args:
        with_order: write down the names too, for a format that sorts them.

    Raises: TypeError for values that JSON does not have.
    """
    more = {"order": list(arrays)} if with_order else {}
    values = json.loads(metadata.to_json(count=len(arrays), **more))
    return json.dumps({**values, DIGEST: _digest(values, arrays)}, sort_keys=True)


def unseal(
    text: str | bytes, arrays: Mapping[str, np.ndarray], *, where: str
) -> tuple[dict[str, np.ndarray], CheckpointMetadata]:
    """``arrays`` in their order and the metadata in ``text``, after checking one against the other.

    A checkpoint from before there were digests is taken as it is.

    Args:
        where: file, for messages.

    Raises: CheckpointError for broken metadata, and for arrays that are not those that were sealed.
    """
    try:
        values = _mapping(text)
        metadata = CheckpointMetadata.from_json(text)
    except ValueError as error:
        raise CheckpointError(f"{where}: its metadata is broken ({error})") from error
    if values.get("count") != len(arrays):
        raise CheckpointError(
            f"{where}: holds {len(arrays)} parameters, it should hold "
            f"{shown(values.get('count'), 20)}: the file is cut off"
        )
    numbers = sum(array.size for array in arrays.values())
    if metadata.num_classes > numbers:
        raise CheckpointError(
            f"{where}: its metadata is broken ({metadata.num_classes} classes, but {numbers} "
            "numbers in all)"
        )
    wanted = values.pop(DIGEST, None)
    if wanted is not None and _digest(values, arrays) != wanted:
        raise CheckpointError(
            f"{where}: is damaged: its numbers or its metadata are not those that were written "
            f"(SHA-256 differs); take another copy"
        )
    order = values.get("order", list(arrays))
    if not _is_order(order, arrays):
        raise CheckpointError(f"{where}: its metadata is broken (order names other parameters)")
    return {name: arrays[name] for name in order}, metadata


def _is_order(order: object, arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether ``order`` lists the names of ``arrays``, each once."""
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        return False
    return len(order) == len(arrays) and set(order) == set(arrays)


def _mapping(text: str | bytes) -> dict[str, Any]:
    """The JSON mapping in ``text``. Raises: ValueError if it is anything else."""
    if len(text) > MAX_METADATA_BYTES:
        raise ValueError(
            f"CheckpointMetadata: {len(text)} bytes, the limit is {MAX_METADATA_BYTES}"
        )
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise ValueError("CheckpointMetadata: nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError(f"CheckpointMetadata: a {type(values).__name__}, wanted a mapping")
    if not _is_shallow(values):
        raise ValueError(f"CheckpointMetadata: nested deeper than {MAX_METADATA_DEPTH}")
    json.dumps(values, ensure_ascii=False).encode()  # refuses half characters
    return values


def _is_shallow(values: object) -> bool:
    """Whether no container stands more than ``MAX_METADATA_DEPTH`` deep."""
    level = [values]
    for _ in range(MAX_METADATA_DEPTH):
        level = [part for value in level for part in _parts(value)]
        if not level:
            return True
    return False


def _parts(value: object) -> list[Any]:
    """What stands in a container of JSON; nothing in anything else."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _leaves(value: object) -> int:
    """How many values stand in JSON, containers left out."""
    parts = _parts(value)
    return sum(map(_leaves, parts)) if isinstance(value, (dict, list)) else 1


def _digest(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over ``values`` and, in the order of their names, over all arrays with their names,
    types and shapes.
    """
    total = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        total.update(f"\n{name} {array.dtype.name} {list(array.shape)}\n".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def check_types(values: Mapping[str, Any]) -> None:
    """Raises: ValueError naming the first value of ``values`` that has another type."""
    for key, kinds, what in (
        ("model", str, "a text"),
        ("num_classes", int, "a whole number"),
        ("class_names", list, "a list of texts"),
        ("input_spec", dict, "a mapping"),
        ("architecture", dict, "a mapping"),
        ("epoch", (int, type(None)), "a whole number or null"),
        ("metrics", dict, "a mapping of numbers"),
        ("source", dict, "a mapping"),
        ("extra", dict, "a mapping"),
        ("version", str, "a text"),
    ):
        if key in values:
            _check(key, values[key], isinstance(values[key], kinds), what)
    count = values.get("num_classes", 0)
    number = not isinstance(count, bool) and 0 <= count <= MAX_CLASSES
    _check("num_classes", count, number, f"0 to {MAX_CLASSES}")
    epoch = values.get("epoch") or 0
    _check("epoch", epoch, abs(epoch) < MAX_EPOCH, f"less than {MAX_EPOCH}")
    architecture = values.get("architecture", {})
    small = _leaves(architecture) <= MAX_ARCHITECTURE_VALUES
    _check("architecture", architecture, small, f"at most {MAX_ARCHITECTURE_VALUES} values")
    names = values.get("class_names", [])
    _check("class_names", names, all(isinstance(n, str) for n in names), "a list of texts")
    metrics = values.get("metrics", {})
    numbers = all(map(_is_number, metrics.values()))
    _check("metrics", metrics, numbers, "a mapping of numbers")
    _check_input(values.get("input_spec", {}))
    _check_extra(values.get("extra", {}))


def _check_input(spec: Mapping[str, Any]) -> None:
    """Raises: ValueError for a value of the input convention that has another type than usual, or
    a size that no network takes.
    """
    for key, usual in asdict(InputSpec()).items():
        found = spec.get(key, usual)
        if key == "border":
            good = found is None or _is_number(found)
        elif isinstance(usual, (tuple, list)):
            good = isinstance(found, (tuple, list)) and len(found) == len(usual)
            good = good and all(map(_is_number, found))
        elif isinstance(usual, (bool, str)):
            good = isinstance(found, type(usual))
        else:
            good = _is_number(found)
        _check(f"input_spec.{key}", found, good, f"the like of {usual}")
    size = spec.get("size", (1, 1))
    _check("input_spec.size", size, max(size) <= MAX_SIDE, f"at most {MAX_SIDE} pixels a side")


def _is_number(value: object) -> bool:
    """Whether ``value`` is a number that counts or measures, of at most 64 bits."""
    if isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_SIZE


def _check_extra(extra: Mapping[str, Any]) -> None:
    """Raises: ValueError for an entry of ``extra`` that this package writes otherwise."""
    part = extra.get("part", {})
    texts = isinstance(part, dict) and all(isinstance(value, str) for value in part.values())
    _check("extra.part", part, texts, "a mapping of texts")
    seen = extra.get(COUNTER, 0)
    counts = seen.values() if isinstance(seen, dict) else [seen]
    sound = all(type(count) is int and 0 <= count <= MAX_SIZE for count in counts)
    _check(f"extra.{COUNTER}", seen, sound, "a whole number, or one for each layer")
    assumed = extra.get("assumed", [])
    remarks = isinstance(assumed, list) and all(isinstance(text, str) for text in assumed)
    _check("extra.assumed", assumed, remarks, "a list of texts")
    thresholds = extra.get("thresholds")
    if thresholds is None:
        return
    _check("extra.thresholds", thresholds, isinstance(thresholds, dict), "a mapping")
    values, size = thresholds.get("values"), thresholds.get("size")
    for key, found, most in (("values", values, 11), ("size", size, 2)):
        good = isinstance(found, list) and len(found) == most and all(map(_is_number, found))
        _check(f"extra.thresholds.{key}", found, good, f"{most} numbers")
    for key in ("lowest", "highest", "pictures"):
        found = thresholds.get(key)
        _check(f"extra.thresholds.{key}", found, _is_number(found), "a number")


def _check(key: str, value: object, good: bool, wanted: str) -> None:
    """Raises: ValueError unless ``good``."""
    if not good:
        found = shown(value if isinstance(value, int) else str(value), 40)
        raise ValueError(f"CheckpointMetadata: {key} is {found!r}, wanted {wanted}")

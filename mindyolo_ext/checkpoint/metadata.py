"""Metadata of our checkpoints, and the seal that ties it to their numbers."""

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
COUNTER = (
    "num_batches_tracked"  # in ``extra``: number of batches that PyTorch's batch norms have counted
)
DIGEST = "sha256"  # digest of the metadata's text and all arrays
_SEALED = ("count", "order")  # further keys that a seal adds


@dataclass
class CheckpointMetadata:
    """Metadata of a checkpoint.

    Args:
        model: registry name of the model.
        num_classes: classes of its head.
        class_names: in class order.
        input_spec: how an image becomes the network's input.
        architecture: further builder keywords, for example ``anchors``.
        epoch: number of finished epochs, None if unknown.
        metrics: name -> value of the last evaluation.
        source: where converted weights come from: file, sha256, format, ema.
        extra: any other JSON, for example thresholds.
        version: version of the package that wrote the file.
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
        """Return one line of JSON. Raises: TypeError for values that JSON does not support."""
        return json.dumps({**asdict(self), "format": FORMAT_VERSION, **more}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "CheckpointMetadata":
        """Read the output of ``to_json``.

        Raises: ValueError for unknown or missing keys, and values of the wrong type.
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
    """Return ``metadata`` as JSON with the number of ``arrays`` and a digest of everything.

    Args:
        with_order: also store the order of the names, for a format that sorts them.

    Raises: TypeError for values that JSON does not support.
    """
    more = {"order": list(arrays)} if with_order else {}
    values = json.loads(metadata.to_json(count=len(arrays), **more))
    return json.dumps({**values, DIGEST: _digest(values, arrays)}, sort_keys=True)


def unseal(
    text: str | bytes, arrays: Mapping[str, np.ndarray], *, where: str
) -> tuple[dict[str, np.ndarray], CheckpointMetadata]:
    """Check ``arrays`` against the sealed metadata in ``text``, and return both, arrays in their
    original order.

    A checkpoint of an old version without digest is accepted as it is.

    Args:
        where: file, for messages.

    Raises: CheckpointError for broken metadata, and for arrays that differ from the sealed ones.
    """
    try:
        values = _mapping(text)
        metadata = CheckpointMetadata.from_json(text)
    except ValueError as error:
        raise CheckpointError(f"{where}: its metadata is broken ({error})") from error
    if values.get("count") != len(arrays):
        raise CheckpointError(
            f"{where}: holds {len(arrays)} parameters, it should hold "
            f"{shown(values.get('count'), 20)}: the file is truncated"
        )
    numbers = sum(array.size for array in arrays.values())
    if metadata.num_classes > numbers:
        raise CheckpointError(
            f"{where}: its metadata is broken ({metadata.num_classes} classes, but {numbers} "
            "numbers in total)"
        )
    wanted = values.pop(DIGEST, None)
    if wanted is not None and _digest(values, arrays) != wanted:
        raise CheckpointError(
            f"{where}: is damaged: its numbers or its metadata have changed since it was written "
            f"(SHA-256 differs); use another copy"
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
    """Parse a JSON mapping. Raises: ValueError if ``text`` is anything else."""
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
    json.dumps(values, ensure_ascii=False).encode()  # refuses lone surrogates
    return values


def _is_shallow(values: object) -> bool:
    """Whether containers are nested at most ``MAX_METADATA_DEPTH`` deep."""
    level = [values]
    for _ in range(MAX_METADATA_DEPTH):
        level = [part for value in level for part in _parts(value)]
        if not level:
            return True
    return False


def _parts(value: object) -> list[Any]:
    """Return the values of a JSON container; empty for anything else."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _leaves(value: object) -> int:
    """Count the values in JSON, without containers."""
    parts = _parts(value)
    return sum(map(_leaves, parts)) if isinstance(value, (dict, list)) else 1


def _digest(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Compute SHA-256 over ``values`` and, sorted by name, all arrays with their names, types and
    shapes.
    """
    total = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        total.update(f"\n{name} {array.dtype.name} {list(array.shape)}\n".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def check_types(values: Mapping[str, Any]) -> None:
    """Raises: ValueError that names the first of ``values`` with a wrong type."""
    for key, kinds, what in (
        ("model", str, "a string"),
        ("num_classes", int, "an integer"),
        ("class_names", list, "a list of strings"),
        ("input_spec", dict, "a mapping"),
        ("architecture", dict, "a mapping"),
        ("epoch", (int, type(None)), "an integer or null"),
        ("metrics", dict, "a mapping of numbers"),
        ("source", dict, "a mapping"),
        ("extra", dict, "a mapping"),
        ("version", str, "a string"),
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
    _check("class_names", names, all(isinstance(n, str) for n in names), "a list of strings")
    metrics = values.get("metrics", {})
    numbers = all(map(_is_number, metrics.values()))
    _check("metrics", metrics, numbers, "a mapping of numbers")
    _check_input(values.get("input_spec", {}))
    _check_extra(values.get("extra", {}))


def _check_input(spec: Mapping[str, Any]) -> None:
    """Check the input convention. Raises: ValueError for a value of a wrong type, or a size that no
    network accepts.
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
        _check(f"input_spec.{key}", found, good, f"a value such as {usual}")
    size = spec.get("size", (1, 1))
    _check("input_spec.size", size, max(size) <= MAX_SIDE, f"at most {MAX_SIDE} pixels a side")


def _is_number(value: object) -> bool:
    """Whether ``value`` is a number, not a boolean, of at most 64 bits."""
    if isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_SIZE


def _check_extra(extra: Mapping[str, Any]) -> None:
    """Raises: ValueError for an entry of ``extra`` that this package would not write."""
    part = extra.get("part", {})
    texts = isinstance(part, dict) and all(isinstance(value, str) for value in part.values())
    _check("extra.part", part, texts, "a mapping of strings")
    seen = extra.get(COUNTER, 0)
    counts = seen.values() if isinstance(seen, dict) else [seen]
    sound = all(type(count) is int and 0 <= count <= MAX_SIZE for count in counts)
    _check(f"extra.{COUNTER}", seen, sound, "an integer, or one for each layer")
    assumed = extra.get("assumed", [])
    remarks = isinstance(assumed, list) and all(isinstance(text, str) for text in assumed)
    _check("extra.assumed", assumed, remarks, "a list of strings")
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

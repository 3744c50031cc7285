"""Find the part of a saved object that holds the weights, and the names of its tensors."""

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from mindyolo_ext.checkpoint.limits import (
    MAX_DEPTH,
    MAX_NODES,
    MAX_TENSORS,
    check_name,
)
from mindyolo_ext.checkpoint.records import (
    ArrayRecord,
    GlobalName,
    Record,
    StorageRecord,
    TensorRecord,
)
from mindyolo_ext.errors import CheckpointError, shown

EMA_ENTRIES = (
    "ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema_model",
    "ema_model_state_dict",
    "model_ema_state_dict",
    "averaged_model",
)
WEIGHT_ENTRIES = (
    "model",
    "state_dict",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "net_state_dict",
    "weights",
    "module",
    "params",
)
STATE_ENTRIES = (
    "optimizer",
    "optimizers",
    "optimizer_states",
    "scheduler",
    "lr_scheduler",
    "lr_schedulers",
    "scaler",
    "grad_scaler",
    "optimizer_state_dict",
    "callbacks",
    "loops",
)
_NAMES = {TensorRecord: "single tensor", ArrayRecord: "single array", StorageRecord: "storage"}
MAX_WRAPPED = 6  # nested entries, such as ``checkpoint`` around ``state_dict`` around ``ema``
_SEARCHED_DEPTH = 2  # levels below an entry that are searched for tensors
_SEARCHED_ITEMS = 64  # of each of them


def kind_of(value: Any) -> str:
    """Return a short name for the kind of ``value``."""
    if isinstance(value, (GlobalName, Record)):
        return shown(value.qualified)
    return _NAMES.get(type(value), type(value).__name__)


def label(key: Any) -> str:
    """Format a key of the file as a short text; an object becomes the name of its class."""
    if isinstance(key, str):
        return shown(key)
    return str(key) if isinstance(key, (bool, int, float, type(None))) else kind_of(key)


def labels(root: dict[Any, Any], most: int = 12) -> str:
    """List the first keys of ``root`` and how many more there are, for messages."""
    more = f" and {len(root) - most} more" if len(root) > most else ""
    return (", ".join(label(key) for key in islice(root, most)) + more) or "none"


def choose(root: Any, path: Path, *, prefer_ema: bool, entry: str | None) -> tuple[str, Any]:
    """Return the entry of a saved object that holds the weights: its name and its value.

    Args:
        root: the saved object.
        path: file, for messages.
        prefer_ema: take averaged weights if the file has both.
        entry: take exactly this entry.

    Raises: CheckpointError if no entry, or more than one, may hold the weights.
    """
    search = _Search((EMA_ENTRIES, WEIGHT_ENTRIES) if prefer_ema else (WEIGHT_ENTRIES, EMA_ENTRIES))
    if isinstance(root, Record) and root.dict_items and not root.is_module:
        root = root.dict_items
    if entry is not None and isinstance(root, dict) and entry in root:
        return entry, root[entry]
    if isinstance(root, Record) and (root.is_module or search.inner("", root)[0]):
        return search.inner("", root)
    if not isinstance(root, dict):
        raise CheckpointError(
            f"{path}: holds a {kind_of(root)}, wanted a state dict, a model or a dict of them"
        )
    if any(isinstance(value, TensorRecord) for value in root.values()) and not any(
        search.has_weights(root.get(key)) for key in EMA_ENTRIES + WEIGHT_ENTRIES
    ):
        return "", root
    for key in search.order:
        if search.has_weights(root.get(key)):
            return search.inner(key, root[key])
    others = [
        key
        for key, value in root.items()
        if isinstance(key, str) and key not in STATE_ENTRIES and search.has_weights(value)
    ]
    if len(others) == 1:
        return search.inner(others[0], root[others[0]])
    if others:
        names = ", ".join(label(key) for key in others[:8])
        raise CheckpointError(
            f"{path}: several entries hold weights: {names}; select one with --entry"
        )
    if root and all(isinstance(value, ArrayRecord) for value in root.values()):
        return "", root
    raise CheckpointError(
        f"{path}: no weights among its entries ({labels(root)}), wanted one of "
        + ", ".join(EMA_ENTRIES + WEIGHT_ENTRIES)
    )


class _Search:
    """Search for tensors, visiting each container once.

    Args:
        order: names of entries, by preference.
    """

    def __init__(self, order: tuple[tuple[str, ...], tuple[str, ...]]):
        self.order = order[0] + order[1]
        self._known: dict[tuple[int, int], bool] = {}

    def has_weights(self, value: Any, depth: int = 0) -> bool:
        """Whether ``value`` is a module or a mapping with tensors, possibly some levels down."""
        if isinstance(value, Record):
            if value.is_module:
                return True
            value = value.dict_items or value.state
        if not isinstance(value, dict):
            return False
        place = (id(value), depth)
        if place not in self._known:
            self._known[place] = False  # for a container that contains itself
            self._known[place] = any(
                isinstance(item, TensorRecord)
                for key, item in value.items()
                if isinstance(key, str)
            ) or (
                depth < _SEARCHED_DEPTH
                and any(
                    self.has_weights(item, depth + 1)
                    for key, item in islice(value.items(), _SEARCHED_ITEMS)
                    if isinstance(key, str)
                )
            )
        return self._known[place]

    def inner(self, name: str, value: Any) -> tuple[str, Any]:
        """Descend while an entry wraps the weights again, as in ``ema -> module``."""
        for _ in range(MAX_WRAPPED):
            if isinstance(value, Record):
                items = {} if value.is_module else value.dict_items or value.state
            else:
                items = value if isinstance(value, dict) else {}
            if any(isinstance(v, (TensorRecord, ArrayRecord)) for v in items.values()):
                break
            key = next((key for key in self.order if self.has_weights(items.get(key))), None)
            if key is None:
                break
            name, value = f"{name}/{key}".lstrip("/"), items[key]
        return name, value


@dataclass
class Flat:
    """The result of ``flatten``.

    Args:
        where: file, for messages.
        tensors: name -> record.
        left_out: number of parts that are not tensors; ``samples`` names the first.
    """

    where: str
    tensors: dict[str, TensorRecord | ArrayRecord] = field(default_factory=dict)
    left_out: int = 0
    samples: list[str] = field(default_factory=list)
    visited: int = 0

    def add(self, prefix: str, key: Any, item: Any) -> None:
        """Add one part that is not a container."""
        is_tensor = isinstance(item, TensorRecord) or (
            isinstance(item, ArrayRecord) and item.value is not None
        )
        if not is_tensor:
            self.left_out += 1
            if len(self.samples) < 5:
                what = f" ({kind_of(item)})" if isinstance(item, Record) else ""
                self.samples.append(shown(prefix) + label(key) + what)
            return
        name = self.joined(prefix, key)
        if name in self.tensors:
            raise CheckpointError(f"{self.where}: duplicate tensor {name!r}")
        if len(self.tensors) >= MAX_TENSORS:
            raise CheckpointError(f"{self.where}: more than {MAX_TENSORS} tensors")
        self.tensors[name] = item

    def joined(self, prefix: str, key: Any) -> str:
        """Return the name of a part. Raises: CheckpointError if ``key`` is not text or is too
        long.
        """
        if not isinstance(key, str):
            raise CheckpointError(f"{self.where}: a tensor's name is a {kind_of(key)}, wanted text")
        return check_name(prefix + key, "a tensor", where=self.where)

    def walk(self, prefix: str, item: Any, depth: int) -> None:
        """Add all parts of a module or mapping, in PyTorch's order."""
        if depth > MAX_DEPTH:
            raise self.too_much()
        if isinstance(item, Record) and item.is_module:
            found = item.state.get("_non_persistent_buffers_set")
            hidden = found if isinstance(found, set) else set()
            parts = [
                *item.state["_parameters"].items(),
                *((k, v) for k, v in item.state["_buffers"].items() if k not in hidden),
                *item.state["_modules"].items(),
            ]
            self.visited += len(parts)
            parts = [(key, part) for key, part in parts if part is not None]
        else:
            parts = list((item.dict_items if isinstance(item, Record) else item).items())
        self.visited += 1 + len(parts)
        if self.visited > MAX_NODES:
            raise self.too_much()
        for key, part in parts:
            if isinstance(key, str) and _is_container(part):
                self.walk(self.joined(prefix, key) + ".", part, depth + 1)
            else:
                self.add(prefix, key, part)

    def too_much(self) -> CheckpointError:
        """Create the error for an object that is too large or contains itself."""
        return CheckpointError(
            f"{self.where}: the object is nested deeper than {MAX_DEPTH} or has more than "
            f"{MAX_NODES} parts (does it contain itself?)"
        )


def flatten(value: Any, *, where: str) -> Flat:
    """Collect the tensors of a module, a state dict or nested dicts of them, by state-dict name.

    As in PyTorch, a module yields its parameters, its persistent buffers, then its children.

    Raises: CheckpointError for names that are not text, too long or duplicate, and for more parts
        than ``limits`` allows.
    """
    result = Flat(where)
    if isinstance(value, (dict, Record)):
        result.walk("", value, 0)
    return result


def _is_container(part: Any) -> bool:
    """Whether ``part`` may contain tensors."""
    return isinstance(part, dict) or (
        isinstance(part, Record) and (part.is_module or bool(part.dict_items))
    )

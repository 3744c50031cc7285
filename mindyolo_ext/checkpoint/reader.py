"""Reads checkpoints of other programs as NumPy arrays, without their code and without their
framework.

PyTorch files of every format (state dicts, training checkpoints, whole pickled models of classes
that are not installed), safetensors, and MindSpore ``.ckpt`` files. Nothing in a file is ever run,
see ``pickle_machine``.
"""

import hashlib
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.checkpoint.ckpt_file import DEFAULT_MAX_BYTES, read_ckpt
from mindyolo_ext.checkpoint.metadata import CheckpointMetadata, unseal
from mindyolo_ext.checkpoint.pickle_machine import storage_bytes
from mindyolo_ext.checkpoint.records import ArrayRecord, GlobalName, Record, TensorRecord
from mindyolo_ext.checkpoint.safetensors_file import read_safetensors
from mindyolo_ext.checkpoint.store import METADATA_KEY, METADATA_NAME
from mindyolo_ext.checkpoint.torch_files import TorchFile, TorchStream, TorchTar, TorchZip
from mindyolo_ext.errors import CheckpointError, MissingFileError

EMA_ENTRIES = ("ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model")
WEIGHT_ENTRIES = (
    "model",
    "state_dict",
    "model_state_dict",
    "net",
    "network",
    "weights",
    "module",
    "params",
)
STATE_ENTRIES = (
    "optimizer",
    "optimizers",
    "scheduler",
    "lr_scheduler",
    "lr_schedulers",
    "scaler",
    "grad_scaler",
    "optimizer_state_dict",
)
PREFIXES = ("module.", "_orig_mod.")
EMA_PREFIX = "ema."  # of names in a MindSpore file
MAX_NODES = 200_000
MAX_GROWTH = 8  # bytes in memory per byte in the file, where tensors share storages
MAX_DEPTH = 100


@dataclass
class ForeignCheckpoint:
    """A file's weights and what it says beside them.

    Args:
        path: the file.
        tensors: name -> array, names as the original program's ``state_dict`` gives them; half
            precision and bfloat16 are float32 here, integers stay integers.
        source_format: ``torch-zip``, ``torch-legacy``, ``torch-legacy-tar``, ``safetensors`` or
            ``mindspore``.
        sha256: of the file.
        entries: the top-level entries of the file, for example ``model``, ``ema``, ``optimizer``.
        entry: the entry the tensors come from; empty if the file is the state dict itself.
        used_ema: whether that entry holds averaged weights.
        stored_dtypes: element types in the file -> number of tensors.
        extras: plain data found beside the weights (epoch, best score, arguments).
        class_names: in class order, when the file tells them.
        own: the metadata, if the file is a checkpoint of ours.
        warnings: what a careful reader should know, such as weights that are not finite.
    """

    path: Path
    tensors: dict[str, np.ndarray]
    source_format: str
    sha256: str
    entries: list[str] = field(default_factory=list)
    entry: str = ""
    used_ema: bool = False
    stored_dtypes: dict[str, int] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] | None = None
    own: CheckpointMetadata | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def epoch(self) -> int | None:
        """The epoch the file tells, if any; -1 marks a file whose training is over."""
        for key in ("epoch", "start_epoch", "cur_epoch", "epoch_num"):
            value = self.extras.get(key)
            if isinstance(value, int) and not isinstance(value, bool):
                return value if value >= 0 else None
        return None


def read_checkpoint(
    path: str | Path,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    prefer_ema: bool = True,
    entry: str | None = None,
) -> ForeignCheckpoint:
    """The weights in ``path``, whatever program wrote them.

    Args:
        path: PyTorch file of any format, safetensors, or MindSpore ``.ckpt``.
        max_bytes: refuse files that declare more than this.
        prefer_ema: take averaged weights where the file holds both.
        entry: take this top-level entry and no other.

    Raises: FileNotFoundError; CheckpointError for a file that is no checkpoint or is damaged;
        UnsafeCheckpointError for one that carries more than weights.
    """
    path = Path(path)
    kind = sniff_format(path)
    if kind == "mindspore":
        result = _read_mindspore(path, max_bytes, prefer_ema=prefer_ema)
    elif kind == "safetensors":
        result = _read_safetensors(path, max_bytes)
    else:
        reader = {"torch-zip": TorchZip, "torch-legacy": TorchStream, "torch-legacy-tar": TorchTar}[
            kind
        ]
        try:
            with reader(path, max_bytes) as file:
                result = _read_torch(file, prefer_ema=prefer_ema, entry=entry)
        except (MemoryError, RecursionError, OSError) as error:
            raise CheckpointError(
                f"{path}: cannot be read ({type(error).__name__}: {error})"
            ) from error
    result.tensors = _without_prefixes(result)
    _warn_about_values(result)
    return result


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sniff_format(path: Path) -> str:
    """The format of ``path`` from its first bytes.

    Raises: FileNotFoundError; CheckpointError naming what the file seems to be instead.
    """
    if not path.exists():
        raise MissingFileError(f"{path}: no such file, wanted a checkpoint")
    if not path.is_file():
        raise CheckpointError(f"{path}: is not a file, wanted a checkpoint")
    wanted = "wanted a PyTorch, safetensors or MindSpore checkpoint"
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise CheckpointError(f"{path}: the file is empty, {wanted}")
    start = head.lstrip()[:64].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(f"{path}: is a web page, {wanted}: the download went wrong")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: is a Git LFS pointer, {wanted}: run git lfs pull")
    if head.startswith(b"PK\x03\x04"):
        return "torch-zip"
    if head.startswith(b"PK"):
        raise CheckpointError(f"{path}: is an empty or split zip archive, {wanted}")
    if head[:1] == b"\x80":
        return "torch-legacy"
    if (
        len(head) > 9
        and head[8:9] == b"{"
        and 2 <= struct.unpack("<Q", head[:8])[0] <= path.stat().st_size - 8
    ):
        return "safetensors"
    if head[:1] == b"\x0a" and not start.startswith(b"{"):
        return "mindspore"
    if len(head) == 512 and (
        head[257:262] == b"ustar"
        or head.startswith((b"storages\0", b"tensors\0", b"pickle\0", b"sys_info\0"))
    ):
        return "torch-legacy-tar"
    raise CheckpointError(f"{path}: begins with {head[:8]!r}, which is no known format, {wanted}")


def _read_torch(file: TorchFile, *, prefer_ema: bool, entry: str | None) -> ForeignCheckpoint:
    """Pick the weights out of a PyTorch file and read their numbers."""
    root = file.read()
    name, weights = _choose(root, file.path, prefer_ema=prefer_ema, entry=entry)
    records, skipped = flatten(weights, where=str(file.path))
    if not records:
        raise CheckpointError(
            f"{file.path}: {_describe(name, root)} holds no tensors, wanted named weights"
        )
    total = sum(4 * record.count for record in records.values() if isinstance(record, TensorRecord))
    if total > file.max_bytes:
        raise CheckpointError(
            f"{file.path}: the weights need {total} bytes, the limit is {file.max_bytes}"
        )
    storages = {r.storage.key: r.storage for r in records.values() if isinstance(r, TensorRecord)}
    own = sum(storage_bytes(storage) for storage in storages.values())
    if total > MAX_GROWTH * own + (64 << 20):
        raise CheckpointError(
            f"{file.path}: the weights repeat {own} bytes until they need {total}, wanted numbers "
            "of their own"
        )
    stored: dict[str, int] = {}
    tensors = {}
    for key, record in records.items():
        if isinstance(record, TensorRecord):
            dtype, tensors[key] = record.dtype, file.tensor(record)
        else:
            assert record.value is not None  # flatten leaves the others out
            dtype, tensors[key] = str(record.value.dtype), _from_numpy(record.value)
        stored[dtype] = stored.get(dtype, 0) + 1
    result = ForeignCheckpoint(
        file.path,
        tensors,
        file.source_format,
        file_sha256(file.path),
        entry=name,
        used_ema=name.split("/")[0] in EMA_ENTRIES,
        stored_dtypes=stored,
    )
    if skipped:
        result.warnings.append(
            f"{len(skipped)} entries beside the tensors are no tensors and were left out: "
            + ", ".join(skipped[:5])
        )
    if isinstance(root, dict) and name:
        result.entries = [str(key) for key in root]
        plain = _Plain(file)
        result.extras = {
            str(key): plain(value)
            for key, value in root.items()
            if key != name.split("/")[0] and key not in STATE_ENTRIES + WEIGHT_ENTRIES + EMA_ENTRIES
        }
    result.class_names = _class_names(root, weights, _Plain(file))
    return result


def _choose(root: Any, path: Path, *, prefer_ema: bool, entry: str | None) -> tuple[str, Any]:
    """(name of the entry, what holds the weights) of the saved object."""
    if entry is not None:
        if not isinstance(root, dict) or entry not in root:
            known = ", ".join(str(key) for key in root) if isinstance(root, dict) else "none"
            raise CheckpointError(f"{path}: has no entry {entry!r}, its entries are {known[:300]}")
        return entry, root[entry]
    if isinstance(root, Record) and root.is_module:
        return "", root
    if isinstance(root, Record) and root.dict_items:
        root = root.dict_items
    if not isinstance(root, dict):
        raise CheckpointError(
            f"{path}: holds a {_kind(root)}, wanted a state dict, a model or a dict of them"
        )
    if any(isinstance(value, TensorRecord) for value in root.values()) and not any(
        _has_weights(root.get(key)) for key in EMA_ENTRIES + WEIGHT_ENTRIES
    ):
        return "", root
    order = EMA_ENTRIES + WEIGHT_ENTRIES if prefer_ema else WEIGHT_ENTRIES + EMA_ENTRIES
    for key in order:
        if _has_weights(root.get(key)):
            return _inner(key, root[key])
    others = [
        key
        for key, value in root.items()
        if isinstance(key, str) and key not in STATE_ENTRIES and _has_weights(value)
    ]
    if len(others) == 1:
        return _inner(others[0], root[others[0]])
    if others:
        raise CheckpointError(
            f"{path}: weights stand under {', '.join(others[:8])}; say which entry is wanted"
        )
    if root and all(isinstance(value, ArrayRecord) for value in root.values()):
        return "", root
    raise CheckpointError(
        f"{path}: no weights among its entries "
        f"({', '.join(str(key)[:40] for key in list(root)[:12]) or 'none'}), wanted one of "
        + ", ".join(EMA_ENTRIES + WEIGHT_ENTRIES)
    )


def _inner(name: str, value: Any) -> tuple[str, Any]:
    """Look one level deeper where an entry wraps the weights again, as in ``ema -> module``."""
    if isinstance(value, dict) and not any(
        isinstance(v, (TensorRecord, ArrayRecord)) for v in value.values()
    ):
        for key in WEIGHT_ENTRIES + EMA_ENTRIES:
            if _has_weights(value.get(key)):
                return f"{name}/{key}", value[key]
    if isinstance(value, Record) and not value.is_module:
        for key in WEIGHT_ENTRIES + EMA_ENTRIES:
            if _has_weights(value.state.get(key)):
                return f"{name}/{key}", value.state[key]
    return name, value


def _has_weights(value: Any, depth: int = 0) -> bool:
    """Whether ``value`` is a module or a mapping with tensors, directly or one or two levels
    down.
    """
    if isinstance(value, Record):
        if value.is_module:
            return True
        value = value.dict_items or value.state
    if not isinstance(value, dict):
        return False
    if any(isinstance(v, TensorRecord) for k, v in value.items() if isinstance(k, str)):
        return True
    return depth < 2 and any(
        _has_weights(v, depth + 1) for k, v in list(value.items())[:64] if isinstance(k, str)
    )


def flatten(value: Any, *, where: str) -> tuple[dict[str, TensorRecord | ArrayRecord], list[str]]:
    """State-dict names of a module, a state dict or nested dicts of them; then what was no tensor.

    A module gives its parameters, its buffers except the non-persistent ones, then its children, as
    PyTorch does.

    Raises: CheckpointError for names that are no text, twice the same name, or endless nesting.
    """
    result: dict[str, TensorRecord | ArrayRecord] = {}
    skipped: list[str] = []
    visited = 0

    def add(name: str, item: Any) -> None:
        if not isinstance(item, TensorRecord) and not (
            isinstance(item, ArrayRecord) and item.value is not None
        ):
            skipped.append(name)
        elif name in result:
            raise CheckpointError(f"{where}: two tensors are called {name!r}")
        else:
            result[name] = item

    def text(key: Any) -> str:
        if not isinstance(key, str):
            raise CheckpointError(f"{where}: a tensor's name is a {_kind(key)}, wanted text")
        return key

    def walk(prefix: str, item: Any, depth: int) -> None:
        nonlocal visited
        visited += 1
        if visited > MAX_NODES or depth > MAX_DEPTH:
            raise CheckpointError(
                f"{where}: the object is nested deeper than {MAX_DEPTH} or has more than "
                f"{MAX_NODES} parts (does it contain itself?)"
            )
        if isinstance(item, Record) and item.is_module:
            hidden = item.state.get("_non_persistent_buffers_set") or ()
            for key, tensor in item.state["_parameters"].items():
                if tensor is not None:
                    add(prefix + text(key), tensor)
            for key, tensor in item.state["_buffers"].items():
                if tensor is not None and key not in hidden:
                    add(prefix + text(key), tensor)
            for key, child in item.state["_modules"].items():
                if child is not None:
                    walk(prefix + text(key) + ".", child, depth + 1)
            return
        if isinstance(item, Record):
            item = item.dict_items
        for key, part in item.items():
            if isinstance(part, dict) or (
                isinstance(part, Record) and (part.is_module or part.dict_items)
            ):
                walk(prefix + text(key) + ".", part, depth + 1)
            else:
                add(prefix + text(key), part)

    if isinstance(value, (dict, Record)):
        walk("", value, 0)
    return result, skipped


def _from_numpy(array: np.ndarray) -> np.ndarray:
    """A native, contiguous copy; float16 widened."""
    dtype = array.dtype.newbyteorder("=")
    return np.array(array, dtype=np.float32 if dtype == np.float16 else dtype, order="C")


class _Plain:
    """Turns extras into plain Python data; what is large, deep or unknown becomes a short text."""

    def __init__(self, file: TorchFile):
        self.file = file
        self.nodes = 0

    def __call__(self, value: Any, depth: int = 0) -> Any:
        self.nodes += 1
        if self.nodes > 20_000 or depth > 12:
            return "..."
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, TensorRecord):
            small = value.count <= 1024 and storage_bytes(value.storage) <= 1 << 20
            return self.file.tensor(value).tolist() if small else f"tensor {value.shape}"
        if isinstance(value, ArrayRecord):
            if value.value is None or value.value.size > 1024:
                return "array"
            return value.value.item() if value.scalar else value.value.tolist()
        if isinstance(value, dict):
            return {
                key
                if isinstance(key, (int, float, bool))
                else str(key)
                if isinstance(key, str)
                else _kind(key): self(item, depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self(item, depth + 1) for item in value]
        if isinstance(value, Record) and not value.is_module:
            if value.cls.module.startswith("pathlib"):
                return "/".join(str(part) for part in value.args if isinstance(part, str))
            content = value.state or value.dict_items or value.list_items or value.args
            return self(content, depth + 1) if content else value.qualified
        return _kind(value)


def _class_names(root: Any, weights: Any, plain: _Plain) -> list[str] | None:
    """The class names a file tells: an entry or a model attribute called ``names`` or alike."""
    holders = [
        holder
        for holder in ((root, root.get("meta")) if isinstance(root, dict) else ())
        if isinstance(holder, dict)
    ]
    if isinstance(weights, Record):
        holders.append(weights.state)
    for holder in holders:
        for key in ("names", "class_names", "classes", "CLASSES"):
            if not isinstance(holder.get(key), (list, tuple, dict)):
                continue
            names = plain(holder[key])
            if isinstance(names, dict) and sorted(names, key=str) == sorted(
                range(len(names)), key=str
            ):
                names = [names[index] for index in range(len(names))]
            if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
                return names
    return None


def _read_mindspore(path: Path, max_bytes: int, *, prefer_ema: bool) -> ForeignCheckpoint:
    """A MindSpore ``.ckpt``.

    MindYOLO writes its moving average with ``ema.`` before each name, alone or beside the raw
    weights.
    """
    content = read_ckpt(path, max_bytes=max_bytes)
    arrays, stored = content.arrays, content.stored_dtypes
    own = None
    if METADATA_NAME in arrays:
        text = arrays.pop(METADATA_NAME).tobytes()
        del stored[METADATA_NAME]
        arrays, own = unseal(text, arrays, where=str(path))
    averaged = {
        name.removeprefix(EMA_PREFIX): array
        for name, array in arrays.items()
        if name.startswith(EMA_PREFIX)
    }
    raw = {name: array for name, array in arrays.items() if not name.startswith(EMA_PREFIX)}
    used_ema = bool(averaged) and (prefer_ema or not averaged.keys() <= raw.keys())
    chosen = {**raw, **averaged} if used_ema else raw
    return ForeignCheckpoint(
        path,
        {name: _from_numpy(array) for name, array in chosen.items()},
        "mindspore",
        file_sha256(path),
        used_ema=used_ema,
        stored_dtypes=dict(Counter(stored.values())),
        extras=dict(content.texts),
        own=own,
    )


def _read_safetensors(path: Path, max_bytes: int) -> ForeignCheckpoint:
    """A safetensors file of any program."""
    content = read_safetensors(path, max_bytes=max_bytes)
    arrays, texts, own = content.arrays, content.metadata, None
    if METADATA_KEY in texts:
        arrays, own = unseal(texts.pop(METADATA_KEY), arrays, where=str(path))
    return ForeignCheckpoint(
        path,
        {name: _from_numpy(array) for name, array in arrays.items()},
        "safetensors",
        file_sha256(path),
        stored_dtypes=dict(Counter(content.stored_dtypes.values())),
        extras=dict(texts),
        own=own,
    )


def _without_prefixes(checkpoint: ForeignCheckpoint) -> dict[str, np.ndarray]:
    """The tensors without the prefixes that wrappers for several devices or compilation put
    before every name.
    """
    tensors = checkpoint.tensors
    while True:
        prefix = next(
            (p for p in PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None
        )
        if prefix is None:
            return tensors
        tensors = {name[len(prefix) :]: array for name, array in tensors.items()}


def _warn_about_values(checkpoint: ForeignCheckpoint) -> None:
    """Report weights that are not finite; they are kept as they are."""
    broken = [
        name
        for name, array in checkpoint.tensors.items()
        if array.dtype.kind == "f" and not np.isfinite(array).all()
    ]
    if broken:
        checkpoint.warnings.append(
            f"{len(broken)} tensors hold values that are not finite: " + ", ".join(broken[:5])
        )


def _kind(value: Any) -> str:
    """A short name of what ``value`` is."""
    return value.qualified if isinstance(value, (GlobalName, Record)) else type(value).__name__


def _describe(name: str, root: Any) -> str:
    return f"entry {name!r}" if name else f"the {_kind(root)}"

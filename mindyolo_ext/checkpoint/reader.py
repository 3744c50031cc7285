"""Read checkpoints of other programs as NumPy arrays, without their code or framework.

Supports PyTorch files of every format (state dicts, training checkpoints, whole pickled models
whose classes are not installed), safetensors, and MindSpore ``.ckpt`` files. Nothing in a file is
ever run, see ``pickle_machine``.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.checkpoint.choose import (
    EMA_ENTRIES,
    STATE_ENTRIES,
    WEIGHT_ENTRIES,
    Flat,
    choose,
    flatten,
    kind_of,
    label,
)
from mindyolo_ext.checkpoint.ckpt_file import read_ckpt
from mindyolo_ext.checkpoint.file_kinds import sniff_format
from mindyolo_ext.checkpoint.limits import (
    MAX_EXTRAS,
    MAX_FILE_BYTES,
    check_growth,
)
from mindyolo_ext.checkpoint.metadata import CheckpointMetadata, unseal
from mindyolo_ext.checkpoint.pickle_machine import item_size, storage_bytes
from mindyolo_ext.checkpoint.records import ArrayRecord, Record, TensorRecord
from mindyolo_ext.checkpoint.safetensors_file import read_safetensors
from mindyolo_ext.checkpoint.store import METADATA_KEY, METADATA_NAME
from mindyolo_ext.checkpoint.torch_files import TorchFile, TorchStream, TorchTar, TorchZip
from mindyolo_ext.class_names import MAX_CLASSES
from mindyolo_ext.errors import CheckpointError

PREFIXES = ("module.", "_orig_mod.")
INNER_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
EMA_PREFIX = "ema."  # prefix of names in a MindSpore file
LONGEST_EXTRA = 10_000  # characters of a text besides the weights that is kept


@dataclass
class ForeignCheckpoint:
    """A file's weights and the other data in it.

    Args:
        path: the file.
        tensors: name -> array, by the names of the original program's ``state_dict``; half
            precision and bfloat16 are converted to float32, integers stay integers.
        source_format: ``torch-zip``, ``torch-legacy``, ``torch-legacy-tar``, ``safetensors`` or
            ``mindspore``.
        sha256: SHA-256 of the file.
        entries: the top-level entries of the file, for example ``model``, ``ema``, ``optimizer``.
        entry: the entry that the tensors come from; empty if the file is the state dict itself.
        used_ema: whether that entry holds averaged weights.
        stored_dtypes: element types in the file -> number of tensors.
        extras: plain data besides the weights (epoch, best score, arguments).
        class_names: in class order, if the file contains them.
        own: the metadata, if the file is one of our checkpoints.
        warnings: facts to check, such as non-finite weights.
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
        """The epoch that the file states, if any; -1 marks a finished training."""
        for key in ("epoch", "start_epoch", "cur_epoch", "epoch_num"):
            value = self.extras.get(key)
            if isinstance(value, int) and not isinstance(value, bool):
                return value if 0 <= value < 1 << 31 else None
        return None


def read_checkpoint(
    path: str | Path,
    *,
    max_bytes: int = MAX_FILE_BYTES,
    prefer_ema: bool = True,
    entry: str | None = None,
) -> ForeignCheckpoint:
    """Read the weights in ``path``, whatever program wrote them.

    Args:
        path: PyTorch file of any format, safetensors, or MindSpore ``.ckpt``.
        max_bytes: refuse files that declare more than this.
        prefer_ema: take averaged weights if the file has both.
        entry: take exactly this top-level entry, or the tensors whose names begin with it and a
            dot.

    Raises: FileNotFoundError; CheckpointError for a file that is not a checkpoint or is damaged;
        UnsafeCheckpointError for one that contains more than weights.
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
    result.tensors = _without_prefixes(result.tensors)
    if entry is not None and result.entry != entry:
        _keep_only(result, entry)
    _warn_about_values(result)
    return result


def file_sha256(path: str | Path) -> str:
    """Compute the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _read_torch(file: TorchFile, *, prefer_ema: bool, entry: str | None) -> ForeignCheckpoint:
    """Find the weights in a PyTorch file and read their numbers."""
    root = file.read()
    name, weights = choose(root, file.path, prefer_ema=prefer_ema, entry=entry)
    flat = flatten(weights, where=str(file.path))
    if not flat.tensors:
        what = f"entry {name!r}" if name else f"the {kind_of(root)}"
        raise CheckpointError(f"{file.path}: {what} holds no tensors, wanted named weights")
    result = ForeignCheckpoint(
        file.path,
        _numbers(file, flat),
        file.source_format,
        file_sha256(file.path),
        entry=name,
        used_ema=any(part in EMA_ENTRIES for part in name.split("/")),
        stored_dtypes=dict(Counter(map(_dtype_name, flat.tensors.values()))),
        warnings=_warnings(file, flat),
    )
    if isinstance(root, dict) and name:
        result.entries = [label(key) for key in root]
        plain = _Plain(file)
        result.extras = {
            label(key): plain(value)
            for key, value in root.items()
            if key != name.split("/")[0] and key not in STATE_ENTRIES + WEIGHT_ENTRIES + EMA_ENTRIES
        }
    result.class_names = _class_names(root, weights, file)
    return result


def _warnings(file: TorchFile, flat: Flat) -> list[str]:
    """List what is unusual about a readable file."""
    warnings = []
    if flat.left_out:
        warnings.append(
            f"{flat.left_out} entries are not tensors and were skipped: " + ", ".join(flat.samples)
        )
    if not file.has_checksums:
        warnings.append(
            "the file has no checksums (PyTorch's set_crc32_options(False)), so damage remains "
            "unnoticed"
        )
    return warnings


def _numbers(file: TorchFile, flat: Flat) -> dict[str, np.ndarray]:
    """Read the arrays of all tensors, in their order; each storage is read once.

    Raises: CheckpointError if they need more memory than a file of this size justifies.
    """
    records, own = flat.tensors, 0
    storages: dict[str, int] = {}
    for record in records.values():
        if isinstance(record, TensorRecord):
            base = record.storage
            end = base.offset * item_size(base.dtype) + storage_bytes(base)
            storages[base.key] = max(storages.get(base.key, 0), end)
        else:
            own += _memory(record)
    needed = sum(map(_memory, records.values()))
    own = min(own + sum(storages.values()), file.path.stat().st_size)
    check_growth(needed, own, where=str(file.path), limit=file.max_bytes)
    arrays: dict[str, np.ndarray] = {}
    for name in sorted(records, key=lambda name: _storage_key(records[name])):
        record = records[name]
        if isinstance(record, TensorRecord):
            arrays[name] = file.tensor(record)
        else:
            assert record.value is not None  # guaranteed by flatten
            arrays[name] = _from_numpy(record.value)
    return {name: arrays[name] for name in records}


def _storage_key(record: TensorRecord | ArrayRecord) -> str:
    """Return the location of the numbers of ``record``."""
    return record.storage.key if isinstance(record, TensorRecord) else ""


def _memory(record: TensorRecord | ArrayRecord) -> int:
    """Return the bytes that the array of ``record`` takes; half precision is widened."""
    if isinstance(record, TensorRecord):
        short = record.dtype in ("float16", "bfloat16")
        return record.count * (4 if short else item_size(record.dtype))
    return 0 if record.value is None else 2 * record.value.nbytes


def _dtype_name(record: TensorRecord | ArrayRecord) -> str:
    """Return the element type in the file."""
    return record.dtype if isinstance(record, TensorRecord) else str(_value(record).dtype)


def _value(record: ArrayRecord) -> np.ndarray:
    """Read the array of a record from ``flatten``."""
    assert record.value is not None
    return record.value


def _from_numpy(array: np.ndarray) -> np.ndarray:
    """Return a native, contiguous copy, with float16 widened."""
    dtype = array.dtype.newbyteorder("=")
    return np.array(array, dtype=np.float32 if dtype == np.float16 else dtype, order="C")


class _Plain:
    """Convert extras to plain Python data; large, deep or unknown values become short texts."""

    def __init__(self, file: TorchFile):
        self.file = file
        self.nodes = 0

    def __call__(self, value: Any, depth: int = 0) -> Any:
        self.nodes += 1
        if self.nodes > MAX_EXTRAS or depth > 12:
            return "..."
        if isinstance(value, str):
            return value if len(value) <= LONGEST_EXTRA else value[:LONGEST_EXTRA] + "..."
        if value is None or isinstance(value, (bool, int, float)):
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
                key if isinstance(key, (int, float, bool)) else label(key): self(item, depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self(item, depth + 1) for item in value]
        if isinstance(value, Record) and not value.is_module:
            if value.cls.module.startswith("pathlib"):
                return "/".join(str(part) for part in value.args if isinstance(part, str))
            content = value.state or value.dict_items or value.list_items or value.args
            return self(content, depth + 1) if content else value.qualified
        return kind_of(value)


def _class_names(root: Any, weights: Any, file: TorchFile) -> list[str] | None:
    """Find the class names in a file: an entry or a model attribute with a name like ``names``."""
    holders = [
        holder
        for holder in ((root, root.get("meta")) if isinstance(root, dict) else ())
        if isinstance(holder, dict)
    ]
    if isinstance(weights, Record):
        holders.append(weights.state)
    for holder in holders:
        for key in ("names", "class_names", "classes", "CLASSES"):
            value = holder.get(key)
            if not isinstance(value, (list, tuple, dict)) or len(value) > MAX_CLASSES:
                continue
            names = _Plain(file)(value)
            if isinstance(names, dict) and sorted(names, key=str) == sorted(
                range(len(names)), key=str
            ):
                names = [names[index] for index in range(len(names))]
            if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
                return names
    return None


def _read_mindspore(path: Path, max_bytes: int, *, prefer_ema: bool) -> ForeignCheckpoint:
    """Read a MindSpore ``.ckpt``.

    MindYOLO writes its moving average with the prefix ``ema.``, alone or beside the raw weights.
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
    """Read a safetensors file of any program."""
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


def _without_prefixes(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Remove the prefixes and infixes that wrappers for several devices, sharding and compilation
    add to names.
    """
    result = dict(tensors)
    inner = {
        ".".join(part for part in name.split(".") if part not in INNER_WRAPPERS): array
        for name, array in tensors.items()
    }
    if len(inner) == len(result):
        result = inner
    while True:
        prefix = next(
            (p for p in PREFIXES if result and all(name.startswith(p) for name in result)), None
        )
        if prefix is None:
            return result
        result = {name[len(prefix) :]: array for name, array in result.items()}


def _keep_only(checkpoint: ForeignCheckpoint, entry: str) -> None:
    """Keep the tensors under ``entry``. Raises: CheckpointError if there are none."""
    begin = f"{entry}."
    inside = {
        name.removeprefix(begin): array
        for name, array in checkpoint.tensors.items()
        if name.startswith(begin)
    }
    if not inside:
        first = Counter(name.partition(".")[0] for name in checkpoint.tensors).most_common(8)
        raise CheckpointError(
            f"{checkpoint.path}: has no entry {entry!r}, its entries are "
            + (", ".join(checkpoint.entries[:12]) or "none")
            + "; names of its tensors begin with "
            + ", ".join(label(name) for name, _ in first)
        )
    checkpoint.tensors, checkpoint.entry = _without_prefixes(inside), entry


def _warn_about_values(checkpoint: ForeignCheckpoint) -> None:
    """Report non-finite weights; they are not changed."""
    broken = [
        name
        for name, array in checkpoint.tensors.items()
        if array.dtype.kind == "f" and not np.isfinite(array).all()
    ]
    if broken:
        checkpoint.warnings.append(
            f"{len(broken)} tensors hold non-finite values: " + ", ".join(broken[:5])
        )

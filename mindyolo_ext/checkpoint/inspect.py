"""Describe the content of a file of weights without loading it into a network."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mindyolo_ext.checkpoint.convert import ASSUMED, plan_conversion
from mindyolo_ext.checkpoint.exported_files import ExportedFacts, mindir_facts, onnx_facts
from mindyolo_ext.checkpoint.file_kinds import (
    UNKNOWN,
    convert_command,
    is_mindir,
    is_onnx,
    sniff_format,
)
from mindyolo_ext.checkpoint.metadata import CheckpointMetadata, check_types
from mindyolo_ext.checkpoint.reader import ForeignCheckpoint, file_sha256, read_checkpoint
from mindyolo_ext.errors import CheckpointError, ConfigError, printable, shown
from mindyolo_ext.models.registry import family_of

_SHOWN_ELSEWHERE = (
    "class_names",
    "model",
    "num_classes",
    "epoch",
    "part",
    "holds",
    "thresholds",
    ASSUMED,
)


@dataclass
class FileInfo:
    """The result of ``describe``.

    Args:
        path, format, sha256, bytes: facts about the file.
        entries, entry, used_ema: top-level entries, the one that holds the weights, and whether
            they are averaged.
        tensors, numbers: counts; ``dtypes``: element type in the file -> number of tensors.
        family, model, num_classes, part: what was recognized, else empty or None.
        class_names, epoch: if the file states them.
        metadata: of our own checkpoints and of ONNX files.
        prefix: the prefix that wrappers added to every name.
        convert: the command that converts it to one of our checkpoints; empty if there is none.
        warnings: such as weights that are not finite.
    """

    path: str
    format: str
    sha256: str
    bytes: int
    entries: list[str] = field(default_factory=list)
    entry: str = ""
    used_ema: bool = False
    tensors: int = 0
    numbers: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    family: str = ""
    model: str = ""
    num_classes: int | None = None
    part: str = ""
    class_names: list[str] | None = None
    epoch: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    prefix: str = ""
    convert: str = ""

    def to_json(self) -> str:
        """Format the description as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    def table(self) -> str:
        """Format the description as a table."""
        rows = [
            ("file", self.path),
            ("format", self.format),
            ("size", f"{self.bytes:,} bytes"),
            ("sha256", self.sha256),
        ]
        if self.entries:
            rows.append(("entries", _some(self.entries)))
        average = " (moving average)" if self.used_ema else ""
        if self.entry or self.prefix or average:
            place = f"{self.entry}, names begin with {self.prefix}" if self.prefix else self.entry
            rows.append(("weights", place.removeprefix(", ") + average))
        if self.tensors:
            kinds = ", ".join(f"{count} {dtype}" for dtype, count in sorted(self.dtypes.items()))
            rows.append(("tensors", f"{self.tensors} ({kinds}), {self.numbers:,} numbers"))
        if self.model:
            classes = f", {self.num_classes} classes" if self.num_classes is not None else ""
            rows.append(
                ("model", self.model + classes + (f", {self.part} only" if self.part else ""))
            )
        if self.class_names:
            rows.append(("class names", _some(self.class_names, 8)))
        if self.epoch is not None:
            rows.append(("epoch", str(self.epoch)))
        rows += [
            (key, str(value))
            for key, value in self.metadata.items()
            if key not in _SHOWN_ELSEWHERE and value not in (None, {}, [], "")
        ]
        rows += self._thresholds()
        shown_rows = [(shown(key), shown(value, 400)) for key, value in rows]
        shown_rows += [("warning", printable(text)) for text in self.warnings]
        if self.convert:
            shown_rows.append(("to use it", self.convert))
        return tabulate(shown_rows, tablefmt="plain", disable_numparse=True)

    def _thresholds(self) -> list[tuple[str, str]]:
        """Format the row with the measured thresholds of a routed model."""
        stored = (self.metadata.get("extra") or {}).get("thresholds")
        if "holds" in self.metadata:  # a part of a routed model
            stored = json.loads(self.metadata.get("thresholds", "null"))
        if not stored:
            return []
        shares = ", ".join(f"{100 - 10 * i} % {stored['values'][i]:.6f}" for i in (1, 5, 9))
        size = "x".join(str(side) for side in stored["size"])
        return [
            (
                "easy above",
                f"{shares} ({stored['pictures']} pictures of {stored.get('data')}, input {size})",
            )
        ]


def describe(path: str | Path) -> FileInfo:
    """Describe the content of ``path``: any checkpoint that ``read_checkpoint`` reads, an ONNX file
    or a MindIR file.

    Raises: FileNotFoundError; CheckpointError for a damaged or unknown file.
    """
    path = Path(path)
    exported = _describe_exported(path) if path.is_file() else None
    if exported is not None:
        return exported
    foreign = read_checkpoint(path)
    info = FileInfo(
        str(path),
        foreign.source_format,
        foreign.sha256,
        path.stat().st_size,
        foreign.entries,
        foreign.entry,
        foreign.used_ema,
        len(foreign.tensors),
        sum(array.size for array in foreign.tensors.values()),
        foreign.stored_dtypes,
        class_names=foreign.class_names,
        epoch=foreign.epoch,
        warnings=list(foreign.warnings),
    )
    if foreign.own is not None:
        _add_own(info, foreign.own)
    else:
        _add_recognized(info, foreign)
    return info


def _describe_exported(path: Path) -> FileInfo | None:
    """Describe an ONNX or MindIR file by its content, or by its name if the content is unknown."""
    with path.open("rb") as stream:
        head = stream.read(512)
    kind = {".onnx": "onnx", ".mindir": "mindir"}.get(path.suffix, "")
    if is_onnx(head) or is_mindir(head):
        kind = "onnx" if is_onnx(head) else "mindir"
    elif kind:
        try:
            sniff_format(path)
            return None
        except CheckpointError as error:
            if UNKNOWN not in str(error):
                raise
    if not kind:
        return None
    return _described(path, kind, onnx_facts(path) if kind == "onnx" else mindir_facts(path))


def _add_own(info: FileInfo, metadata: CheckpointMetadata) -> None:
    """Add the metadata of one of our checkpoints."""
    info.format = "mindyolo_ext"
    info.model, info.num_classes = metadata.model, metadata.num_classes
    info.class_names, info.epoch = metadata.class_names, metadata.epoch
    info.part = (metadata.extra.get("part") or {}).get("name", "")
    info.metadata = json.loads(metadata.to_json())
    info.warnings += [str(remark) for remark in metadata.extra.get(ASSUMED) or []]


def _add_recognized(info: FileInfo, foreign: ForeignCheckpoint) -> None:
    """Add the model that ``convert`` recognizes and the command to type, or a warning with the
    reason why it cannot convert the file.
    """
    try:
        plan = plan_conversion(foreign)
    except (CheckpointError, ConfigError) as error:
        info.warnings.append("cannot convert it: " + str(error).removeprefix(f"{info.path}: "))
        return
    info.model, info.part = plan.found.model, plan.found.part
    info.family = family_of(info.model).name
    info.num_classes = None if info.part else plan.built.num_classes
    info.used_ema, info.prefix = plan.used_ema, plan.prefix
    info.warnings = list(plan.warnings)
    info.convert = convert_command(Path(info.path))


def _described(path: Path, kind: str, facts: ExportedFacts) -> FileInfo:
    """Describe an exported file."""
    info = FileInfo(
        str(path),
        kind,
        file_sha256(path),
        path.stat().st_size,
        tensors=facts.tensors,
        numbers=facts.numbers,
        dtypes=dict(facts.dtypes),
        metadata=dict(facts.metadata),
    )
    add_exported(info)
    return info


def add_exported(info: FileInfo) -> None:
    """Add what ``mindyolo-ext export`` wrote into the file."""
    info.model = info.metadata.get("model", "")
    classes, names = info.metadata.get("num_classes", ""), info.metadata.get("class_names", "")
    try:
        info.num_classes = int(classes) if classes.isdecimal() else None
        info.class_names = json.loads(names) if names.startswith("[") else None
        check_types({"class_names": info.class_names or []})
        check_types({"extra": {"thresholds": json.loads(info.metadata.get("thresholds", "null"))}})
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{info.path}: its metadata is broken ({error})") from error
    info.part = info.metadata.get("holds", "")


def _some(names: Sequence[str], most: int = 20) -> str:
    """List the first of ``names`` and how many there are."""
    more = f", ... ({len(names)})" if len(names) > most else ""
    return ", ".join(shown(name, 60) for name in names[:most]) + more

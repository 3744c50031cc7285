"""What a file of weights holds, without loading it into a network."""

import json
import mmap
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mindyolo_ext.checkpoint.metadata import CheckpointMetadata, check_types
from mindyolo_ext.checkpoint.protobuf import BYTES, fields, text
from mindyolo_ext.checkpoint.reader import file_sha256, read_checkpoint
from mindyolo_ext.checkpoint.tables import recognise
from mindyolo_ext.errors import CheckpointError

USER_INFO = 14  # field of a MindIR file


@dataclass
class FileInfo:
    """What ``describe`` found.

    Args:
        path, format, sha256, bytes: of the file.
        entries, entry, used_ema: top-level entries, the one that holds the weights, and whether
            they are averaged.
        tensors, numbers: how many; ``dtypes``: element type in the file -> tensors.
        family, model, num_classes, part: what was recognised; empty or None if nothing was.
        class_names, epoch: if the file tells them.
        metadata: of our own checkpoints and of ONNX files.
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

    def to_json(self) -> str:
        """The description as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    def table(self) -> str:
        """The description as a table for people."""
        rows = [
            ("file", self.path),
            ("format", self.format),
            ("size", f"{self.bytes:,} bytes"),
            ("sha256", self.sha256),
        ]
        if self.entries:
            rows.append(("entries", ", ".join(self.entries)))
        if self.entry:
            rows.append(("weights", self.entry + (" (moving average)" if self.used_ema else "")))
        if self.tensors:
            kinds = ", ".join(f"{count} {dtype}" for dtype, count in sorted(self.dtypes.items()))
            rows.append(("tensors", f"{self.tensors} ({kinds}), {self.numbers:,} numbers"))
        if self.model:
            classes = f", {self.num_classes} classes" if self.num_classes is not None else ""
            rows.append(
                ("model", self.model + classes + (f", {self.part} only" if self.part else ""))
            )
        if self.class_names:
            more = f", ... ({len(self.class_names)})" if len(self.class_names) > 8 else ""
            rows.append(("class names", ", ".join(self.class_names[:8]) + more))
        if self.epoch is not None:
            rows.append(("epoch", str(self.epoch)))
        shown_above = (
            "class_names",
            "model",
            "num_classes",
            "epoch",
            "part",
            "holds",
            "thresholds",
        )
        rows += [
            (key, str(value)[:160])
            for key, value in self.metadata.items()
            if key not in shown_above and value not in (None, {}, [], "")
        ]
        stored = (self.metadata.get("extra") or {}).get("thresholds")
        if "holds" in self.metadata:  # a part of a routed model
            stored = json.loads(self.metadata["thresholds"])
        if stored:
            shares = ", ".join(f"{100 - 10 * i} % {stored['values'][i]:.6f}" for i in (1, 5, 9))
            rows.append(
                (
                    "easy above",
                    f"{shares} ({stored['pictures']} pictures of {stored.get('data')}, input "
                    f"{'x'.join(str(side) for side in stored['size'])})",
                )
            )
        rows += [("warning", text) for text in self.warnings]
        shown = [tuple(_printable(cell) for cell in row) for row in rows]
        return tabulate(shown, tablefmt="plain", disable_numparse=True)


def describe(path: str | Path) -> FileInfo:
    """What ``path`` holds: a checkpoint of any kind that ``read_checkpoint`` knows, an ONNX or a
    MindIR file.

    Raises: FileNotFoundError; CheckpointError for a damaged or unknown file.
    """
    path = Path(path)
    if path.suffix in (".onnx", ".mindir") and path.is_file():
        return _describe_onnx(path) if path.suffix == ".onnx" else _describe_mindir(path)
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
        _add_recognised(info, foreign.tensors)
    return info


def _add_own(info: FileInfo, metadata: CheckpointMetadata) -> None:
    """What the metadata of one of our checkpoints says."""
    info.format = "mindyolo_ext"
    info.model, info.num_classes = metadata.model, metadata.num_classes
    info.class_names, info.epoch = metadata.class_names, metadata.epoch
    info.part = (metadata.extra.get("part") or {}).get("name", "")
    info.metadata = json.loads(metadata.to_json())


def _add_recognised(info: FileInfo, tensors: dict[str, Any]) -> None:
    """The family and model that the names tell; no family is a warning here, not an error."""
    try:
        table, found = recognise(tensors, where=info.path)
    except CheckpointError as error:
        info.warnings.append(str(error).removeprefix(f"{info.path}: "))
        return
    info.family, info.model, info.num_classes, info.part = (
        table.family,
        found.model,
        found.num_classes,
        found.part,
    )


def _describe_onnx(path: Path) -> FileInfo:
    """Weights and metadata of an ONNX file."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises its own kinds
        raise CheckpointError(f"{path}: is no ONNX file ({type(error).__name__})") from error
    weights = model.graph.initializer
    sizes = [_product(weight.dims) for weight in weights]
    dtypes = Counter(onnx.TensorProto.DataType.Name(weight.data_type).lower() for weight in weights)
    metadata: dict[str, Any] = {entry.key: entry.value for entry in model.metadata_props}
    for what, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        metadata[what] = ", ".join(
            f"{value.name} "
            + "x".join(d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)
            for value in values
        )
    metadata["opset"] = ", ".join(str(opset.version) for opset in model.opset_import)
    info = FileInfo(
        str(path),
        "onnx",
        file_sha256(path),
        path.stat().st_size,
        tensors=len(weights),
        numbers=sum(sizes),
        dtypes=dict(dtypes),
        metadata=metadata,
    )
    _add_exported(info)
    return info


def _describe_mindir(path: Path) -> FileInfo:
    """Metadata of a MindIR file."""
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            metadata = _mindir_information(content)
    except ValueError as error:
        raise CheckpointError(f"{path}: is no MindIR file ({error})") from error
    info = FileInfo(
        str(path), "mindir", file_sha256(path), path.stat().st_size, metadata=dict(metadata)
    )
    _add_exported(info)
    return info


def _mindir_information(content: mmap.mmap) -> dict[str, str]:
    """The map ``user_info`` of a MindIR file. Raises: ValueError for another file."""
    found = {}
    for number, wire_type, begin, end in fields(content, 0, len(content)):
        if number == USER_INFO and wire_type == BYTES:
            entry = {
                which: text(content, first, second, most=1 << 20)
                for which, kind, first, second in fields(content, begin, end)
                if which in (1, 2) and kind == BYTES
            }
            found[entry.get(1, "")] = entry.get(2, "")
        elif number > USER_INFO:
            raise ValueError(f"field {number} is unknown")
    return found


def _add_exported(info: FileInfo) -> None:
    """What ``mindyolo-ext export`` wrote into the file."""
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


def _printable(content: str) -> str:
    """``content`` with control characters written out, so that a file's texts cannot steer a
    terminal.
    """
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in content
    )


def _product(sizes: Any) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total

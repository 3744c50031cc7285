"""Read and check the metadata of an exported file before any runtime opens it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mindyolo_ext.checkpoint.exported_files import mindir_facts, onnx_facts
from mindyolo_ext.checkpoint.limits import MAX_METADATA_BYTES
from mindyolo_ext.checkpoint.metadata import CheckpointMetadata
from mindyolo_ext.errors import CheckpointError, MissingFileError, shown

RAW, BOXES, DETECTIONS, PLUGIN = "raw", "boxes,scores", "detections", "tensorrt"
NEEDED = ("model", "num_classes", "class_names", "input_spec", "outputs")
PARTS = ("first", "second", "router")
# Operators with subgraphs, which may run forever; no network here has them
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


@dataclass(frozen=True)
class ExportedFile:
    """An exported file with valid metadata.

    Args:
        path: path of the file.
        metadata: metadata of the checkpoint that it was exported from.
        outputs: ``RAW``, ``BOXES``, ``DETECTIONS``, or ``PLUGIN`` for those of TensorRT's NMS.
        batch: images per run; None for any number.
        has_preprocess: whether it takes images of any size and returns boxes in their pixels.
        part: part of a routed model, one of ``PARTS``; empty for a whole model.
        holds: description of the part.
        files: path of each part of a routed model.
        pair: identifier that all files of one export share.
        dy_thres: threshold of a routed model.
    """

    path: Path
    metadata: CheckpointMetadata
    outputs: str
    batch: int | None = 1
    has_preprocess: bool = False
    part: str = ""
    holds: str = ""
    files: Mapping[str, Path] | None = None
    pair: str = ""
    dy_thres: float | None = None


def read_exported(path: str | Path) -> ExportedFile:
    """Read the metadata of an exported file without loading its network.

    Raises: MissingFileError; CheckpointError for another file, missing or broken metadata of
        ``mindyolo-ext export``, or a graph that no export writes.
    """
    path = Path(path)
    texts = read_texts(path)
    absent = [key for key in NEEDED if key not in texts]
    if absent:
        raise CheckpointError(
            f"{path}: its metadata lacks {', '.join(absent)}; it was not written by `mindyolo-ext "
            "export`, or another program removed the metadata. Export the checkpoint again"
        )
    try:
        return _understood(path, texts)
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its metadata is broken ({shown(str(error), 300)}); export the checkpoint "
            "again"
        ) from error


def read_texts(path: Path) -> dict[str, str]:
    """Read the raw metadata in a file, or beside it. Raises: as ``read_exported``."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file, wanted an exported network")
    return _READERS[path.suffix.lower()](path)


def _understood(path: Path, texts: Mapping[str, str]) -> ExportedFile:
    """Build the file that ``texts`` describe. Raises: ValueError, TypeError or KeyError."""
    outputs, part = texts["outputs"], texts.get("part", "")
    if outputs not in (RAW, BOXES, DETECTIONS, PLUGIN):
        raise ValueError(f"outputs is {shown(outputs, 40)!r}")
    if part and part not in PARTS:
        raise ValueError(f"part is {shown(part, 40)!r}, wanted one of {', '.join(PARTS)}")
    thresholds = json.loads(texts.get("thresholds", "null"))
    values = {
        "model": texts["model"],
        "num_classes": int(texts["num_classes"]),
        "class_names": json.loads(texts["class_names"]),
        "input_spec": json.loads(texts["input_spec"]),
        "architecture": json.loads(texts.get("architecture", "{}")),
        "extra": {} if thresholds is None else {"thresholds": thresholds},
        "format": 1,
    }
    batch = texts.get("batch_size", "1")
    return ExportedFile(
        path,
        CheckpointMetadata.from_json(json.dumps(values)),
        outputs,
        batch=None if batch == "any" else _count(batch),
        has_preprocess=texts.get("preprocess", "") == "inside",
        part=part,
        holds=shown(texts.get("holds", "")),
        files=_siblings(path, texts["files"]) if part else None,
        pair=texts.get("pair", ""),
        dy_thres=float(texts["dy_thres"]) if "dy_thres" in texts else None,
    )


def _count(text: str) -> int:
    """Parse a batch size. Raises: ValueError."""
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise ValueError(f"batch_size is {shown(text, 20)!r}")
    return int(text)


def _siblings(path: Path, text: str) -> dict[str, Path]:
    """Return the path of each part of a routed model, next to ``path``. Raises: ValueError."""
    names = json.loads(text)
    if not isinstance(names, dict) or not names or set(names) - set(PARTS):
        raise ValueError(f"files is {shown(text, 80)}")
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name or "\\" in name:
            raise ValueError(f"files names {shown(name, 80)!r}, which is not beside this file")
    return {part: path.with_name(name) for part, name in names.items()}


def _onnx_texts(path: Path) -> dict[str, str]:
    """Raises: CheckpointError for a graph that no export writes."""
    facts = onnx_facts(path)
    strange = sorted(set(facts.operators) & set(_CONTROL_FLOW))
    if facts.functions:
        strange.append("custom operators")
    if strange:
        raise CheckpointError(
            f"{path}: its graph has operators that may run anything and forever "
            f"({', '.join(strange)}); no file of `mindyolo-ext export` has them"
        )
    if facts.elsewhere:
        raise CheckpointError(
            f"{path}: {facts.elsewhere} of its tensors are in other files; wanted a file that "
            "contains all tensors, as `mindyolo-ext export` writes it"
        )
    return facts.written


def _openvino_texts(path: Path) -> dict[str, str]:
    """Read ``rt_info/mindyolo_ext`` of an OpenVINO file."""
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == "rt_info" and (own := element.find("mindyolo_ext")) is not None:
                return {child.tag: child.get("value", "") for child in own}
            if element.tag in ("layer", "edge"):
                element.clear()
    except ElementTree.ParseError as error:
        raise CheckpointError(f"{path}: not an OpenVINO file ({error})") from error
    return {}


def _ncnn_texts(path: Path) -> dict[str, str]:
    """Read the JSON beside an ncnn network and check the SHA-256 of both network files."""
    description = path.with_suffix(".json")
    if not description.is_file():
        raise MissingFileError(
            f"{description}: no such file; `mindyolo-ext export --format ncnn` writes it beside "
            f"{path.name}, and they belong together"
        )
    texts = _json_texts(description)
    for file in (path, path.with_suffix(".bin")):
        if not file.is_file():
            raise MissingFileError(f"{file}: no such file, wanted the other half of {path.name}")
        if texts.pop(f"sha256{file.suffix}", "") != hashlib.sha256(file.read_bytes()).hexdigest():
            raise CheckpointError(
                f"{file}: is not the file that {description.name} was written for; copy all three "
                "files of one export"
            )
    return texts


def _json_texts(path: Path) -> dict[str, str]:
    """Read a JSON file with a mapping of strings. Raises: CheckpointError."""
    if path.stat().st_size > MAX_METADATA_BYTES:
        raise CheckpointError(f"{path}: larger than the limit of {MAX_METADATA_BYTES} bytes")
    try:
        texts: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(texts, dict) or not all(isinstance(v, str) for v in texts.values()):
        raise CheckpointError(f"{path}: wanted a mapping of strings")
    return texts


def _engine_texts(path: Path) -> dict[str, str]:
    """Read the JSON beside a TensorRT engine."""
    description = path.with_suffix(".json")
    if not description.is_file():
        raise MissingFileError(
            f"{description}: no such file; deploy/build_tensorrt.py writes it beside {path.name}"
        )
    return _json_texts(description)


_READERS: dict[str, Callable[[Path], dict[str, str]]] = {
    ".onnx": _onnx_texts,
    ".xml": _openvino_texts,
    ".param": _ncnn_texts,
    ".mindir": lambda path: mindir_facts(path).written,
    ".engine": _engine_texts,
}

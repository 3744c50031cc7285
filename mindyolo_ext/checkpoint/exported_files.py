"""Read metadata of ONNX and MindIR files, without their libraries.

Only the required fields are read; nodes and numbers are skipped.
"""

import mmap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from mindyolo_ext.checkpoint.limits import (
    MAX_AXES,
    MAX_EXPORTED_FIELDS,
    MAX_FILE_BYTES,
    MAX_METADATA_BYTES,
    MAX_NAME_CHARACTERS,
    MAX_SIZE,
)
from mindyolo_ext.checkpoint.protobuf import BYTES, VARINT, Buffer, Field, fields, text
from mindyolo_ext.errors import CheckpointError

MINDIR_USER_INFO = 14
# field numbers of ONNX
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA, _MODEL_FUNCTION = 7, 8, 14, 25
_GRAPH_NODE, _GRAPH_WEIGHT, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_OPERATOR = 4
_TENSOR_ELSEWHERE = 13  # where the numbers of a tensor are, if not in the file
_TYPES = [
    "undefined",
    "float",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "string",
    "bool",
    "float16",
    "double",
    "uint32",
    "uint64",
    "complex64",
    "complex128",
    "bfloat16",
]


@dataclass
class ExportedFacts:
    """Facts stated in an exported file.

    Args:
        metadata: texts by name, and facts about the graph.
        written: only the texts, as the exporting program wrote them.
        tensors, numbers: counts.
        dtypes: element type -> number of tensors.
        operators: kind -> count, for ONNX files.
        functions: operators that the file defines itself.
        elsewhere: tensors whose numbers are in other files.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    operators: Counter[str] = field(default_factory=Counter)
    functions: int = 0
    elsewhere: int = 0
    tensors: int = 0
    numbers: int = 0
    dtypes: Counter[str] = field(default_factory=Counter)


class _Message:
    """A parsed file, with a count of its fields."""

    def __init__(self, content: Buffer):
        self.content = content
        self.left = MAX_EXPORTED_FIELDS

    def fields(self, begin: int, end: int) -> Iterator[Field]:
        """Yield the fields between two bytes. Raises: ValueError for a broken field, or too
        many.
        """
        for found in fields(self.content, begin, end):
            self.left -= 1
            if self.left < 0:
                raise ValueError(f"more than {MAX_EXPORTED_FIELDS} fields")
            yield found

    def parts(self, begin: int, end: int, number: int) -> Iterator[tuple[int, int]]:
        """Yield (begin, end) of each message ``number``."""
        for found, kind, first, second in self.fields(begin, end):
            if (found, kind) == (number, BYTES):
                yield first, second

    def text(self, begin: int, end: int, number: int, most: int = MAX_NAME_CHARACTERS) -> str:
        """Return the text ``number``, empty if there is none."""
        found = [text(self.content, *place, most=most) for place in self.parts(begin, end, number)]
        return found[-1] if found else ""

    def pair(self, begin: int, end: int) -> tuple[str, str]:
        """Read an entry of a map: a key and its value."""
        return self.text(begin, end, 1), self.text(begin, end, 2, MAX_METADATA_BYTES)


def onnx_facts(path: Path) -> ExportedFacts:
    """Read weights, inputs, outputs and metadata of an ONNX file.

    Raises: CheckpointError for another file, or a damaged one.
    """
    return _facts(path, "ONNX", _onnx)


def mindir_facts(path: Path) -> ExportedFacts:
    """Read the map ``user_info`` of a MindIR file.

    Raises: CheckpointError for another file, or a damaged one.
    """
    return _facts(path, "MindIR", _mindir)


def _facts(path: Path, kind: str, read: Callable[[_Message, int], ExportedFacts]) -> ExportedFacts:
    """Apply ``read`` to the file."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise CheckpointError(f"{path}: the file has {size} bytes, the limit is {MAX_FILE_BYTES}")
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return read(_Message(content), size)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not a valid {kind} file ({error})") from error


def _onnx(message: _Message, size: int) -> ExportedFacts:
    """Read the facts of an ONNX model of ``size`` bytes."""
    facts, graphs, opsets = ExportedFacts(), [], []
    for number, kind, begin, end in message.fields(0, size):
        if kind == BYTES and number == _MODEL_METADATA:
            key, value = message.pair(begin, end)
            facts.metadata[key] = value
        elif kind == BYTES and number == _MODEL_GRAPH:
            graphs.append((begin, end))
        elif kind == BYTES and number == _MODEL_FUNCTION:
            facts.functions += 1
        elif kind == BYTES and number == _MODEL_OPSET:
            opsets += [str(v) for n, k, v, _ in message.fields(begin, end) if (n, k) == (2, VARINT)]
    if len(graphs) != 1:
        raise ValueError(f"it holds {len(graphs)} graphs")
    facts.written = dict(facts.metadata)
    _add_graph(facts, message, *graphs[0])
    facts.metadata["opset"] = ", ".join(opsets)
    return facts


def _add_graph(facts: ExportedFacts, message: _Message, begin: int, end: int) -> None:
    """Add weights, inputs and outputs of a graph."""
    ends: dict[int, list[str]] = {_GRAPH_INPUT: [], _GRAPH_OUTPUT: []}
    for number, kind, first, second in message.fields(begin, end):
        if kind != BYTES:
            continue
        if number == _GRAPH_WEIGHT:
            _add_weight(facts, message, first, second)
        elif number == _GRAPH_NODE:
            facts.operators[message.text(first, second, _NODE_OPERATOR)] += 1
        elif number in ends:
            shape = "x".join(_axes(message, first, second))
            ends[number].append(f"{message.text(first, second, 1)} {shape}")
    facts.metadata["inputs"] = ", ".join(ends[_GRAPH_INPUT])
    facts.metadata["outputs"] = ", ".join(ends[_GRAPH_OUTPUT])


def _add_weight(facts: ExportedFacts, message: _Message, begin: int, end: int) -> None:
    """Add one tensor of a graph."""
    sizes: list[int] = []
    dtype = 0
    for number, kind, value, _ in message.fields(begin, end):
        if kind == VARINT and number == 1:
            if value > MAX_SIZE or len(sizes) >= MAX_AXES:
                raise ValueError(f"a tensor of more than {MAX_AXES} axes, or a negative one")
            sizes.append(value)
        elif kind == VARINT and number == 2:
            dtype = value
        elif number == _TENSOR_ELSEWHERE:
            facts.elsewhere += 1
    facts.tensors += 1
    facts.numbers += prod(sizes)
    facts.dtypes[_TYPES[dtype] if dtype < len(_TYPES) else f"type {dtype}"] += 1


def _axes(message: _Message, begin: int, end: int) -> Iterator[str]:
    """Read the axes of an input or output, numbers or names."""
    for kind in message.parts(begin, end, 2):
        for tensor in message.parts(*kind, 1):
            for shape in message.parts(*tensor, 2):
                for axis in message.parts(*shape, 1):
                    name = message.text(*axis, 2)
                    sizes = [v for n, k, v, _ in message.fields(*axis) if (n, k) == (1, VARINT)]
                    yield name or str(sizes[-1] if sizes else 0)


def _mindir(message: _Message, size: int) -> ExportedFacts:
    """Read the facts of a MindIR model of ``size`` bytes."""
    facts = ExportedFacts()
    for number, kind, begin, end in message.fields(0, size):
        if number == MINDIR_USER_INFO and kind == BYTES:
            key, value = message.pair(begin, end)
            facts.metadata[key] = value
        elif number > MINDIR_USER_INFO:
            raise ValueError(f"field {number} is unknown")
    facts.written = dict(facts.metadata)
    return facts

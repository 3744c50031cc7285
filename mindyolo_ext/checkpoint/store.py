"""Our own checkpoints: a MindSpore ``.ckpt`` of plain parameter names with metadata beside them.

``mindspore.load_checkpoint`` and ``load_param_into_net`` read the file like any other; the metadata
is JSON in one uint8 tensor called ``__metadata__``. Files appear whole or not at all.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext import __version__
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.input_spec import InputSpec

METADATA_NAME = "__metadata__"
FORMAT_VERSION = 1
_DTYPES = {"float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"}


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
        """The metadata written by ``to_json``. Raises: ValueError for unknown or missing keys."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"CheckpointMetadata: a {type(values).__name__}, wanted a mapping")
        known = {f.name for f in fields(cls)}
        version = values.pop("format", None)
        if version != FORMAT_VERSION:
            raise ValueError(
                f"CheckpointMetadata: format {version!r}, this program reads {FORMAT_VERSION}"
            )
        values.pop("count", None)
        if set(values) - known or {"model", "num_classes"} - set(values):
            raise ValueError(f"CheckpointMetadata: keys {sorted(values)}, wanted {sorted(known)}")
        values["input_spec"] = InputSpec.from_json(json.dumps(values["input_spec"]))
        return cls(**values)


def save_checkpoint(
    path: str | Path, parameters: Mapping[str, np.ndarray], metadata: CheckpointMetadata
) -> None:
    """Write ``parameters`` and ``metadata`` to ``path``, whole or not at all.

    The file is written beside ``path``, flushed to the disk and renamed over it.

    Args:
        path: ends in ``.ckpt``; its folder is made if it is missing.
        parameters: name -> array (also 0-dim); names are kept as they are.
        metadata: what the file says about itself.

    Raises: CheckpointError for another suffix, a reserved name or an element type the format lacks.
    """
    path = Path(path)
    if path.suffix != ".ckpt":
        raise CheckpointError(f"{path}: our checkpoints end in .ckpt")
    arrays = {
        METADATA_NAME: np.frombuffer(metadata.to_json(count=len(parameters)).encode(), np.uint8)
    }
    for name, array in parameters.items():
        array = np.asarray(array)
        if name == METADATA_NAME or not name:
            raise CheckpointError(f"{path}: a parameter cannot be called {name!r}")
        if str(array.dtype) not in _DTYPES:
            raise CheckpointError(
                f"{path}: parameter {name!r} is {array.dtype}, wanted one of "
                + ", ".join(sorted(_DTYPES))
            )
        arrays[name] = array
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(
        prefix=f".{path.stem}.", suffix=".tmp.ckpt", dir=path.parent
    )
    os.close(handle)
    try:
        _write(temporary, arrays)
        os.chmod(temporary, 0o666 & ~_umask())
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        Path(temporary).unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> tuple[dict[str, np.ndarray], CheckpointMetadata]:
    """Parameters and metadata of one of our checkpoints.

    Raises: FileNotFoundError; CheckpointError for a damaged file or one of another program.
    """
    path = Path(path)
    arrays = read_parameters(path)
    text = arrays.pop(METADATA_NAME, None)
    if text is None:
        raise CheckpointError(
            f"{path}: has no metadata, wanted a checkpoint of mindyolo_ext: convert it first"
        )
    try:
        content = np.asarray(text, np.uint8).tobytes()
        count = json.loads(content).get("count")
        metadata = CheckpointMetadata.from_json(content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: its metadata is broken ({error})") from error
    if count != len(arrays):
        raise CheckpointError(
            f"{path}: holds {len(arrays)} parameters, it should hold {count}: the file is cut off"
        )
    return arrays, metadata


def read_parameters(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a MindSpore ``.ckpt`` by name. Raises: FileNotFoundError, CheckpointError
    for a damaged file.
    """
    from mindyolo_ext.backend.files import read_arrays

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted a checkpoint")
    try:
        return read_arrays(path)
    except Exception as error:  # the framework raises many kinds for a damaged file
        raise CheckpointError(
            f"{path}: MindSpore cannot read it ({type(error).__name__}: {str(error)[:200]}), "
            "wanted a .ckpt file"
        ) from error


def _write(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Hand the arrays to MindSpore's writer."""
    from mindyolo_ext.backend.files import write_arrays

    write_arrays(path, arrays)


def _umask() -> int:
    """The process's file mode mask (there is no way to read it but to set it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: str | Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

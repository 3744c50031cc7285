"""Read and write our own checkpoints: plain parameter names and numbers, with metadata.

``mindspore.load_checkpoint`` and ``load_param_into_net`` read our ``.ckpt`` files like any other;
the metadata is JSON in a uint8 tensor called ``__metadata__``. A ``.safetensors`` file holds the
same, with the metadata in its header. Files appear complete or not at all, and any changed bit is
detected.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mindyolo_ext.atomic import replacing
from mindyolo_ext.checkpoint.ckpt_file import read_ckpt, write_ckpt
from mindyolo_ext.checkpoint.file_kinds import FORMATS, convert_command, sniff_format
from mindyolo_ext.checkpoint.metadata import CheckpointMetadata, seal, unseal
from mindyolo_ext.checkpoint.safetensors_file import read_safetensors, write_safetensors
from mindyolo_ext.errors import CheckpointError

SUFFIXES = (".ckpt", ".safetensors")
OWN_KINDS = ("mindspore", "safetensors")  # formats of our checkpoints, see ``file_kinds``
METADATA_NAME = "__metadata__"  # name of the tensor in a .ckpt
METADATA_KEY = "mindyolo_ext"  # key in the header of a .safetensors
_DTYPES = {"float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"}


def save_checkpoint(
    path: str | Path, parameters: Mapping[str, np.ndarray], metadata: CheckpointMetadata
) -> None:
    """Write ``parameters`` and ``metadata`` to ``path``, complete or not at all.

    Args:
        path: ends in ``.ckpt`` or ``.safetensors``; its folder is created if needed.
        parameters: name -> array (0-dimensional ones included); names are not changed.
        metadata: the file's metadata.

    Raises: CheckpointError for another suffix, a reserved name, an element type or shape that the
        format does not support, or a file that cannot be written.
    """
    path = Path(path)
    check_suffix(path)
    for name, array in parameters.items():
        if name == METADATA_NAME or not name:
            raise CheckpointError(f"{path}: a parameter cannot be named {name!r}")
        if str(np.asarray(array).dtype) not in _DTYPES:
            raise CheckpointError(
                f"{path}: parameter {name!r} is {np.asarray(array).dtype}, wanted one of "
                + ", ".join(sorted(_DTYPES))
            )
    arrays = {name: np.asarray(array) for name, array in parameters.items()}
    try:
        with replacing(path, nameless=True) as unfinished:
            _write(unfinished, path.suffix, arrays, metadata)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path}: cannot be written ({error})") from error


def load_checkpoint(path: str | Path) -> tuple[dict[str, np.ndarray], CheckpointMetadata]:
    """Read parameters and metadata of one of our checkpoints.

    Raises: FileNotFoundError; CheckpointError for a damaged file or one of another program.
    """
    path = Path(path)
    kind = sniff_format(path)
    arrays, text = read_own(path, kind) if kind in OWN_KINDS else ({}, None)
    if text is None:
        raise CheckpointError(
            f"{path}: is {FORMATS[kind]} and has no metadata, wanted a mindyolo_ext checkpoint; "
            f"convert it first: {convert_command(path)}"
        )
    return unseal(text, arrays, where=str(path))


def read_parameters(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a ``.ckpt`` or ``.safetensors`` by name, whatever program wrote it.

    Raises: FileNotFoundError; CheckpointError for a damaged file.
    """
    path = Path(path)
    return read_own(path, "safetensors" if path.suffix == ".safetensors" else "mindspore")[0]


def check_suffix(path: Path) -> None:
    """Raises: CheckpointError if ``path`` does not have the suffix of one of our formats."""
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"{path}: our checkpoints end in {' or '.join(SUFFIXES)}")


def read_own(path: Path, kind: str) -> tuple[dict[str, np.ndarray], str | bytes | None]:
    """Read the arrays as they are stored, and the text of our metadata if the file has it.

    Args:
        kind: one of ``OWN_KINDS``.

    Raises: FileNotFoundError; CheckpointError for a damaged file.
    """
    if kind == "safetensors":
        found = read_safetensors(path)
        return found.arrays, found.metadata.get(METADATA_KEY)
    arrays = read_ckpt(path).arrays
    text = arrays.pop(METADATA_NAME, None)
    return arrays, None if text is None else text.tobytes()


def _write(
    path: Path, suffix: str, arrays: Mapping[str, np.ndarray], metadata: CheckpointMetadata
) -> None:
    """Write the format that ``suffix`` names."""
    if suffix == ".safetensors":
        sealed = seal(metadata, arrays, with_order=True)
        write_safetensors(path, arrays, {"format": "np", METADATA_KEY: sealed})
    else:
        text = np.frombuffer(seal(metadata, arrays).encode(), np.uint8)
        write_ckpt(path, {METADATA_NAME: text, **arrays})

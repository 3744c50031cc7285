"""Write ONNX, MindIR and AIR files with MindSpore."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from mindyolo_ext.backend.on_mindspore.compiled import Compiled
from mindyolo_ext.backend.on_mindspore.errors import without_call_stack
from mindyolo_ext.contracts import Cell
from mindyolo_ext.errors import CheckpointError, DeviceError, MissingFileError

FORMATS = ("onnx", "mindir", "air")  # AIR needs an Ascend device


def write_graph(
    cell: Cell,
    inputs: Sequence[np.ndarray],
    path: Path,
    *,
    description: Mapping[str, str],
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
    opset: int | None = None,
) -> None:
    """Write ``cell`` as a file in the format that the suffix of ``path`` names.

    Args:
        cell: cell in inference mode.
        inputs: example inputs, which fix the shapes.
        path: file with a suffix in ``FORMATS``.
        description: text to store in a MindIR file; other formats omit it.
        dynamic_batch, dynamic_size, opset: supported only by PyTorch's exporter.

    Raises: DeviceError for any of them.
    """
    asked = {"batch": dynamic_batch, "size": dynamic_size}
    flags = [f"--dynamic_{what}" for what, wanted in asked.items() if wanted]
    flags += ["--opset"] * (opset is not None)
    if flags:
        raise DeviceError(
            f"export: only PyTorch writes files with {' and '.join(flags)}: `--backend torch`"
        )
    kind = path.suffix.removeprefix(".")
    keywords = {}
    if kind == "mindir":

        def add_description(proto: Any) -> None:
            for key, value in description.items():
                proto.user_info[key] = value

        keywords["custom_func"] = add_description
    ms.export(
        cell,
        *(Tensor(array) for array in inputs),
        file_name=str(path.with_suffix("")),
        file_format=kind.upper(),
        **keywords,
    )


def load_mindir(path: str | Path) -> Compiled:
    """Load the network of a MindIR file as a function of arrays.

    Raises: MissingFileError; CheckpointError for a file that holds no network.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"{path}: no such file, wanted a MindIR file")
    try:
        graph = ms.load(str(path))
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: MindSpore cannot load it as MindIR ({without_call_stack(error)})"
        ) from error
    return Compiled(nn.GraphCell(graph))

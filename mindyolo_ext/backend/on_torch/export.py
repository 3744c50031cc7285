"""ONNX files, written by PyTorch."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from mindyolo_ext.backend.on_torch.compiled import Compiled
from mindyolo_ext.backend.on_torch.nn import Cell
from mindyolo_ext.backend.on_torch.values import Tensor
from mindyolo_ext.errors import DeviceError

FORMATS = ("onnx",)
_OPSET = 17


def write_graph(
    cell: Cell,
    inputs: Sequence[np.ndarray],
    path: Path,
    *,
    description: Mapping[str, str],  # noqa: ARG001
) -> None:
    """Write ``cell`` as an ONNX file.

    Args:
        cell: in inference mode.
        inputs: examples, which fix the shapes.
        path: its suffix is ``.onnx``.
        description: left out of ONNX files.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are constants for these shapes
        torch.onnx.export(
            cell,
            tuple(Tensor(array) for array in inputs),
            str(path),
            opset_version=_OPSET,
            dynamo=False,
        )


def load_mindir(path: str | Path) -> Compiled:
    """Raises: DeviceError, because MindIR is MindSpore's own format."""
    raise DeviceError(
        f"{path}: MindIR files need MindSpore; MINDYOLO_EXT_BACKEND=mindspore takes it, and ONNX "
        "files run everywhere"
    )

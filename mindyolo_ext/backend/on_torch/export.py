"""Write ONNX files with PyTorch."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from mindyolo_ext.backend.on_torch.compiled import Compiled
from mindyolo_ext.backend.on_torch.nn import Cell
from mindyolo_ext.backend.on_torch.sizes import sizes_vary
from mindyolo_ext.backend.on_torch.values import Tensor
from mindyolo_ext.errors import DeviceError
from mindyolo_ext.framework import VARIABLE

FORMATS = ("onnx",)
_OPSET = 17


def write_graph(
    cell: Cell,
    inputs: Sequence[np.ndarray],
    path: Path,
    *,
    description: Mapping[str, str],  # noqa: ARG001
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
    opset: int | None = None,
) -> None:
    """Write ``cell`` as an ONNX file.

    Args:
        cell: cell in inference mode.
        inputs: example inputs, which fix the shapes.
        path: file with the suffix ``.onnx``.
        description: not used for ONNX files.
        dynamic_batch: whether the first axis of inputs and outputs may have any size.
        dynamic_size: whether images may have any height and width that are multiples of the
            strides.
        opset: opset version; None uses the default.
    """
    names = [f"input{i}" for i in range(len(inputs))]
    count = _count_outputs(cell, inputs) if dynamic_batch or dynamic_size else 0
    outputs = [f"result{i}" for i in range(count)]
    batch = {0: "B"} if dynamic_batch else {}
    axes = {name: batch | ({2: "H", 3: "W"} if dynamic_size else {}) for name in names}
    axes |= {name: batch | ({1: "A"} if dynamic_size else {}) for name in outputs}
    vary = sizes_vary() if dynamic_size else nullcontext()
    with torch.no_grad(), warnings.catch_warnings(), vary:
        warnings.simplefilter("ignore")  # about values that are constants for these shapes
        torch.onnx.export(
            cell,
            tuple(Tensor(array) for array in inputs),
            str(path),
            input_names=names,
            output_names=outputs or None,
            dynamic_axes=axes if outputs else None,
            opset_version=opset or _OPSET,
            dynamo=False,
        )
    _restore_inputs(path, dict(zip(names, inputs, strict=True)))


def _count_outputs(cell: Cell, inputs: Sequence[np.ndarray]) -> int:
    """Count the outputs of ``cell``."""
    outputs = cell(*(Tensor(array) for array in inputs))
    return len(outputs) if isinstance(outputs, (tuple, list)) else 1


def _restore_inputs(path: Path, inputs: Mapping[str, np.ndarray]) -> None:
    """Restore inputs that PyTorch omits because nothing reads them."""
    import onnx

    model = onnx.load(str(path))
    present = {value.name: value for value in model.graph.input}
    if len(present) < len(inputs):
        wanted = [
            present.get(name)
            or onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in inputs.items()
        ]
        del model.graph.input[:]
        model.graph.input.extend(wanted)
        onnx.save(model, str(path))


def load_mindir(path: str | Path) -> Compiled:
    """Raises: DeviceError, because MindIR is MindSpore's own format."""
    raise DeviceError(
        f"{path}: MindIR files require MindSpore: set {VARIABLE}=mindspore, or use ONNX files, "
        "which run everywhere"
    )

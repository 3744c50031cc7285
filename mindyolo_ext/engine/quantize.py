"""Quantize exported networks to 8-bit integers, calibrated on the user's images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mindyolo_ext.engine.onnx_graph import behind_convolutions
from mindyolo_ext.errors import ExportError
from mindyolo_ext.input_spec import InputSpec

LEAST_OPSET = 13  # the first in which DequantizeLinear takes a scale per channel


def quantize(
    path: Path, pictures: Sequence[np.ndarray], spec: InputSpec, *, batch: int = 1
) -> None:
    """Quantize the convolutions of an ONNX file to 8 bits: weights per channel, activations by the
    smallest and largest values on ``pictures``. The decoding of boxes stays float32.

    Args:
        path: an ONNX file in float32, which is replaced.
        pictures: uint8 BGR; a few hundred, similar to those that the network will process.
        spec: input convention of the network.
        batch: of the file.

    Raises: ExportError if the file's operators are too old for a scale per channel.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Pictures(CalibrationDataReader):
        """The images, prepared one after the other."""

        def __init__(self) -> None:
            self._waiting = _prepared(pictures, spec, batch)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._waiting, None)

    model = onnx.load(str(path))
    version = next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
    if version < LEAST_OPSET:
        raise ExportError(
            f"export: --int8 needs ONNX operators of version {LEAST_OPSET} or later, got "
            f"{version}, which is what MindSpore writes; use --backend torch"
        )
    texts = {entry.key: entry.value for entry in model.metadata_props}
    tail = [node.name for node in behind_convolutions(model)]
    with TemporaryDirectory(prefix="mindyolo_ext-", ignore_cleanup_errors=True) as folder:
        source, target = (Path(folder) / name for name in ("float.onnx", "int8.onnx"))
        onnx.save(model, str(source))
        quantize_static(
            str(source),
            str(target),
            Pictures(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=tail,
        )
        model = onnx.load(str(target))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, str(path))


def _prepared(
    pictures: Sequence[np.ndarray], spec: InputSpec, batch: int
) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of the network; a batch repeats its image."""
    for picture in pictures:
        yield {"images": spec.prepare(picture)[0][None].repeat(batch, 0)}

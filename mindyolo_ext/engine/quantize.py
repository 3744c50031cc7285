"""Quantize exported networks to 8-bit integers, calibrated on the user's images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mindyolo_ext.engine.onnx_graph import behind_convolutions
from mindyolo_ext.errors import ExportError
from mindyolo_ext.input_spec import InputSpec

# Percentile of activations at which their range is cut at each end. A single outlier among 128
# photos lowers the AP of YOLOX-Nano from 24 to 7 (float32: 33.65) and that of Yolo-FastestV2 from
# 17.2 to 16.1 (float32: 18.65)
PERCENTILE = 99.99
LEAST_OPSET = 13  # the first in which DequantizeLinear takes a scale per channel


def quantize(
    path: Path, pictures: Sequence[np.ndarray], spec: InputSpec, *, batch: int = 1
) -> None:
    """Quantize the convolutions of an ONNX file to 8 bits: weights per channel, activations by
    their range on ``pictures`` without the outermost values. The decoding of boxes stays float32.

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
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Pictures(CalibrationDataReader):
        """The images, prepared one after the other."""

        def __init__(self) -> None:
            self.set_range(0, len(pictures))

        def __len__(self) -> int:
            return len(pictures)

        def set_range(self, start_index: int, end_index: int) -> None:
            """Select the images for the next calibration."""
            self._waiting = _prepared(pictures[start_index:end_index], spec, batch)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._waiting, None)

    model = onnx.load(str(path))
    version = next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
    if version < LEAST_OPSET:
        raise ExportError(
            f"export: --int8 needs ONNX operators of version {LEAST_OPSET} or later, got "
            f"{version}, which is what MindSpore writes; export it with PyTorch: `pip install "
            "'mindyolo_ext[torch]'`, then the same command with --backend torch"
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
            calibrate_method=CalibrationMethod.Percentile,
            # One image at a time, because the feature maps of all of them would fill the memory
            extra_options={"CalibPercentile": PERCENTILE, "CalibStridedMinMax": 1},
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

"""Convert an ONNX file to OpenVINO's own format."""

from collections.abc import Mapping
from pathlib import Path

from mindyolo_ext.errors import MissingPackageError


def write_openvino(onnx_file: Path, target: Path, description: Mapping[str, str]) -> None:
    """Convert a network in float32.

    Args:
        onnx_file: as written by ``export``.
        target: ends in ``.xml``; the weights are written to the ``.bin`` beside it.
        description: text to store in ``rt_info``.

    Raises: MissingPackageError.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingPackageError(
            "export: OpenVINO is not installed: `pip install 'mindyolo_ext[openvino]'`"
        ) from error
    model = openvino.convert_model(str(onnx_file))
    for key, value in description.items():
        model.set_rt_info(value, ["mindyolo_ext", key])
    openvino.save_model(model, str(target), compress_to_fp16=False)

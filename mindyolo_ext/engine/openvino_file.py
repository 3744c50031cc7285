"""Convert an ONNX file to OpenVINO's own format, in float32 or 8 bits."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from mindyolo_ext.errors import MissingPackageError
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.runtimes.on_openvino import core

if TYPE_CHECKING:
    from openvino import Model


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


def quantize_openvino(path: Path, pictures: Sequence[np.ndarray], spec: InputSpec) -> None:
    """Quantize the convolutions of an OpenVINO file to 8 bits with NNCF, calibrated on
    ``pictures``. The decoding of boxes stays float32.

    Args:
        path: ``.xml`` of batch 1 in float32, which is replaced with its ``.bin``.
        pictures: uint8 BGR; a few hundred, similar to those that the network will process.
        spec: input convention of the network.

    Raises: MissingPackageError.
    """
    import openvino

    try:
        import nncf
    except ImportError as error:
        raise MissingPackageError(
            "export: --int8 for openvino needs NNCF, which is not installed: `pip install "
            "'mindyolo_ext[nncf]'`"
        ) from error
    logging.getLogger("nncf").setLevel(logging.ERROR)  # it lists every operator that it ignores
    model = core().read_model(str(path))
    small = nncf.quantize(
        model,
        nncf.Dataset(pictures, lambda picture: {"images": spec.prepare(picture)[0][None]}),
        subset_size=len(pictures),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=_behind_convolutions(model), validate=False),
    )
    with TemporaryDirectory(prefix="mindyolo_ext-", ignore_cleanup_errors=True) as folder:
        made = Path(folder) / path.name
        openvino.save_model(small, str(made), compress_to_fp16=False)
        content = {file.suffix: file.read_bytes() for file in Path(folder).iterdir()}
    for suffix, own in content.items():
        path.with_suffix(suffix).unlink()  # the old file may be open
        path.with_suffix(suffix).write_bytes(own)


def _behind_convolutions(model: "Model") -> list[str]:
    """Names of the operators that no convolution depends on."""
    leads: dict[str, bool] = {}
    for node in reversed(model.get_ordered_ops()):
        after = [
            reader.get_node().get_friendly_name()
            for output in node.outputs()
            for reader in output.get_target_inputs()
        ]
        is_convolution = "Convolution" in node.get_type_name()
        leads[node.get_friendly_name()] = is_convolution or any(leads[name] for name in after)
    ends = ("Parameter", "Constant", "Result")
    return [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if not leads[node.get_friendly_name()] and node.get_type_name() not in ends
    ]

"""Run ONNX files in ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mindyolo_ext.errors import DeviceError
from mindyolo_ext.runtimes.session import Arrays, Shape, missing, unreadable

_PROVIDERS = {
    "CPU": "CPUExecutionProvider",
    "GPU": "CUDAExecutionProvider",
    "Ascend": "CANNExecutionProvider",
}


class OnnxRuntimeSession:
    """A ``Session`` of ONNX Runtime.

    Args:
        path: an ONNX file with valid metadata.
        device: ``CPU``, ``GPU`` or ``Ascend``.
        threads: number of threads; 0 lets ONNX Runtime decide.

    Raises: MissingPackageError; DeviceError for a device that the installed package does not
        support; CheckpointError for a file that it cannot load.
    """

    def __init__(self, path: Path, *, device: str = "CPU", threads: int = 0):
        try:
            import onnxruntime
        except ImportError as error:
            raise missing("onnxruntime", error) from error
        provider = _PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise DeviceError(
                f"--device_target {device}: the installed ONNX Runtime has no {provider}; install "
                "the package for that device (onnxruntime-gpu, onnxruntime-cann), or use CPU"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors are raised as exceptions
        try:
            self._session = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=[provider, *(["CPUExecutionProvider"] * (device != "CPU"))],
            )
        except Exception as error:  # ONNX Runtime has its own exception classes
            raise unreadable(path, "onnxruntime", error) from error
        self.device = device
        self.inputs: dict[str, Shape] = {
            value.name: tuple(side if isinstance(side, int) else None for side in value.shape)
            for value in self._session.get_inputs()
        }
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """As ``Session.run``."""
        values = self._session.run(None, {name: arrays[name] for name in self.inputs})
        return dict(zip(self.outputs, values, strict=True))

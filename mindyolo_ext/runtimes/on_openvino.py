"""Run ONNX files and OpenVINO files (``.xml`` beside ``.bin``) in OpenVINO."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mindyolo_ext.errors import DeviceError
from mindyolo_ext.runtimes.session import Arrays, Shape, missing, unreadable


class OpenVinoSession:
    """A ``Session`` of OpenVINO, always in float32.

    Args:
        path: ``.onnx``, or ``.xml`` with its ``.bin`` beside it.
        device: ``CPU``, or ``GPU`` for one of Intel.
        threads: number of threads; 0 lets OpenVINO decide.

    Raises: MissingPackageError; DeviceError for a device that OpenVINO does not find;
        CheckpointError for a file that it cannot load.
    """

    def __init__(self, path: Path, *, device: str = "CPU", threads: int = 0):
        try:
            import openvino
        except ImportError as error:
            raise missing("openvino", error) from error
        core = openvino.Core()
        if device not in {name.partition(".")[0] for name in core.available_devices}:
            raise DeviceError(
                f"--device_target {device}: OpenVINO finds {', '.join(core.available_devices)} "
                "here; use CPU"
            )
        # By default OpenVINO uses bfloat16 where the processor has it, which changes the boxes
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            self._model = core.compile_model(core.read_model(str(path)), device, settings)
        except RuntimeError as error:
            raise unreadable(path, "openvino", error) from error
        self.device = device
        self.inputs: dict[str, Shape] = {
            port.any_name: tuple(
                side.get_length() if side.is_static else None for side in port.partial_shape
            )
            for port in self._model.inputs
        }
        # An output that OpenVINO merged with another tensor has the names of both
        self._names = [sorted(port.get_names()) for port in self._model.outputs]
        self.outputs = tuple(name for names in self._names for name in names)

    def run(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """As ``Session.run``; each call creates its own request, so it is thread-safe."""
        request = self._model.create_infer_request()
        request.infer({name: arrays[name] for name in self.inputs}, share_inputs=True)
        arrays = [np.array(request.get_tensor(port).data) for port in self._model.outputs]
        return {
            name: array for names, array in zip(self._names, arrays, strict=True) for name in names
        }

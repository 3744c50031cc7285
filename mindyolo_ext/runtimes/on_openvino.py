"""Run ONNX files and OpenVINO files (``.xml`` beside ``.bin``) in OpenVINO."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mindyolo_ext.errors import DeviceError
from mindyolo_ext.runtimes.session import Arrays, Shape, missing, unreadable

if TYPE_CHECKING:
    import openvino


@cache
def core() -> "openvino.Core":
    """Return the only ``Core`` of this process.

    OpenVINO's CPU plugin replaces the thread's alternate signal stack and restores the previous one
    when it ends. If two plugins end in the order in which they started, the freed stack of the
    first one stays in place, and the next signal crashes the process with a segmentation fault. So
    the plugin is loaded once.

    Raises: MissingPackageError.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing("openvino", error) from error
    return openvino.Core()


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
        devices = core().available_devices
        if device not in {name.partition(".")[0] for name in devices}:
            raise DeviceError(
                f"--device_target {device}: OpenVINO finds {', '.join(devices)} here; use CPU"
            )
        # By default OpenVINO uses bfloat16 where the processor has it, which changes the boxes
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            self._model = core().compile_model(core().read_model(str(path)), device, settings)
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

"""ONNX files and OpenVINO's own (``.xml`` beside ``.bin``) in OpenVINO."""

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
    """The one ``Core`` of this process.

    OpenVINO's processor plugin replaces the thread's alternate signal stack and puts the previous
    one back when it ends. If two of them end in the order in which they began, the stack of the
    first one stays in place although its memory is gone, and the next signal ends the process with
    a segmentation fault. So the plugin is loaded once.

    Raises: MissingPackageError.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing("openvino", error) from error
    return openvino.Core()


class OpenVinoSession:
    """A ``Session`` of OpenVINO, in float32 on every processor.

    Args:
        path: ``.onnx``, or ``.xml`` with its ``.bin`` beside it.
        device: ``CPU`` or ``GPU``, which is Intel's.
        threads: 0 leaves it to OpenVINO.

    Raises: MissingPackageError; DeviceError for a device that OpenVINO does not find;
        CheckpointError for a file that it refuses.
    """

    def __init__(self, path: Path, *, device: str = "CPU", threads: int = 0):
        devices = core().available_devices
        if device not in {name.partition(".")[0] for name in devices}:
            raise DeviceError(
                f"--device_target {device}: OpenVINO finds {', '.join(devices)} here; take CPU"
            )
        # Processors with bfloat16 would use it unasked, which changes the boxes
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
        """As ``Session.run``; each call has a request of its own, so threads do not meet."""
        request = self._model.create_infer_request()
        request.infer({name: arrays[name] for name in self.inputs}, share_inputs=True)
        arrays = [np.array(request.get_tensor(port).data) for port in self._model.outputs]
        return {
            name: array for names, array in zip(self._names, arrays, strict=True) for name in names
        }

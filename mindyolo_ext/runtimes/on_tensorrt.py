"""Run TensorRT engines on an NVIDIA GPU."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.errors import DeviceError
from mindyolo_ext.runtimes.session import Arrays, Shape, missing, unreadable


class TensorRTSession:
    """A ``Session`` of TensorRT. An engine runs only on the GPU model and the TensorRT version that
    it was built with. It is a program: load only engines that you built.

    Args:
        path: ``.engine`` of ``deploy/build_tensorrt.py``.
        device: ``GPU``; ``CPU``, the default of commands, means the GPU too.

    Raises: MissingPackageError; CheckpointError for an engine that TensorRT refuses; DeviceError if
        there is no GPU or too little of its memory.
    """

    def __init__(self, path: Path, *, device: str = "GPU"):
        if device == "Ascend":
            raise DeviceError("--device_target Ascend: TensorRT runs only on NVIDIA GPUs")
        try:
            import tensorrt
            from cuda.bindings import runtime as cuda
        except ImportError as error:
            raise missing("tensorrt", error) from error
        self._cuda, self._lock, self.device = cuda, threading.Lock(), "GPU"
        self._stream = self._done(cuda.cudaStreamCreate())
        logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        self._engine = tensorrt.Runtime(logger).deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            reason = RuntimeError("built for another GPU or another version of TensorRT?")
            raise unreadable(path, "tensorrt", reason)
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._kinds = {name: tensorrt.nptype(self._engine.get_tensor_dtype(name)) for name in names}
        enters = {
            name: self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
            for name in names
        }
        self.inputs: dict[str, Shape] = {
            name: tuple(None if s < 0 else s for s in self._engine.get_tensor_shape(name))
            for name in names
            if enters[name]
        }
        self.outputs = tuple(name for name in names if not enters[name])

    def run(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """As ``Session.run``; calls run one at a time, because a context has one state."""
        with self._lock:
            memory: list[Any] = []
            try:
                for name in self.inputs:
                    array = np.ascontiguousarray(arrays[name], self._kinds[name])
                    self._context.set_input_shape(name, array.shape)
                    self._place(name, array.nbytes, memory)
                    self._copy(memory[-1], array.ctypes.data, array.nbytes, to_device=True)
                found = {}
                for name in self.outputs:
                    shape = tuple(self._context.get_tensor_shape(name))
                    found[name] = np.empty(shape, self._kinds[name])
                    self._place(name, found[name].nbytes, memory)
                if not self._context.execute_async_v3(int(self._stream)):
                    raise DeviceError("TensorRT: the engine could not be run on this GPU")
                self._done(self._cuda.cudaStreamSynchronize(self._stream))
                for array, place in zip(found.values(), memory[len(self.inputs) :], strict=True):
                    self._copy(array.ctypes.data, place, array.nbytes, to_device=False)
                return found
            finally:
                for place in memory:
                    self._cuda.cudaFree(place)

    def _place(self, name: str, size: int, memory: list[Any]) -> None:
        """Allocate device memory for an input or output."""
        memory.append(self._done(self._cuda.cudaMalloc(max(size, 1))))
        self._context.set_tensor_address(name, int(memory[-1]))

    def _copy(self, target: Any, source: Any, size: int, *, to_device: bool) -> None:
        kinds = self._cuda.cudaMemcpyKind
        kind = kinds.cudaMemcpyHostToDevice if to_device else kinds.cudaMemcpyDeviceToHost
        self._done(self._cuda.cudaMemcpy(target, source, size, kind))

    def _done(self, answer: tuple[Any, ...]) -> Any:
        """Return the value of a CUDA call. Raises: DeviceError if it failed."""
        status, *values = answer
        if int(status):
            raise DeviceError(
                f"TensorRT: CUDA returned {status}; no GPU, or not enough GPU memory?"
            )
        return values[0] if values else None

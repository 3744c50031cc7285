"""Run MindIR files in MindSpore, the only runtime that starts a framework."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mindyolo_ext.runtimes.session import Arrays, Shape


class MindIRSession:
    """A ``Session`` of MindSpore.

    Args:
        path: a MindIR file of a whole network.
        shape: shape of its input.
        device: device name, as in ``backend.launch.start``.

    Raises: DeviceError if this process runs on PyTorch; CheckpointError for a file that MindSpore
        cannot load.
    """

    def __init__(self, path: Path, *, shape: Shape, device: str = "CPU"):
        from mindyolo_ext.backend import launch
        from mindyolo_ext.backend.export import load_mindir
        from mindyolo_ext.backend.lock import framework_lock

        self._lock = framework_lock
        with framework_lock:
            launch.start(device)
            self._network = load_mindir(path)
        self.device = device
        self.inputs = {"images": shape}
        self.outputs = ("boxes", "scores")

    def run(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """As ``Session.run``."""
        with self._lock:
            values = self._network(*(arrays[name] for name in self.inputs))
        return dict(zip(self.outputs, values, strict=True))

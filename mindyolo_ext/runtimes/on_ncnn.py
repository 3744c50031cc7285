"""Run ncnn files (``.param`` beside ``.bin``) in ncnn."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mindyolo_ext.errors import CheckpointError, DeviceError
from mindyolo_ext.runtimes.session import Arrays, Shape, missing

_MAGIC = "7767517"


class NcnnSession:
    """A ``Session`` of ncnn, in float32 on the CPU.

    Args:
        path: ``.param`` with its ``.bin`` beside it, both already checked.
        size: (height, width) of the input.
        device: ``CPU``.
        threads: number of threads; 0 lets ncnn use all fast cores.

    Raises: MissingPackageError; DeviceError for another device; CheckpointError for files that ncnn
        cannot load.
    """

    def __init__(self, path: Path, *, size: tuple[int, int], device: str = "CPU", threads: int = 0):
        try:
            import ncnn
        except ImportError as error:
            raise missing("ncnn", error) from error
        if device != "CPU":
            raise DeviceError(f"--device_target {device}: ncnn runs on the CPU here; use CPU")
        _check_description(path)
        self._ncnn, self._net = ncnn, ncnn.Net()
        options = self._net.opt
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        options.use_bf16_storage = False
        if threads:
            options.num_threads = threads
        for load, file in (
            (self._net.load_param, path),
            (self._net.load_model, path.with_suffix(".bin")),
        ):
            if load(str(file)):
                raise CheckpointError(f"{file}: ncnn cannot load it; export the checkpoint again")
        self._path, self.device = path, device
        self.inputs: dict[str, Shape] = {"images": (1, 3, *size)}
        self.outputs = ("boxes", "scores")

    def run(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """As ``Session.run``; each call creates its own extractor, so it is thread-safe."""
        image = np.ascontiguousarray(arrays["images"][0], np.float32)
        extractor = self._net.create_extractor()
        extractor.input("in0", self._ncnn.Mat(image))
        found = {}
        for index, name in enumerate(self.outputs):
            status, rows = extractor.extract(f"out{index}")
            if status:
                raise CheckpointError(
                    f"{self._path}: ncnn cannot compute {name}; export the checkpoint again"
                )
            found[name] = np.array(rows, np.float32)[None]
        return found


def _check_description(path: Path) -> None:
    """Make sure that the ``.param`` holds as many layers as it says, and one input called in0.

    Raises: CheckpointError: ncnn would crash.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    layers = [line.split() for line in lines[2:] if line.strip()]
    inputs = [words[4:] for words in layers if words[:1] == ["Input"]]
    sound = lines[0].strip() == _MAGIC and len(lines) > 2
    sound = sound and lines[1].split()[:1] == [str(len(layers))]
    if not sound or [words[:1] for words in inputs] != [["in0"]]:
        raise CheckpointError(
            f"{path}: not an ncnn network of this package, or truncated; export the checkpoint "
            "again"
        )

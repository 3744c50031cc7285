"""Names of the runtimes, and the files that each one runs."""

from dataclasses import dataclass
from pathlib import Path

from mindyolo_ext.errors import UsageError, did_you_mean
from mindyolo_ext.framework import FRAMEWORKS


@dataclass(frozen=True)
class Runtime:
    """A program that runs exported files.

    Args:
        title: official spelling of its name.
        suffixes: suffixes of the files that it runs, its native format first.
        format: ``--format`` of ``mindyolo-ext export`` for its files; empty if another program
            writes them.
        install: command that installs its package.
        routes: whether it runs the parts of a routed model.
    """

    title: str
    suffixes: tuple[str, ...]
    format: str
    install: str
    routes: bool = False


EXPORTED = {
    "onnxruntime": Runtime(
        "ONNX Runtime", (".onnx",), "onnx", "pip install 'mindyolo_ext[onnx]'", routes=True
    ),
    "openvino": Runtime(
        "OpenVINO",
        (".xml", ".onnx"),
        "openvino",
        "pip install 'mindyolo_ext[openvino]'",
        routes=True,
    ),
    "ncnn": Runtime("ncnn", (".param",), "ncnn", "pip install 'mindyolo_ext[ncnn]'"),
    "mindir": Runtime("MindSpore", (".mindir",), "mindir", "pip install mindspore"),
    "tensorrt": Runtime("TensorRT", (".engine",), "", "pip install tensorrt cuda-python"),
}
RUNTIMES = (*FRAMEWORKS, *EXPORTED)
# suffix -> runtimes that run such files, the usual one first
BY_SUFFIX = {
    suffix: tuple(name for name, runtime in EXPORTED.items() if suffix in runtime.suffixes)
    for suffix in (".onnx", ".xml", ".param", ".mindir", ".engine")
}


def runtime_of(weight: Path, asked: str | None = None) -> str | None:
    """Return the runtime in ``RUNTIMES`` for a file; None for a checkpoint that the framework of
    this process runs.

    Args:
        weight: a checkpoint or an exported file, told apart by suffix.
        asked: the runtime that the user selected. A checkpoint can run in any: runtimes other than
            frameworks run an exported copy.

    Raises: UsageError for an unknown runtime, or one that does not run such files.
    """
    if asked is not None and asked not in RUNTIMES:
        raise UsageError(f"runtime {asked!r}: no such runtime{did_you_mean(asked, RUNTIMES)}")
    able = BY_SUFFIX.get(weight.suffix.lower())
    if able is None:
        return asked
    if asked is not None and asked not in able:
        wanted = "a checkpoint" if asked in FRAMEWORKS else " or ".join(EXPORTED[asked].suffixes)
        raise UsageError(
            f"{weight}: {asked} runs {wanted}, not {weight.suffix} files; for these use "
            f"--runtime {' or '.join(able)}"
        )
    return asked or able[0]


def is_exported(weight: Path) -> bool:
    """Whether the suffix is that of an exported file."""
    return weight.suffix.lower() in BY_SUFFIX


def devices_of(
    weight: Path, runtime: str | None, device_target: str | None
) -> tuple[str, str | None]:
    """Return the device of a runtime that is not a framework, and that of the framework.

    Raises: UsageError as ``runtime_of``.
    """
    is_beside = runtime_of(weight, runtime) in EXPORTED
    return device_target or "CPU", "CPU" if is_beside else device_target

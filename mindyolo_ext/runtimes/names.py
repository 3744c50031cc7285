"""The runtimes by name, and the files that each of them runs."""

from dataclasses import dataclass
from pathlib import Path

from mindyolo_ext.errors import UsageError, did_you_mean

FRAMEWORKS = ("mindspore", "torch")  # they run checkpoints


@dataclass(frozen=True)
class Runtime:
    """A program that runs exported files.

    Args:
        title: as its makers write it.
        suffixes: of files that it runs, its own format first.
        format: of ``mindyolo-ext export``, which makes its files; empty if another program does.
        install: what to type where its package is missing.
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
    """The runtime of ``RUNTIMES`` for a file; None for a checkpoint, which the framework of this
    process runs.

    Args:
        weight: a checkpoint or an exported file; its suffix tells which.
        asked: the one that the user wants. For a checkpoint that may be any: what does not run
            checkpoints runs an exported copy.

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
            f"{weight}: {asked} runs {wanted}, not {weight.suffix} files; those are run by "
            f"--runtime {' or '.join(able)}"
        )
    return asked or able[0]


def is_exported(weight: Path) -> bool:
    """Whether the suffix is that of an exported file."""
    return weight.suffix.lower() in BY_SUFFIX

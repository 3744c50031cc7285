"""Open exported files in the selected runtime."""

import logging
from dataclasses import replace

from mindyolo_ext.contracts import Predictor
from mindyolo_ext.errors import CheckpointError, UsageError
from mindyolo_ext.evaluation.routing import checked_threshold, threshold_for
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.runtimes.file import PLUGIN, RAW, ExportedFile, read_exported
from mindyolo_ext.runtimes.names import EXPORTED
from mindyolo_ext.runtimes.predictor import ExportedPredictor, RoutedExportedPredictor
from mindyolo_ext.runtimes.session import Session

logger = logging.getLogger(__name__)


def open_predictor(
    file: ExportedFile,
    runtime: str,
    *,
    input_spec: InputSpec | None = None,
    device: str = "CPU",
    threads: int = 0,
    dy_thres: float | None = None,
    easy: float | None = None,
) -> Predictor:
    """Open an exported network, or the routed model that a file belongs to.

    Args:
        file: result of ``read_exported``.
        runtime: one of ``names.EXPORTED``.
        input_spec: input convention that replaces the file's.
        device: ``CPU``, ``GPU`` or ``Ascend``.
        threads: number of threads; 0 lets the runtime decide.
        dy_thres, easy: route of a routed model, as in ``Detector``.

    Raises: UsageError for a file that the predictor cannot use, or a route for a model that has
        none; as the sessions.
    """
    _check_usable(file, runtime)
    spec = file.metadata.input_spec if input_spec is None else input_spec
    if not file.part:
        _refuse_route(file, dy_thres, easy)
        session = open_session(file, runtime, device=device, threads=threads)
        return ExportedPredictor(file, session, spec)
    files = _all_parts(file)
    sessions = {
        part: open_session(its, runtime, device=device, threads=threads)
        for part, its in files.items()
    }
    threshold = _threshold(file, dy_thres, easy)
    return RoutedExportedPredictor(files, sessions, spec, dy_thres=threshold)


def open_session(
    file: ExportedFile, runtime: str, *, device: str = "CPU", threads: int = 0
) -> Session:
    """Open one file. Raises: as the sessions of the runtimes."""
    if runtime == "onnxruntime":
        from mindyolo_ext.runtimes.on_onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(file.path, device=device, threads=threads)
    if runtime == "openvino":
        from mindyolo_ext.runtimes.on_openvino import OpenVinoSession

        return OpenVinoSession(file.path, device=device, threads=threads)
    if runtime == "ncnn":
        from mindyolo_ext.runtimes.on_ncnn import NcnnSession

        size = file.metadata.input_spec.size
        return NcnnSession(file.path, size=size, device=device, threads=threads)
    if runtime == "mindir":
        from mindyolo_ext.runtimes.on_mindir import MindIRSession

        shape = (file.batch, 3, *file.metadata.input_spec.size)
        return MindIRSession(file.path, shape=shape, device=device)
    if runtime == "tensorrt":
        from mindyolo_ext.runtimes.on_tensorrt import TensorRTSession

        return TensorRTSession(file.path, device=device)
    raise UsageError(f"{file.path}: {runtime} is not among {', '.join(EXPORTED)}")


def _check_usable(file: ExportedFile, runtime: str) -> None:
    """Raises: UsageError."""
    if file.outputs == RAW:
        raise UsageError(
            f"{file.path}: was exported with --raw; wanted decoded boxes and scores, which "
            "`mindyolo-ext export` writes without that flag"
        )
    if file.outputs == PLUGIN:
        raise UsageError(
            f"{file.path}: holds TensorRT's NMS, for your own programs; export it without "
            "--nms tensorrt"
        )
    if file.has_preprocess:
        raise UsageError(
            f"{file.path}: was exported with --with_preprocess, for programs without this package; "
            "export it without that flag"
        )
    if file.part and not EXPORTED[runtime].routes:
        able = " or ".join(name for name, facts in EXPORTED.items() if facts.routes)
        raise UsageError(
            f"{file.path}: is a part of a routed model ({file.holds}), and {runtime} runs whole "
            f"models only; use --runtime {able}, or the checkpoint"
        )


def _all_parts(file: ExportedFile) -> dict[str, ExportedFile]:
    """Read all files of the export that ``file`` belongs to. Raises: MissingFileError;
    CheckpointError if they are from different exports.
    """
    found = {}
    for part, path in (file.files or {}).items():
        other = file if part == file.part else read_exported(path)
        if (other.part, other.pair) != (part, file.pair):
            raise CheckpointError(
                f"{path} (export {other.pair or 'unknown'}, part {other.part or 'none'}) and "
                f"{file.path} (export {file.pair}) do not belong together; wanted {part} of the "
                "same export"
            )
        found[part] = other
    if not {"first", "second"} <= set(found):
        raise CheckpointError(
            f"{file.path}: names the parts {', '.join(found)} of a routed model, wanted first and "
            "second among them; export the checkpoint again"
        )
    return found


def _refuse_route(file: ExportedFile, dy_thres: float | None, easy: float | None) -> None:
    """Raises: UsageError if a route is given for a model without one."""
    if dy_thres is not None or easy is not None:
        flag = "dy_thres" if easy is None else "easy"
        raise UsageError(
            f"{file.path}: {file.metadata.model} in one file is not routed, all images take the "
            f"same exit; leave {flag} out"
        )


def _threshold(file: ExportedFile, dy_thres: float | None, easy: float | None) -> float | None:
    """Return the requested threshold, None for the files' own. Raises: UsageError."""
    if dy_thres is not None and easy is not None:
        raise UsageError(f"{file.path}: dy_thres and easy exclude each other; set only one")
    if easy is None:
        return None if dy_thres is None else checked_threshold(dy_thres)
    stored = file.metadata.extra.get("thresholds") or {}
    if 0 < easy < 1 and not stored:
        raise UsageError(
            f"{file.path}: holds no thresholds, so the one for {100 * easy:g} % easy images is "
            "unknown; measure them with `mindyolo-ext thresholds` and export the checkpoint again"
        )
    return threshold_for(easy, stored)


def with_size(file: ExportedFile, size: tuple[int, int] | None) -> InputSpec:
    """Return the file's input convention, at ``size`` (height, width) if set. Raises: UsageError
    for a size that the network cannot take.
    """
    spec = file.metadata.input_spec
    return spec if size is None else replace(spec, size=size)

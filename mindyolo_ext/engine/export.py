"""Export checkpoints to files for other runtimes, and compare each file with its network."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from mindyolo_ext import __version__, atomic
from mindyolo_ext.backend import launch
from mindyolo_ext.backend.compiled import Compiled
from mindyolo_ext.backend.export import (
    DERIVED,
    FORMATS,
    check_formats,
    load_mindir,
    write_graph,
)
from mindyolo_ext.checkpoint.reader import file_sha256
from mindyolo_ext.checkpoint.store import CheckpointMetadata
from mindyolo_ext.contracts import Predictor, Routed
from mindyolo_ext.engine.build import load_model
from mindyolo_ext.engine.export_check import (
    EXACT,
    HALF,
    INT8,
    PREPARED,
    ArraySession,
    BoxCheck,
    Finder,
    check_pictures,
    compare_boxes,
    confidence_for,
    finder,
)
from mindyolo_ext.engine.lite_file import find_converter, write_ms
from mindyolo_ext.engine.ncnn_file import check_for_ncnn, write_ncnn
from mindyolo_ext.engine.onnx_graph import OnnxOptions
from mindyolo_ext.engine.openvino_file import quantize_openvino, write_openvino
from mindyolo_ext.engine.parts import Part, parts_of
from mindyolo_ext.errors import DeviceError, ExportError, UsageError
from mindyolo_ext.evaluation.collect import detections_to_photo
from mindyolo_ext.evaluation.nms import NMSOptions, nms
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.runtimes.file import DETECTIONS, PLUGIN, ExportedFile, read_exported
from mindyolo_ext.runtimes.load import open_session
from mindyolo_ext.runtimes.predictor import ExportedPredictor, RoutedExportedPredictor

logger = logging.getLogger(__name__)
TOLERANCE = 1e-3  # on scores and other outputs, and relative to the size of a box coordinate
CALIBRATION = 128  # images at most; more of them hardly change the ranges of activations
DRAWN_ADVICE = "; scores on drawn images are unreliable: use photos with --images DIR"
INT8_ADVICE = "; `--format openvino --int8` keeps more of such networks"
HALF_TOLERANCE = 0.1  # of float16: 10 bits, through a hundred layers
Arrays = dict[str, np.ndarray]  # by name of an input or output
# Formats whose files have another suffix than their name, and the additional files of a format
_ENDINGS = {"ncnn": "ncnn.param", "openvino": "xml"}
_COMPANIONS = {"ncnn": (".bin", ".json"), "openvino": (".bin",), "ms": (".json",)}
# Formats that nothing here can run, and what runs them
_UNCHECKED = {"air": "Ascend", "ms": "MindSpore Lite"}


@dataclass
class ExportReport:
    """The files, and the largest difference of every output from the source network.

    Keys are formats, or format and part of a routed model, ``"onnx first"``.
    """

    files: dict[str, Path] = field(default_factory=dict)
    differences: dict[str, list[float]] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, BoxCheck] = field(default_factory=dict)  # by format
    tolerance: float = TOLERANCE

    def _bytes(self, label: str, path: Path) -> int:
        """Size of a file and its companions."""
        ends = _COMPANIONS.get(label.partition(" ")[0], ())
        return sum(file.stat().st_size for file in (path, *map(path.with_suffix, ends)))

    def table(self) -> str:
        """One row per file."""
        rows = [
            (
                kind,
                str(path),
                f"{self._bytes(kind, path) / 2**20:.2f}",
                ", ".join(f"{d:.1e}" for d in self.differences.get(kind, []))
                or f"not checked (needs {_UNCHECKED[kind.partition(' ')[0]]})",
                f"{self.milliseconds[kind]:.1f}" if kind in self.milliseconds else "",
            )
            for kind, path in self.files.items()
        ]
        table = tabulate(
            rows, ("format", "file", "MB", "largest difference per output", "ms per run here")
        )
        checks = [f"{kind}: {check}" for kind, check in self.pictures.items()]
        return "\n\n".join([table, "\n".join(checks)] if checks else [table])


@dataclass(frozen=True)
class Job:
    """A part with its inputs and the outputs of the source network.

    Args:
        run: runs the source network.
        exported: by format, a function that runs the exported file.
    """

    part: Part
    inputs: Arrays
    expected: Arrays
    run: Callable[..., Sequence[np.ndarray]]
    exported: dict[str, Callable[[Arrays], Sequence[np.ndarray]]] = field(default_factory=dict)


def export(
    weight: str | Path,
    formats: Sequence[str] | None = None,
    *,
    output: str | Path | None = None,
    size: tuple[int, int] | None = None,
    batch_size: int = 1,
    raw: bool = False,
    parts: int | None = None,
    onnx: OnnxOptions | None = None,
    images: Path | None = None,
) -> ExportReport:
    """Export the deploy form of a checkpoint (BatchNorm folded) with its metadata inside.

    Each part of a routed model gets its own file, NAME-first and NAME-second, so that a program
    runs the second detector for hard images only.

    Args:
        weight: checkpoint of this project.
        formats: of ``backend.export.FORMATS``; ``air`` needs an Ascend device. None: all others.
        output: file name without suffix, default the checkpoint's.
        size: (height, width) of the input, default as trained.
        batch_size: fixed batch of the exported graph. For a routed model it is the batch of the
            first file; the others take one image, because the images of a batch separate there.
        raw: return the network's own outputs instead of ``boxes`` (B, A, 4) and ``scores`` (B, A,
            K).
        parts: for a routed model: 2 files, or 3 with a separate head of the first detector, see
            ``parts_of``.
        onnx: options of ONNX files.
        images: folder of images to compare the files on; None draws two.

    Raises: DeviceError for AIR without Ascend, or for a format of another backend; ValueError for
        an unknown format, ``parts`` for another model, or if an exported file does not reproduce
        the source network's numbers (no file of that format is kept then).
    """
    if formats is None:
        formats = [name for name in FORMATS if name != "air"]
    check_formats(formats)
    onnx = onnx or OnnxOptions()
    pictures = check_pictures(images, CALIBRATION if onnx.int8 else 8)
    try:
        launch.start("Ascend" if "air" in formats else "CPU")
    except DeviceError as error:
        if "air" not in formats:
            raise
        raise DeviceError(
            "export: AIR can only be written on an Ascend device; use onnx or mindir here"
        ) from error
    model, metadata = load_model(weight)
    if size is not None:
        model.input_spec = replace(model.input_spec, size=size)
    metadata = replace(metadata, input_spec=model.input_spec)
    deploy = model.to_deploy()
    pieces = parts_of(deploy, raw=raw, count=parts)
    _check_options(
        onnx,
        formats,
        raw=raw,
        is_cut=len(pieces) > 1,
        batch_size=batch_size,
        images=images,
    )
    if isinstance(model, Routed) and len(pieces) == 1:
        logger.info(
            "%s: has no router yet, so all images are hard; exporting it as one file%s",
            weight,
            "" if raw else " that gives the second detector's boxes",
        )
    description = describe(metadata, raw, batch_size=batch_size, strides=model.strides)
    if len(pieces) > 1:
        description |= describe_route(metadata, model.dy_thres)
        key = file_sha256(weight) + json.dumps(description, sort_keys=True) + str(len(pieces))
        description["pair"] = hashlib.sha256(key.encode()).hexdigest()[:16]
    jobs = run_parts(pieces, example_input(batch_size, model.input_spec))
    stem = Path(output) if output else Path(weight).with_suffix("")
    stem.parent.mkdir(parents=True, exist_ok=True)
    report = ExportReport(tolerance=HALF_TOLERANCE if onnx.half else TOLERANCE)
    for kind in formats:
        _export_format(
            jobs, kind, stem, description, report, onnx, pictures, is_drawn=images is None
        )
    return report


def _check_options(
    onnx: OnnxOptions,
    formats: Sequence[str],
    *,
    raw: bool,
    is_cut: bool,
    batch_size: int,
    images: Path | None,
) -> None:
    """Raises: UsageError for options that do not fit each other or the model."""
    small_openvino = list(formats) == ["openvino"] and onnx == OnnxOptions(int8=True)
    if onnx.changes and list(formats) != ["onnx"] and not small_openvino:
        raise UsageError(
            "export: these options apply to ONNX files only (--int8 also to openvino); "
            "use --format onnx alone"
        )
    if small_openvino and batch_size != 1:
        raise UsageError(
            f"export: openvino calibrates one image at a time, got --per_batch_size {batch_size}"
        )
    if "ncnn" in formats:
        check_for_ncnn(batch_size=batch_size, is_cut=is_cut, raw=raw)
    if "ms" in formats:
        find_converter()
    if onnx.dynamic_size and (is_cut or raw):
        raise UsageError(
            "export: --dynamic_size needs decoded boxes; leave --raw out"
            if raw
            else "export: --dynamic_size does not support routed models; export one file per size "
            "with --img_size"
        )
    if onnx.int8 and (is_cut or raw):
        raise UsageError(
            "export: --int8 needs decoded boxes; leave --raw out"
            if raw
            else "export: --int8 does not support routed models"
        )
    if onnx.int8 and images is None:
        raise UsageError(
            "export: --int8 needs images for calibration: --images DIR, a few hundred similar to "
            "those that the network will process"
        )
    if onnx.wraps and raw:
        raise UsageError("export: --nms and --with_preprocess need boxes; leave --raw out")
    if onnx.wraps and is_cut:
        raise UsageError(
            "export: a routed model has its boxes in two files, and the calling program decides "
            "between them; leave --nms and --with_preprocess out"
        )
    if onnx.with_preprocess and batch_size != 1:
        raise UsageError(
            f"export: --with_preprocess takes one image, got --per_batch_size {batch_size}"
        )


def describe(
    metadata: CheckpointMetadata, raw: bool, *, batch_size: int = 1, strides: Sequence[int] = ()
) -> dict[str, str]:
    """Metadata stored in an exported file, text by key.

    Args:
        raw: whether its outputs are the raw ones of the network.
        batch_size: images per run.
        strides: pixels per cell of each level, finest first.
    """
    return {
        "mindyolo_ext": __version__,
        "model": metadata.model,
        "num_classes": str(metadata.num_classes),
        "class_names": json.dumps(metadata.class_names),
        "input_spec": metadata.input_spec.to_json(),
        "architecture": json.dumps(metadata.architecture),
        "strides": json.dumps(list(strides)),
        "batch_size": str(batch_size),
        "outputs": "raw" if raw else "boxes,scores",
    }


def describe_route(metadata: CheckpointMetadata, dy_thres: float) -> dict[str, str]:
    """Additional metadata of a routed model: the default and the measured thresholds."""
    stored = metadata.extra.get("thresholds")
    size = list(metadata.input_spec.size)
    if stored and stored["size"] != size:
        logger.warning(
            "its thresholds were measured with input %s, not %s: the share of easy images may "
            "differ",
            stored["size"],
            size,
        )
    return {"dy_thres": str(dy_thres), "thresholds": json.dumps(stored)}


def run_parts(parts: Sequence[Part], images: np.ndarray) -> list[Job]:
    """Run every part on ``images`` (B, 3, H, W); the parts after the first process the first image
    only.
    """
    known, jobs = {"images": images}, []
    for part in parts:
        inputs = _inputs(part, known)
        run = Compiled(part.network)
        outputs = run(*inputs.values())
        jobs.append(Job(part, inputs, dict(zip(part.output_names(len(outputs)), outputs)), run))
        known = {**known, **jobs[-1].expected}
    return jobs


def _inputs(part: Part, known: Arrays) -> Arrays:
    """The inputs of ``part`` among the outputs of the parts before it."""
    return {
        name: known[name] if part.is_entry else known[name][:1]
        for name in part.input_names(list(known))
    }


def _export_format(
    jobs: Sequence[Job],
    kind: str,
    stem: Path,
    description: dict[str, str],
    report: ExportReport,
    onnx: OnnxOptions,
    pictures: Sequence[np.ndarray],
    *,
    is_drawn: bool,
) -> None:
    """Write all files of one format. They are renamed to their final names after all of them have
    been compared with the network.
    """
    ends = {job.part.name: f"-{job.part.name}" if job.part.name else "" for job in jobs}
    suffix, companions = _ENDINGS.get(kind, kind), _COMPANIONS.get(kind, ())
    paths = {name: stem.with_name(f"{stem.name}{end}.{suffix}") for name, end in ends.items()}
    temporary = {
        name: stem.with_name(f".{stem.name}{end}.part.{suffix}") for name, end in ends.items()
    }
    known = dict(jobs[0].inputs)
    try:
        for job in jobs:
            part = job.part
            own = (
                {}
                if not part.name
                else {
                    "part": part.name,
                    "holds": part.holds,
                    **({} if part.is_entry else {"batch_size": "1"}),
                    "files": json.dumps({n: p.name for n, p in paths.items()}),
                }
            )
            _write(job, kind, temporary[part.name], {**description, **own}, onnx)
            if kind not in _UNCHECKED:
                known |= _check(job, kind, temporary[part.name], known, report)
            if onnx.dynamic_batch and part.is_entry:
                _check_batches(job, kind, report)
            if onnx.dynamic_size:
                _check_sizes(job, kind, report)
        if onnx.int8:
            _quantize(jobs[0], kind, temporary[""], pictures, report)
        if kind not in _UNCHECKED and description["outputs"] != "raw":
            report.pictures[kind] = _look(
                jobs, kind, temporary, onnx, pictures[:8], is_drawn=is_drawn
            )
        for name, path in paths.items():
            for end in companions:
                temporary[name].with_suffix(end).replace(path.with_suffix(end))
            temporary[name].replace(path)
            report.files[_label(kind, name)] = path
    finally:
        for path in temporary.values():
            for end in (path.suffix, *companions):
                path.with_suffix(end).unlink(missing_ok=True)


def _label(kind: str, part: str) -> str:
    """Key of an ``ExportReport``."""
    return f"{kind} {part}".rstrip()


def example_input(batch_size: int, spec: InputSpec) -> np.ndarray:
    """Smooth noise as photos (B, 3, H, W) float32 in the model's convention, always the same."""
    rng = np.random.RandomState(0)
    height, width = spec.size
    coarse = (
        rng.uniform(0, 178, (batch_size, height // 8, width // 8, 3))
        .repeat(8, axis=1)
        .repeat(8, axis=2)
    )
    photos = (coarse + rng.uniform(0, 77, coarse.shape)).astype(np.uint8)
    return np.stack([spec.to_tensor(photo) for photo in photos])


def _write(
    job: Job, kind: str, path: Path, description: dict[str, str], options: OnnxOptions
) -> None:
    """Write one file with its metadata, without NMS and preprocessing."""
    inputs = list(job.inputs.values())
    if kind in DERIVED:
        _write_derived(job, kind, path, description)
        return
    if kind != "onnx":
        write_graph(job.part.network, inputs, path, description=description)
        return
    is_dynamic = options.dynamic_batch and job.part.is_entry
    write_graph(
        job.part.network,
        inputs,
        path,
        description=description,
        dynamic_batch=is_dynamic,
        dynamic_size=options.dynamic_size,
        opset=options.opset,
    )
    batch = {"batch_size": "any"} if is_dynamic else {}
    _finish_onnx(path, {**description, **batch}, list(job.inputs), list(job.expected), options)
    if options.dynamic_size:
        _name_axes(path, job.expected)


def _write_derived(job: Job, kind: str, path: Path, description: dict[str, str]) -> None:
    """Write a file that is converted from an ONNX file."""
    source = path.with_suffix(".onnx")
    try:
        _write(job, "onnx", source, description, OnnxOptions())
        if kind == "openvino":
            write_openvino(source, path, description)
            return
        if kind == "ms":
            write_ms(source, path)
            ends = (".ms",)
        else:
            write_ncnn(source, path)
            ends = (".param", ".bin")
        digests = {f"sha256{end}": file_sha256(path.with_suffix(end)) for end in ends}
        atomic.write_json(path.with_suffix(".json"), {**description, **digests}, indent=1)
    finally:
        source.unlink(missing_ok=True)


def _finish_onnx(
    path: Path,
    description: dict[str, str],
    inputs: Sequence[str],
    outputs: Sequence[str],
    options: OnnxOptions,
) -> None:
    """Rename inputs and outputs, apply the options, and store the metadata."""
    import onnx

    from mindyolo_ext.engine.onnx_axes import four_axes
    from mindyolo_ext.engine.onnx_graph import in_half, simplified

    model = onnx.load(str(path))
    values = [*model.graph.input, *model.graph.output]
    new = dict(zip((value.name for value in values), (*inputs, *outputs), strict=True))
    for value in values:
        value.name = new[value.name]
    for node in model.graph.node:
        for ends in (node.input, node.output):
            for i, name in enumerate(ends):
                ends[i] = new.get(name, name)
    if not options.dynamic_size:  # needs the sizes of feature maps, which a fixed graph contains
        model = four_axes(model)
    if options.simplify:
        model = simplified(model)
    if options.half:
        model = in_half(model)
    onnx.helper.set_model_props(model, description)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _name_axes(path: Path, outputs: Arrays) -> None:
    """Set the sizes of the output axes in a file for any image size, because PyTorch's exporter
    names these axes after operators.
    """
    import onnx

    model = onnx.load(str(path))
    for value in model.graph.output:
        first, _, last = value.type.tensor_type.shape.dim
        first.dim_param = first.dim_param if first.dim_param == "B" else ""
        if not first.dim_param:
            first.dim_value = outputs[value.name].shape[0]
        last.dim_value = outputs[value.name].shape[2]
    onnx.save(model, str(path))


def _look(
    jobs: Sequence[Job],
    kind: str,
    paths: Mapping[str, Path],
    options: OnnxOptions,
    pictures: Sequence[np.ndarray],
    *,
    is_drawn: bool,
) -> BoxCheck:
    """Compare the boxes that the files and the network find in ``pictures``. Then add the requested
    NMS and preprocessing to an ONNX file, and compare again.
    Raises: ExportError if they differ.
    """
    files = {job.part.name: read_exported(paths[job.part.name]) for job in jobs}
    spec = next(iter(files.values())).metadata.input_spec
    source, exported = (
        _predictor(jobs, files, [run(job) for job in jobs])
        for run in (lambda job: lambda own: job.run(*own.values()), lambda job: job.exported[kind])
    )
    confidence = confidence_for(
        [source(spec.resize_image(picture)[0][None]) for picture in pictures]
    )
    thresholds = NMSOptions(confidence, options.iou_thres, options.max_detections)
    wanted = finder(source, spec, thresholds)
    limits = INT8 if options.int8 else HALF if options.half else EXACT
    found = finder(exported, spec, thresholds)
    advice = DRAWN_ADVICE * is_drawn + INT8_ADVICE * (options.int8 and kind == "onnx")
    check = compare_boxes(wanted, found, pictures, limits, name=f"the {kind} file", advice=advice)
    if kind == "onnx" and options.wraps:
        path = paths[""]
        find = _wrap(path, options, confidence)
        if find is not None:
            limits = PREPARED if options.with_preprocess and limits is not INT8 else limits
            wanted = finder(source, spec, thresholds, digits=None)
            check = compare_boxes(wanted, find, pictures, limits, name="the wrapped ONNX file")
    return check


def _quantize(
    job: Job, kind: str, path: Path, pictures: Sequence[np.ndarray], report: ExportReport
) -> None:
    """Quantize a file that passed its check in float32, and warn if that made it slower."""
    from mindyolo_ext.engine.quantize import quantize

    spec = read_exported(path).metadata.input_spec
    if kind == "openvino":
        quantize_openvino(path, pictures, spec)
    else:
        quantize(path, pictures, spec, batch=len(job.inputs["images"]))
    run = job.exported[kind] = _runner(kind, path)
    before, after = report.milliseconds[kind], _milliseconds(run, job.inputs)
    report.milliseconds[kind] = after
    if after > before:
        logger.warning(
            "8 bits are %.2f times slower than float32 on this processor (%.1f and %.1f ms); they "
            "need a processor with special instructions (VNNI, AMX, Arm's dot product)",
            after / before,
            after,
            before,
        )


def _predictor(
    jobs: Sequence[Job],
    files: Mapping[str, ExportedFile],
    runs: Sequence[Callable[[Arrays], Sequence[np.ndarray]]],
) -> Predictor:
    """Combine the parts into one predictor; ``runs`` executes them."""
    sessions = {
        job.part.name: ArraySession(
            {name: array.shape for name, array in job.inputs.items()}, tuple(job.expected), run
        )
        for job, run in zip(jobs, runs, strict=True)
    }
    spec = next(iter(files.values())).metadata.input_spec
    if "" in files:
        return ExportedPredictor(files[""], sessions[""], spec)
    return RoutedExportedPredictor(files, sessions, spec)


def _wrap(path: Path, options: OnnxOptions, confidence: float) -> Finder | None:
    """Add NMS and preprocessing to the file ``path``.

    Args:
        confidence: of the returned finder; the file itself has that of the options.

    Returns: a finder that runs the file with ``confidence``; None for a form that ONNX Runtime
        cannot run.
    """
    import onnx

    from mindyolo_ext.engine.onnx_graph import add_nms, add_preprocess

    file = read_exported(path)
    made = []
    for threshold in (confidence, options.conf_thres):
        model = onnx.load(str(path))
        if options.nms:
            add_nms(model, options, file.metadata.num_classes, conf_thres=threshold)
        if options.with_preprocess:
            add_preprocess(model, file.metadata.input_spec)
        texts = {entry.key: entry.value for entry in model.metadata_props}
        if options.nms:
            texts |= {"outputs": DETECTIONS if options.nms == "onnx" else PLUGIN}
        if options.with_preprocess:
            texts |= {"preprocess": "inside"}
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, texts)
        made.append(model)
    runs = None
    if options.nms != "tensorrt":
        for model in made:
            onnx.checker.check_model(model)
        runs = _wrapped_finder(made[0], options, file, confidence)
    onnx.save(made[1], str(path))
    return runs


def _wrapped_finder(
    model: Any, options: OnnxOptions, file: ExportedFile, confidence: float
) -> Finder:
    """Run a file with NMS or preprocessing inside as a program without this package would."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    spec = file.metadata.input_spec
    thresholds = NMSOptions(confidence, options.iou_thres, options.max_detections)

    def find(picture: np.ndarray) -> np.ndarray:
        if options.with_preprocess:
            arrays, placement = {"image": picture}, None
        else:
            tensor, placement = spec.prepare(picture)
            count = session.get_inputs()[0].shape[0]
            arrays = {"images": tensor[None].repeat(count if isinstance(count, int) else 1, 0)}
        found = session.run(None, arrays)
        if options.nms:
            rows = found[0][found[0][:, 0] == 0, 1:][: options.max_detections]
        else:
            rows = nms(found[0][0], found[1][0], thresholds)
        return rows if placement is None else detections_to_photo(rows, placement, clip=True)

    return find


def _check(
    job: Job, kind: str, path: Path, known: Mapping[str, np.ndarray], report: ExportReport
) -> Arrays:
    """Run the file in its own runtime and compare its outputs.

    A file after the first is run twice: with the arrays of the source network, and with those of
    the files before it.

    Args:
        known: outputs of the files before this one.

    Returns: its outputs for ``known``.
    Raises: ExportError if a difference is above the tolerance.
    """
    run = _runner(kind, path)
    job.exported[kind] = run
    label, names = _label(kind, job.part.name), list(job.expected)
    found, report.differences[label] = run(job.inputs), [0.0] * len(names)
    report.milliseconds[label] = _milliseconds(run, job.inputs)
    _compare(job, label, found, report)
    if not job.part.is_entry:
        found = run(_inputs(job.part, dict(known)))
        _compare(job, label, found, report)
    return dict(zip(names, found))


def _milliseconds(run: Callable[[Arrays], Sequence[np.ndarray]], inputs: Arrays) -> float:
    """Duration of the shortest of five runs; other programs only make runs longer."""
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        run(inputs)
        taken.append(time.perf_counter() - begin)
    return min(taken) * 1e3


def _check_batches(job: Job, kind: str, report: ExportReport) -> None:
    """Run a file with dynamic batch on three times as many images, and compare all of them.

    Raises: ExportError if a difference is above the tolerance.
    """
    label = _label(kind, job.part.name)
    count = len(next(iter(job.inputs.values())))
    found = job.exported[kind]({name: array.repeat(3, 0) for name, array in job.inputs.items()})
    for first in range(3):
        rows = slice(first, 3 * count, 3)
        _compare(job, label, [array[rows] for array in found], report)


def _check_sizes(job: Job, kind: str, report: ExportReport) -> None:
    """Run a file with dynamic size on three other sizes, and compare the outputs.

    Raises: ExportError if a difference is above the tolerance.
    """
    images = job.inputs["images"]
    height, width = images.shape[2:]
    stride = 64  # a multiple of the largest stride of every network
    for size in ((height + stride, width), (stride, 2 * stride), (height, width + 3 * stride)):
        other = np.resize(images, (*images.shape[:2], *size))
        expected = dict(zip(job.expected, job.run(other)))
        own = replace(job, inputs={"images": other}, expected=expected)
        try:
            found = job.exported[kind](own.inputs)
        except Exception as error:  # ONNX Runtime has its own exceptions
            raise ExportError(
                f"export: the {kind} file cannot compute {size[0]}x{size[1]} pixels ({error}); "
                "leave --dynamic_size out and export one file per size"
            ) from error
        _compare(own, _label(kind, job.part.name), found, report)


def _compare(job: Job, label: str, found: Sequence[np.ndarray], report: ExportReport) -> None:
    """Record the differences of ``found`` from the source network. Raises: ExportError if one is
    above the tolerance.
    """
    shapes, wanted = (
        [array.shape for array in found],
        [array.shape for array in job.expected.values()],
    )
    if shapes != wanted:
        raise ExportError(
            f"export: the {label} file gives outputs of shapes {shapes}, the network {wanted}"
        )
    differences = report.differences[label]
    for i, (mine, (name, source)) in enumerate(zip(found, job.expected.items())):
        differences[i] = max(differences[i], float(np.abs(mine - source).max()))
        # A box is as exact as its largest coordinate allows, even if another edge is near 0
        size = np.abs(source).max(-1, keepdims=True) if name == "boxes" else np.abs(source)
        excess = np.abs(mine - source) - report.tolerance * np.maximum(size, 1.0)
        if not (excess <= 0).all():
            raise ExportError(
                f"export: {name} of the {label} file differs by {differences[i]:.3g} from the "
                f"network, allowed is {report.tolerance}"
            )


def _runner(kind: str, path: Path) -> Callable[[Arrays], list[np.ndarray]]:
    """A function that runs a file of this format."""
    if kind == "onnx":
        return _onnx_runner(path)
    if kind == "mindir":
        return _mindir_runner(path)
    session = open_session(read_exported(path), kind)
    names = [name for name in session.outputs if not name.startswith("/")]
    return lambda inputs: [session.run(inputs)[name] for name in names]


def _onnx_runner(path: Path) -> Callable[[Arrays], list[np.ndarray]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def _mindir_runner(path: Path) -> Callable[[Arrays], list[np.ndarray]]:
    run = load_mindir(path)
    return lambda inputs: list(run(*inputs.values()))

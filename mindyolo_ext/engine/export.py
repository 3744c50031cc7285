"""Checkpoints as files for other runtimes, each checked against the network it came from."""
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tabulate import tabulate

from mindyolo_ext import __version__
from mindyolo_ext.backend import Tensor, launch, nn
from mindyolo_ext.checkpoint.store import CheckpointMetadata
from mindyolo_ext.engine.build import load_model
from mindyolo_ext.engine.predictor import Predict
from mindyolo_ext.input_spec import InputSpec

logger = logging.getLogger(__name__)
FORMATS = ("onnx", "mindir", "air")
TOLERANCE = 1e-3                # on scores and other outputs, and relative to the size of a box coordinate
OUTPUT_NAMES = ("boxes", "scores")


@dataclass
class ExportReport:
    """Files written and, per format, the largest difference of every output to the source network."""

    files: dict[str, Path] = field(default_factory=dict)
    differences: dict[str, list[float]] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)

    def table(self) -> str:
        """One row per file."""
        rows = [(kind, str(path), f"{path.stat().st_size / 2**20:.2f}",
                 ", ".join(f"{d:.1e}" for d in self.differences.get(kind, [])) or "not checked (needs Ascend)",
                 f"{self.milliseconds[kind]:.1f}" if kind in self.milliseconds else "")
                for kind, path in self.files.items()]
        return tabulate(rows, ("format", "file", "MB", "largest difference per output", "ms per run here"))


def export(weight: str | Path, formats: Sequence[str] = ("onnx", "mindir"), *, output: str | Path | None = None,
           size: tuple[int, int] | None = None, batch_size: int = 1, raw: bool = False) -> ExportReport:
    """Write the deploy form of a checkpoint (BatchNorm folded) with its metadata inside.

    Args:
        weight: checkpoint of ours.
        formats: of ``FORMATS``; ``air`` needs an Ascend device.
        output: file name without suffix, default the checkpoint's.
        size: (height, width) of the input, default as trained.
        batch_size: fixed batch of the exported graph.
        raw: the network's own export outputs instead of ``boxes`` (B, A, 4) and ``scores`` (B, A, K).

    Raises: ValueError for an unknown format, AIR without Ascend, or if an exported file does not give the source
        network's numbers (the file is removed then).
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown:
        raise ValueError(f"export: unknown formats {unknown}, known are {', '.join(FORMATS)}")
    try:
        launch.start("Ascend" if "air" in formats else "CPU")
    except RuntimeError as error:
        if "air" not in formats:
            raise
        raise ValueError("export: AIR can only be written on an Ascend device; take onnx or mindir here") from error
    model, metadata = load_model(weight)
    if size is not None:
        model.input_spec = replace(model.input_spec, size=size)
    deploy = model.to_deploy()
    network = (deploy if raw else Predict(deploy)).set_train(False)
    images = example_input(batch_size, model.input_spec)
    expected = _arrays(network(Tensor(images)))
    names = [f"output{i}" for i in range(len(expected))] if raw else list(OUTPUT_NAMES)
    description = describe(replace(metadata, input_spec=model.input_spec), raw)
    stem = Path(output) if output else Path(weight).with_suffix("")
    stem.parent.mkdir(parents=True, exist_ok=True)
    report = ExportReport()
    for kind in formats:
        path = stem.with_name(f"{stem.name}.{kind}")
        temporary = stem.with_name(f".{stem.name}.part.{kind}")
        try:
            _write(network, images, kind, temporary, description, names)
            if kind != "air":
                _check(kind, temporary, images, expected, report)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        report.files[kind] = path
    return report


def describe(metadata: CheckpointMetadata, raw: bool) -> dict[str, str]:
    """What travels inside an exported file, text by key."""
    return {"mindyolo_ext": __version__, "model": metadata.model, "num_classes": str(metadata.num_classes),
            "class_names": json.dumps(metadata.class_names), "input_spec": metadata.input_spec.to_json(),
            "architecture": json.dumps(metadata.architecture), "outputs": "raw" if raw else "boxes,scores"}


def example_input(batch_size: int, spec: InputSpec) -> np.ndarray:
    """Smooth noise as photos (B, 3, H, W) float32 in the model's convention, the same every time."""
    rng = np.random.RandomState(0)
    height, width = spec.size
    coarse = rng.uniform(0, 178, (batch_size, height // 8, width // 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    photos = (coarse + rng.uniform(0, 77, coarse.shape)).astype(np.uint8)
    return np.stack([spec.to_tensor(photo) for photo in photos])


def _write(network: nn.Cell, images: np.ndarray, kind: str, path: Path, description: dict[str, str],
           names: Sequence[str]) -> None:
    """One exported file with its metadata."""
    import mindspore as ms
    keywords = {}
    if kind == "mindir":
        def add_metadata(proto: object) -> None:
            for key, value in description.items():
                proto.user_info[key] = value
        keywords["custom_func"] = add_metadata
    ms.export(network, Tensor(images), file_name=str(path.with_suffix("")), file_format=kind.upper(), **keywords)
    if kind == "onnx":
        _finish_onnx(path, description, names)


def _finish_onnx(path: Path, description: dict[str, str], names: Sequence[str]) -> None:
    """Give input and outputs their names, and put the metadata in."""
    import onnx
    model = onnx.load(str(path))
    new = {model.graph.input[0].name: "images", **{o.name: n for o, n in zip(model.graph.output, names)}}
    for value in (*model.graph.input, *model.graph.output):
        value.name = new[value.name]
    for node in model.graph.node:
        for ends in (node.input, node.output):
            for i, name in enumerate(ends):
                ends[i] = new.get(name, name)
    for key, value in description.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _check(kind: str, path: Path, images: np.ndarray, expected: Sequence[np.ndarray], report: ExportReport) -> None:
    """Run the file in its own runtime and compare. Raises: ValueError where a difference is above the tolerance."""
    run = _onnx_runner(path) if kind == "onnx" else _mindir_runner(path)
    found = run(images)
    begin = time.perf_counter()
    for _ in range(3):
        run(images)
    report.milliseconds[kind] = (time.perf_counter() - begin) / 3 * 1e3
    shapes, wanted = [a.shape for a in found], [b.shape for b in expected]
    if shapes != wanted:
        raise ValueError(f"export: the {kind} file gives outputs of shapes {shapes}, the network {wanted}")
    report.differences[kind] = [float(np.abs(a - b).max()) for a, b in zip(found, expected)]
    for i, (mine, source) in enumerate(zip(found, expected)):
        excess = np.abs(mine - source) - TOLERANCE * np.maximum(np.abs(source), 1.0)
        if not (excess <= 0).all():
            raise ValueError(f"export: output {i} of the {kind} file differs by {report.differences[kind][i]:.3g} "
                             f"from the network, allowed is {TOLERANCE}")


def _onnx_runner(path: Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    import onnxruntime
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def _mindir_runner(path: Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    import mindspore as ms
    cell = nn.GraphCell(ms.load(str(path)))

    return lambda images: _arrays(cell(Tensor(images)))


def _arrays(outputs: Tensor | Sequence[Tensor]) -> list[np.ndarray]:
    """The outputs of a network with one or several of them."""
    return [t.asnumpy() for t in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]

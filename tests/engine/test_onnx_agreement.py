"""ONNX files of both backends give the same outputs.

``onnx_of_<backend>.npz`` holds the outputs in ONNX Runtime of the files that a backend exports, for
the smallest model of each family. ``python -m tests.engine.test_onnx_agreement`` writes the file of
the backend it runs on.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import pytest
from helpers import LEAVES, original_name
from seeded import seeded_tensor

from mindyolo_ext.backend import BACKEND
from mindyolo_ext.backend.launch import set_seed
from mindyolo_ext.backend.mode import graphs
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.engine.build import load_model
from mindyolo_ext.engine.export import example_input, export
from mindyolo_ext.models.registry import create_model, families

FOLDER = Path(__file__).parent
BACKENDS = ("mindspore", "torch")
NAMES = [record.smallest for record in families().values()]
SIZE, CLASSES = (64, 96), ["a", "b", "c"]
GAINS = {"dy_yolov7_w0125": 1.4, "gold_yolo_n": 0.75, "yolo_fastestv2": 1.2, "yolox_nano": 1.15}
# Of scores; of a box, relative to its largest coordinate. The stored files agree to the bit, and
# another order of sums (ONNX Runtime without its optimizations) moves them by up to 4e-6
TOLERANCE = 1e-5


def save_seeded(name: str, path: Path) -> Path:
    """Save a checkpoint with seeded kernels and norms; all other values keep their initial state.

    ``GAINS`` keep the signal alive through all layers of a network, and the scores apart.
    """
    set_seed(0)
    model = create_model(name, num_classes=len(CLASSES))
    values = parameter_values(model)
    for key, array in values.items():
        if array.ndim == 4 or key.rpartition(".")[2] in LEAVES:
            values[key] = seeded_tensor(original_name(key), array.shape, 0, GAINS.get(name, 1.0))
    spec = replace(model.input_spec, size=SIZE)
    metadata = CheckpointMetadata(name, len(CLASSES), CLASSES, spec, dict(model.architecture))
    save_checkpoint(path, values, metadata)
    return path


def outputs_of(name: str, folder: Path) -> dict[str, np.ndarray]:
    """The outputs of the exported files for one image; each file feeds the next one."""
    weight = save_seeded(name, folder / f"{name}.ckpt")
    known = {"images": example_input(1, load_model(weight)[0].input_spec)}
    for path in export(weight, ["onnx"]).files.values():
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        inputs = {value.name: known[value.name] for value in session.get_inputs()}
        outputs = [value.name for value in session.get_outputs()]
        known |= dict(zip(outputs, session.run(outputs, inputs)))
    return {key: known[key] for key in ("boxes", "scores")}


def differences(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest difference of scores, and of boxes relative to the size of each."""
    sizes = {"boxes": np.maximum(np.abs(wanted["boxes"]).max(-1, keepdims=True), 1.0), "scores": 1}
    return {key: float((np.abs(found[key] - wanted[key]) / sizes[key]).max()) for key in wanted}


def stored(backend: str, name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"onnx_of_{backend}.npz") as arrays:
        return {key: arrays[f"{name}/{key}"] for key in ("boxes", "scores")}


@pytest.mark.graph
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[] if BACKEND == "torch" or name == "yolo_fastestv2" else pytest.mark.all_cases,
        )
        for name in NAMES
    ],
)
def test_an_exported_file_gives_what_those_of_all_backends_give(name: str, tmp_path: Path) -> None:
    found = outputs_of(name, tmp_path)
    for backend in BACKENDS:
        wanted = stored(backend, name)
        assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in wanted.items()}
        for key, difference in differences(found, wanted).items():
            assert difference <= TOLERANCE, f"{key} of {backend}: {difference:.2g}"


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_outputs_agree_and_tell_rows_apart(name: str) -> None:
    first, second = (stored(backend, name) for backend in BACKENDS)
    assert max(differences(first, second).values()) <= TOLERANCE
    assert np.ptp(first["scores"]) > 0.05 and np.ptp(first["boxes"]) > 16


def write() -> None:
    """Write the outputs of this backend's files."""
    arrays = {}
    with graphs(), TemporaryDirectory() as folder:
        for name in NAMES:
            arrays |= {f"{name}/{k}": v for k, v in outputs_of(name, Path(folder)).items()}
    np.savez_compressed(FOLDER / f"onnx_of_{BACKEND}.npz", **arrays)


if __name__ == "__main__":
    write()

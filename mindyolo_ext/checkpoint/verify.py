"""Compare the outputs of a converted checkpoint with the original's.

The reference is either arrays that were stored from the original, or the original itself, run in a
separate process with the user's own PyTorch. The latter runs the code of the clone that the user
names.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from mindyolo_ext.checkpoint.names import renamed, weights_only
from mindyolo_ext.checkpoint.reader import file_sha256
from mindyolo_ext.checkpoint.store import CheckpointMetadata, load_checkpoint
from mindyolo_ext.checkpoint.tables import table_of
from mindyolo_ext.data.image_file import read_image
from mindyolo_ext.errors import CheckpointError, MissingFileError
from mindyolo_ext.models.registry import part

RUNNER = Path(__file__).with_name("run_original.py")
TIMEOUT_SECONDS = 600


@dataclass
class Difference:
    """The difference between one array and the original's.

    Args:
        kind: ``input``, ``output`` or ``layer``.
        name: name of the output or layer; ``#1`` marks its second call.
        shape: shape of the array.
        largest: largest absolute difference; ``scale``: largest absolute value of the original's
            array.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    largest: float
    scale: float

    @property
    def relative(self) -> float:
        """``largest`` divided by ``scale``, or by 1 if that is larger."""
        return self.largest / max(self.scale, 1.0)


@dataclass
class VerifyReport:
    """The differences between one of our checkpoints and the original.

    Args:
        checkpoint, against: the two sides of the comparison.
        tolerance: limit of ``Difference.relative`` for inputs and outputs.
        rows: one per array.
        skipped: names that exist on one side only.
        warnings: facts to check.
    """

    checkpoint: str
    against: str
    tolerance: float
    rows: list[Difference] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether there were outputs and all are within the tolerance."""
        judged = [row for row in self.rows if row.kind != "layer"]
        return any(row.kind == "output" for row in judged) and all(
            row.relative <= self.tolerance for row in judged
        )

    def largest(self, kind: str, count: int) -> list[Difference]:
        """Return the ``count`` rows of ``kind`` that differ most."""
        return sorted((row for row in self.rows if row.kind == kind), key=lambda row: -_order(row))[
            :count
        ]

    def to_json(self) -> str:
        """Format the report as JSON."""
        return json.dumps({**asdict(self), "passed": self.passed}, indent=1)

    def table(self, layers: int = 12) -> str:
        """Format all inputs and outputs, and the ``layers`` layers that differ most, as a table."""
        rows = [
            row
            for kind, count in (("input", 99), ("output", 99), ("layer", layers))
            for row in self.largest(kind, count)
        ]
        body = tabulate(
            [
                (
                    row.kind,
                    row.name,
                    "x".join(map(str, row.shape)),
                    f"{row.largest:.3g}",
                    f"{row.scale:.3g}",
                    ""
                    if row.kind == "layer" or row.relative <= self.tolerance
                    else "<-- too large",
                )
                for row in rows
            ],
            headers=("", "array", "shape", "largest difference", "largest value", ""),
            disable_numparse=True,
        )
        count = sum(row.kind == "layer" for row in self.rows)
        tail = [
            f"{self.checkpoint} against {self.against}: {'equal' if self.passed else 'DIFFERENT'} "
            f"(tolerance {self.tolerance:g} of the largest value, {len(self.rows)} arrays"
            + (f", {count} of them layers" if count else "")
            + ")"
        ]
        return "\n".join([body, *tail, *self.warnings])


def verify(
    checkpoint: str | Path,
    *,
    arrays: str | Path | None = None,
    images: str | Path | None = None,
    torch_repo: str | Path | None = None,
    torch_python: str | Path | None = None,
    source: str | Path | None = None,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    tolerance: float = 1e-4,
) -> VerifyReport:
    """Compare the outputs of one of our checkpoints with the original's.

    Args:
        checkpoint: our ``.ckpt``.
        arrays: ``.npz`` stored from the original: ``case_seedN*.npz`` (images of seed N),
            ``official_format_*.npz`` (seed 0) or one with ``images`` (photos).
        images: folder of the photos that ``arrays`` names.
        torch_repo: clone of the original program, whose code will be run; needs ``torch_python``
            and ``source``.
        torch_python: Python that has PyTorch.
        source: the original's checkpoint, which the clone loads strictly.
        seed, size, batch: options of the images for ``torch_repo``, in the model's color order and
            range; ``size`` is (height, width), by default the model's.
        tolerance: maximum difference, as a share of the largest value of an array (at least 1).

    Raises: FileNotFoundError; CheckpointError if the arguments do not fit together or the original
        fails.
    """
    if (arrays is None) == (torch_repo is None):
        raise CheckpointError(
            "verify: wanted either stored arrays or a clone of the original (--torch-repo), got "
            + ("both" if arrays is not None else "neither")
        )
    if torch_repo is not None and (torch_python is None or source is None):
        raise CheckpointError(
            "verify: --torch-repo needs --torch-python (a Python with PyTorch) and the original's "
            "checkpoint"
        )
    cell, metadata = _load(checkpoint)
    if arrays is not None:
        return _against_arrays(Path(checkpoint), cell, Path(arrays), images, tolerance)
    assert torch_repo is not None and source is not None  # checked above
    height, width = size or cell.input_spec.size
    photos = (
        np.round(255 * seeded_images(seed, batch, height, width))
        .astype(np.uint8)
        .transpose(0, 2, 3, 1)
    )
    pictures = np.stack([cell.input_spec.to_tensor(photo) for photo in photos])
    report = VerifyReport(str(checkpoint), f"{torch_repo} with {source}", tolerance)
    told = metadata.source.get("sha256")
    if told is not None and told != file_sha256(source):
        report.warnings.append(
            f"{checkpoint} was not converted from {source}: its source has SHA-256 {told}"
        )
    theirs = _run_original(
        cell, metadata, pictures, repo=Path(torch_repo), python=torch_python, source=Path(source)
    )
    theirs = {
        _our_layer(name, table_of(cell.family).renames(metadata.model)): array
        for name, array in theirs.items()
    }
    ours = _run_ours(cell, pictures)
    _compare_all(report, ours, theirs)
    return report


def seeded_images(seed: int, batch: int, height: int, width: int) -> np.ndarray:
    """Create images (batch, 3, height, width), float32 in [0, 1), equal on every machine: coarse
    squares of 8 pixels and noise.

    The stored arrays were made from these.
    """
    random = np.random.RandomState(1000 + seed)  # this generator's stream never changes
    squares = random.uniform(0, 1, (batch, 3, height // 8, width // 8))
    squares = np.kron(squares, np.ones((1, 1, 8, 8)))
    return (0.7 * squares + 0.3 * random.uniform(0, 1, (batch, 3, height, width))).astype(
        np.float32
    )


def _load(path: str | Path) -> tuple[Any, CheckpointMetadata]:
    """Load the network with its weights, in inference mode."""
    parameters, metadata = load_checkpoint(path)
    from mindyolo_ext.backend.parameters import load_parameters
    from mindyolo_ext.models.registry import create_model

    if "part" in metadata.extra:
        raise CheckpointError(
            f"{path}: holds only the {metadata.extra['part']['name']}, wanted a whole model"
        )
    cell = create_model(metadata.model, num_classes=metadata.num_classes, **metadata.architecture)
    cell.input_spec = metadata.input_spec
    try:
        load_parameters(cell, weights_only(parameters))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return cell.set_train(False), metadata


def _against_arrays(
    path: Path, cell: Any, arrays_path: Path, images: str | Path | None, tolerance: float
) -> VerifyReport:
    """Compare with stored arrays."""
    if not arrays_path.is_file():
        raise MissingFileError(f"{arrays_path}: no such file, wanted stored arrays (.npz)")
    with np.load(arrays_path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    report = VerifyReport(str(path), str(arrays_path), tolerance)
    if "images" in arrays:
        pictures, prefix = _photos(report, cell, arrays, arrays_path, images), "raw_"
    else:
        seed = re.search(r"seed(\d+)", arrays_path.stem.replace("official_format", "seed0"))
        if seed is None:
            raise CheckpointError(
                f"{arrays_path}: wanted a name with the seed in it, such as case_seed0.npz"
            )
        pictures = seeded_images(
            int(seed.group(1)), *part(cell.family, "reference").case_input(arrays)
        )
        prefix = "eval_"
    for name, ours in part(cell.family, "reference").outputs(cell, pictures).items():
        stored = next((key for key in (prefix + name, name) if key in arrays), None)
        if stored is None:
            report.skipped.append(name)
        else:
            report.rows.append(
                _difference("output", stored, ours, arrays[stored], where=str(arrays_path))
            )
    return report


def _photos(
    report: VerifyReport,
    cell: Any,
    arrays: dict[str, np.ndarray],
    path: Path,
    folder: str | Path | None,
) -> np.ndarray:
    """Load the photos that ``arrays`` names as a batch, after comparing the sums of their
    pixels.
    """
    if folder is None:
        raise CheckpointError(
            f"{path}: was computed from photos ({', '.join(arrays['images'].tolist())}); pass "
            "their folder with --images"
        )
    batch = []
    for name in arrays["images"].tolist():
        photo = read_image(Path(folder) / Path(name).name)
        batch.append(cell.input_spec.prepare(photo)[0])
        stored = arrays.get(f"{Path(name).stem}_input_sum")
        if stored is not None:
            resized = cell.input_spec.resize_image(photo)[0]
            pixels = resized.shape[0] * resized.shape[1]
            report.rows.append(
                _difference(
                    "input",
                    f"{Path(name).stem} mean pixel",
                    resized.sum((0, 1)) / pixels,
                    stored / pixels,
                    where=str(path),
                )
            )
    return np.stack(batch)


def _run_original(
    cell: Any,
    metadata: CheckpointMetadata,
    pictures: np.ndarray,
    *,
    repo: Path,
    python: str | Path | None,
    source: Path,
) -> dict[str, np.ndarray]:
    """Compute outputs and layers of the original in a process of the user's Python."""
    hook = Path(__file__).parents[1] / "models" / cell.family / "original.py"
    if not hook.is_file():
        raise CheckpointError(f"verify: there is no program that runs the original {cell.family}")
    for place in (repo, source):
        if not place.exists():
            raise MissingFileError(f"{place}: no such file or folder")
    with tempfile.TemporaryDirectory() as folder:
        job = {
            "hook": str(hook),
            "repo": str(repo.resolve()),
            "weights": str(source.resolve()),
            "threads": 2,
            "entry": metadata.source.get("entry", ""),
            "num_classes": metadata.num_classes,
            "model": metadata.model,
            "architecture": metadata.architecture,
            "images": f"{folder}/images.npy",
            "results": f"{folder}/results.npz",
        }
        np.save(job["images"], pictures)
        Path(folder, "job.json").write_text(json.dumps(job), encoding="utf-8")
        try:
            done = subprocess.run(
                [str(python), str(RUNNER), f"{folder}/job.json"],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CheckpointError(
                f"verify: {python} could not run the original ({error})"
            ) from error
        if done.returncode:
            tail = "\n".join(line[:400] for line in done.stderr.strip().splitlines()[-6:])
            raise CheckpointError(
                f"verify: the original in {repo} failed with exit status {done.returncode}:\n{tail}"
            )
        with np.load(job["results"], allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def _run_ours(cell: Any, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Compute outputs and layers of our network, by the names that ``_run_original`` uses."""
    from mindyolo_ext.backend import Tensor
    from mindyolo_ext.backend.mode import eager
    from mindyolo_ext.backend.observe import watched_layers

    layers: dict[str, list[np.ndarray]] = {}

    def keep(name: str, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            layers.setdefault(name, []).append(output.asnumpy().copy())

    with eager(), watched_layers(cell, keep):
        cell(Tensor(pictures))
    outputs = part(cell.family, "reference").outputs(cell, pictures)
    arrays = {f"output/{name}": value for name, value in outputs.items()}
    arrays.update(
        {
            f"layer/{name}#{index}": value
            for name, values in layers.items()
            for index, value in enumerate(values)
        }
    )
    return arrays


def _our_layer(name: str, renames: Mapping[str, str]) -> str:
    """Convert ``layer/module#call`` of the original to our name of the module; outputs keep their
    names.
    """
    kind, _, rest = name.partition("/")
    layer, mark, call = rest.rpartition("#")
    return f"{kind}/{renamed(layer, renames)}{mark}{call}" if kind == "layer" else name


def _compare_all(
    report: VerifyReport, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> None:
    """Compare what both sides have. Calls of a shared layer are paired by their shapes, in
    order.
    """
    left = dict(ours)
    for name, array in theirs.items():
        kind, _, rest = name.partition("/")
        base = name.rpartition("#")[0]
        candidates = (
            [name] if kind == "output" else [n for n in left if n.rpartition("#")[0] == base]
        )
        match = next(
            (
                n
                for n in candidates
                if n in left and (kind == "output" or left[n].shape == array.shape)
            ),
            None,
        )
        if match is None:
            report.skipped.append(rest)
        else:
            report.rows.append(
                _difference(
                    kind, rest.removesuffix("#0"), left.pop(match), array, where=report.against
                )
            )
    report.skipped += [name.partition("/")[2] for name in left]


def _difference(
    kind: str, name: str, ours: np.ndarray, theirs: np.ndarray, *, where: str
) -> Difference:
    """Build one row. Raises: CheckpointError if the shapes differ."""
    if ours.shape != theirs.shape:
        raise CheckpointError(
            f"{where}: {name} is {theirs.shape} in the original, {ours.shape} here"
        )
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    largest = (
        float(np.abs(ours - theirs).max(initial=0.0)) if np.isfinite(ours).all() else float("inf")
    )
    return Difference(
        kind, name, tuple(ours.shape), largest, float(np.abs(theirs).max(initial=0.0))
    )


def _order(row: Difference) -> float:
    return row.relative if row.relative == row.relative else float("inf")

"""``mindyolo-ext doctor --report``: write a file that shows which step fails on a machine and why,
for developers without such a machine. It contains no names of users or hosts, no data and no keys.
"""

import os
import re
import subprocess
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mindyolo_ext.atomic import write_json
from mindyolo_ext.backend import launch
from mindyolo_ext.backend.distributed import sum_over_ranks
from mindyolo_ext.backend.parameters import parameter_groups
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep
from mindyolo_ext.contracts import Model
from mindyolo_ext.engine.doctor import PACKAGES, convolution_milliseconds, machine, version_of
from mindyolo_ext.engine.predictor import Predictor
from mindyolo_ext.errors import RunError
from mindyolo_ext.models.registry import create_model, create_trainable, default_loss

MODEL, CLASSES = "yolo_fastestv2", 3
SIZE, BATCH, BOXES = 64, 2, 4
RATE, MOMENTUM = 1e-4, 0.9
# Results of both backends on a CPU in float32; other devices sum in another order
WANTED: Mapping[str, Mapping[str, float]] = {
    "forward": {"boxes": 49.644947, "scores": 0.16961540},
    "training": {"loss": 86.0237, "gradient": 8877.8, "second loss": 88.2147},
}
TOLERANCE = 1e-2  # relative; convolutions of Ascend and GPU may round float32 to 10 bits
LONGEST = 20_000  # characters of a text
_VARIABLES = re.compile(
    r"(ASCEND|HCCL|MS|OMPI_COMM|NCCL|GLOG|ONEDNN|TE|MINDYOLO)_\w+|RANK(_\w+)?|DEVICE_ID|"
    r"LOCAL_RANK|WORLD_SIZE|SLURM_(LOCALID|PROCID|NTASKS)|CUDA_VISIBLE_DEVICES|OMP_NUM_THREADS|"
    r"LD_LIBRARY_PATH|PYTHONPATH|MINDSPORE_HCCL_CONFIG_PATH"
)
_SECRET = re.compile(r"TOKEN|SECRET|PASS|CREDENTIAL|_KEY|AUTH", re.IGNORECASE)
# Four numbers; five, as in CANN's versions, are no address, and neither are four after "version"
_ADDRESS = re.compile(
    r"(version[\s=:]*)?(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3})(?!\d|\.\d)", re.IGNORECASE
)
_PROGRAMS = (
    ("npu-smi", "info", "-m"),
    ("nvidia-smi", "--query-gpu=index,name,driver_version,memory.total", "--format=csv"),
)
_ASCEND_FILES = (
    "/usr/local/Ascend/driver/version.info",
    "/usr/local/Ascend/firmware/version.info",
    "/usr/local/Ascend/ascend-toolkit/latest/version.cfg",
    "/usr/local/Ascend/ascend-toolkit/latest/compiler/version.info",
)


@dataclass
class Step:
    """One step of the self-test.

    Args:
        state: ``started`` in the file means that the process ended during this step.
        numbers, wanted: the results, and those of a CPU.
        difference: the largest relative difference; None if nothing is compared.
    """

    name: str
    state: str = "started"
    seconds: float = 0.0
    numbers: dict[str, float] = field(default_factory=dict)
    wanted: dict[str, float] = field(default_factory=dict)
    difference: float | None = None
    error: str = ""


def write_report(path: Path, device_target: str | None = None) -> str:
    """Write the facts about this machine and the result of each step as JSON; returns a line per
    step.

    Under a launcher all ranks take part, and rank 0 writes the file.

    Args:
        device_target: device to compute on; None uses the best one.

    Raises: RunError if a step failed or gave other numbers; the file is written in any case.
    """
    steps: list[Step] = []
    content: dict[str, Any] = {
        "machine": {name: tidied(value) for name, value in machine()},
        "environment": variables(os.environ),
        "devices": _devices(),
    }

    def save() -> None:
        if launch.world().is_main:
            write_json(path, {**content, "steps": [asdict(step) for step in steps]}, indent=1)

    for name, action in _actions(device_target).items():
        steps.append(Step(name, wanted=_wanted(name)))
        save()  # before the step, which may crash the process
        _try(steps[-1], action)
        save()
        if name == "start" and steps[-1].error:
            break  # the requested device is missing
    lines = "\n".join(_line(step) for step in steps)
    bad = [step.name for step in steps if step.state != "works"]
    if bad:
        raise RunError(f"{lines}\n{path}: {', '.join(bad)} is not as on a CPU; send the file along")
    return lines


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The relevant environment variables, without secrets, addresses and the home folder."""
    return {
        name: "(left out)" if _SECRET.search(name) else tidied(value)
        for name, value in sorted(environ.items())
        if _VARIABLES.fullmatch(name)
    }


def tidied(text: str) -> str:
    """``text`` without the home folder, the folder of this package and addresses of machines.

    Versions of installed packages stay, even those of four numbers, such as OpenCV's 4.10.0.84.
    """
    places = {str(Path(__file__).resolve().parents[2]): "<mindyolo_ext>", str(Path.home()): "~"}
    for place, name in places.items():
        text = text.replace(place, name) if len(place) > 1 else text
    versions = {version_of(name) for name in PACKAGES}

    def hidden(found: re.Match[str]) -> str:
        is_version = found[1] or found[2] in versions
        return found[0] if is_version else "<address>"

    return _ADDRESS.sub(hidden, text)[-LONGEST:]


def _devices() -> dict[str, str]:
    """Driver versions by program or file."""
    found = {}
    for command in _PROGRAMS:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=30, check=False, errors="replace"
            )
            found[" ".join(command)] = tidied(done.stdout + done.stderr)
        except (OSError, subprocess.TimeoutExpired) as error:
            found[" ".join(command)] = type(error).__name__
    for file in map(Path, _ASCEND_FILES):
        if file.is_file():
            found[str(file)] = tidied(file.read_text(encoding="utf-8", errors="replace"))
    return found


def _actions(device_target: str | None) -> dict[str, Callable[[], dict[str, float]]]:
    """The steps in order; each returns numbers by name."""
    size = launch.launcher_of(os.environ)[1]

    def begin() -> dict[str, float]:
        launch.start(device_target, is_parallel=size > 1, seed=0)
        return {"ranks": launch.world().size}

    def all_reduce() -> dict[str, float]:
        return {"sum": float(sum_over_ranks(np.ones(1, np.float32))[0])}

    steps = {"start": begin, "convolution": lambda: {"milliseconds": convolution_milliseconds()}}
    if size > 1:
        steps["all-reduce"] = all_reduce
    return {**steps, "forward": forward, "training": training}


def _wanted(name: str) -> dict[str, float]:
    """Results of a step on a CPU; empty for training if ranks share a batch."""
    size = launch.world().size
    if name == "all-reduce":
        return {"sum": float(size)}
    return dict(WANTED.get(name, {})) if size == 1 or name == "forward" else {}


def _try(step: Step, action: Callable[[], dict[str, float]]) -> None:
    """Run ``action`` and record any error in the report."""
    begin = time.perf_counter()
    try:
        step.numbers = action()
    except Exception:  # whatever fails belongs in the report
        step.error = tidied(traceback.format_exc())
    step.seconds = round(time.perf_counter() - begin, 3)
    if step.wanted and not step.error:
        gaps = [
            abs(step.numbers[key] - value) / max(abs(value), 1e-6)
            for key, value in step.wanted.items()
        ]
        step.difference = float(np.max(gaps))
    differs = step.difference is not None and not step.difference <= TOLERANCE
    step.state = "failed" if step.error else "other numbers" if differs else "works"


def _line(step: Step) -> str:
    """Describe a step in one line."""
    last = step.error.strip().splitlines()[-1][:200] if step.error else ""
    gap = "" if step.difference is None else f", {step.difference:.1e} from a CPU's numbers"
    return f"{step.name}: {step.state}{gap}{': ' if last else ''}{last}"


def _model() -> Model:
    """Create the smallest model, with the same weights on every machine."""
    launch.set_seed(0)
    return create_model(MODEL, num_classes=CLASSES)


def _images() -> np.ndarray:
    """(BATCH, 3, SIZE, SIZE) float32 in 0..1."""
    drawn = np.random.RandomState(0).random_sample((BATCH, 3, SIZE, SIZE))
    return drawn.astype(np.float32)


def forward() -> dict[str, float]:
    """Means of the boxes and scores of a batch."""
    boxes, scores = Predictor(_model())(_images())
    return {"boxes": float(np.abs(boxes).mean()), "scores": float(scores.mean())}


def training() -> dict[str, float]:
    """Loss and norm of the gradient, and the loss after the update."""
    trainable = create_trainable(default_loss(MODEL), _model())
    groups = parameter_groups(trainable)
    step = TrainStep(trainable, groups, OptimizerOptions())
    side = np.arange(1, BOXES + 1, dtype=np.float32) / (BOXES + 1)
    one = np.stack([np.arange(BOXES) % CLASSES, side, side, side / 2, side / 3], 1)
    targets = np.stack([one] * BATCH).astype(np.float32)
    mask = np.ones((BATCH, BOXES), np.float32)
    rates = np.full(len(groups), RATE, np.float32)
    controls = np.array([MOMENTUM, 1.0, 0.0], np.float32)
    first, second = (step(_images(), targets, mask, rates, controls) for _ in range(2))
    return {
        "loss": float(first[0]),
        "gradient": float(first[1]),
        "second loss": float(second[0]),
    }

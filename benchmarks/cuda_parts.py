"""The parts of ``cuda_check.py`` that use PyTorch. Each part runs in a separate process, so a GPU
error in one does not affect the next.

    python cuda_parts.py PART SETTINGS

SETTINGS is JSON: ``device``, ``quick``, ``seconds`` (until the part has to end) and ``folder`` (for
files). Rows go to standard output, one JSON object per line, each as soon as it is known.
"""

import contextlib
import gc
import itertools
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["MINDYOLO_EXT_BACKEND"] = "torch"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    import mindyolo_ext.backend.choice  # noqa: F401
except ImportError as error:  # PyTorch is missing or too old; the error says what to do
    sys.exit(str(error))

import numpy as np
import torch
from ours import Ours
from run import (
    DYNAMICDET,
    GOLD_YOLO,
    NARROW_DYNAMICDET,
    RECIPE,
    ROOT,
    SIMPLE_YOLO,
    YOLOX_S,
    Training,
    made_up_batch,
)
from timing import peak_gigabytes, timed

from mindyolo_ext.backend import distributed, launch, precision
from mindyolo_ext.backend.on_torch.device import device, exact_float32
from mindyolo_ext.backend.on_torch.distributed import summed
from mindyolo_ext.backend.on_torch.errors import first_line
from mindyolo_ext.backend.on_torch.launch import configure
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.config import load_config
from mindyolo_ext.engine.build import load_model, new_model
from mindyolo_ext.engine.routing import new_predictor
from mindyolo_ext.errors import DeviceError

YOLOX_NANO = str(ROOT / "configs" / "yolox" / "yolox-nano.yaml")
# The smallest recipe of each family; a white pixel, boxes after padding
SMALLEST = {
    "yolo_fastestv2": (RECIPE, 1.0, 96),
    "yolox_nano": (YOLOX_NANO, 255.0, 120),
    "gold_yolo_n": (GOLD_YOLO["n"], 1.0, 160),
    "dy_yolov7_w0125": (NARROW_DYNAMICDET.format(1), 1.0, 80),
    "simple_yolo_resnet18, width 0.25": (SIMPLE_YOLO["-w025"], 1.0, 120),
}
# The same for trainings that are timed
TIMED = {
    "yolox_s": (YOLOX_S, 255.0, 120),
    "gold_yolo_n": (GOLD_YOLO["n"], 1.0, 160),
    "dy_yolov7": (DYNAMICDET.format("", 1), 1.0, 160),
}
TIMED_QUICKLY = {
    "yolox_nano": (YOLOX_NANO, 255.0, 120),
    "gold_yolo_n": (GOLD_YOLO["n"], 1.0, 160),
    "dy_yolov7_w0125": (NARROW_DYNAMICDET.format(1), 1.0, 80),
}
MemoryLacking = torch.cuda.OutOfMemoryError
HALVES = ("float16", "bfloat16")
QUICK_STEPS = ("yolo_fastestv2", "yolox_nano")
QUICK_AMP = ("simple_yolo_resnet18, width 0.25",)
STEP_RATE, STEPS = 1e-6, 5  # at larger rates a change by rounding grows to percents in five steps
ROUNDING = 1e-6  # of the images, in the run that measures the effect of rounding alone
SAME_STEP = 1e-4  # relative, where rounding has no effect
AMP_RATE, AMP_STEPS, AMP_LIMIT = 1e-5, 20, 0.03
RATES = {"gold_yolo_n": 3e-3}  # its predictors start at zero: small steps change nothing
SAME_RANK = {"CPU": 0.0, "GPU": 1e-4}  # the sums of a GPU's atomic additions have no order


class Part:
    """The settings of a part, and the output for its rows."""

    def __init__(self, settings: dict[str, Any], answers: Any):
        self.is_cuda = settings["device"] == "cuda"
        self.target = "GPU" if self.is_cuda else "CPU"
        self.quick = settings["quick"]
        self.folder = Path(settings["folder"])
        self.end = time.monotonic() + settings["seconds"]
        self.answers = answers
        self.ours = Ours(torch.get_num_threads())

    def emit(self, what: str, state: str, **cells: Any) -> None:
        """Write a row: its state is ``ok``, ``failed``, ``out of memory`` or ``skipped``."""
        self.answers.write(json.dumps({"what": what, "state": state, **cells}) + "\n")
        self.answers.flush()

    def row(self, what: str, measure: Callable[[], dict[str, Any]], *, needs: float = 0.0) -> None:
        """Write the result of ``measure`` as a row. If it raises an error, the row has the reason,
        and the part continues.

        Args:
            needs: seconds that it probably takes; with less time left it is skipped.
        """
        if time.monotonic() + needs > self.end:
            self.emit(what, "skipped", found="no time left")
            return
        try:
            cells = {"state": "ok", **measure()}
        except Exception as error:  # after any error, the other rows still count
            cells = {"state": _state_of(error), "found": _sentence(error)}
        self.ours.tasks.clear()
        gc.collect()
        if self.is_cuda:
            with contextlib.suppress(RuntimeError):  # the GPU cannot be used after this error
                torch.cuda.empty_cache()
        self.emit(what, **cells)

    def batch(self, training: Training) -> str:
        """The file with a made-up batch, written once."""
        path = self.folder / f"{training.batch}_{training.side}_{training.brightest:g}.npz"
        if not path.is_file():
            made_up_batch(path, training)
        return str(path)

    def fresh_weights(self, recipe: str) -> dict[str, str]:
        """The file with the initial weights of a training of ``recipe``."""
        launch.set_seed(0)
        config = load_config(recipe)
        model = new_model(config, num_classes=80)
        path = self.folder / f"{Path(recipe).stem}_fresh.ckpt"
        metadata = CheckpointMetadata(
            model=config.model.name,
            num_classes=model.num_classes,
            input_spec=model.input_spec,
            architecture=dict(model.architecture),
        )
        save_checkpoint(path, parameter_values(model), metadata)
        return {"checkpoint": str(path)}

    def start(self) -> None:
        """Choose the device, with PyTorch's own settings."""
        launch.start(self.target, seed=0)


def _state_of(error: Exception) -> str:
    told = isinstance(error, DeviceError) and "not enough device memory" in str(error)
    return "out of memory" if told or isinstance(error, MemoryLacking) else "failed"


def _sentence(error: Exception) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {first_line(error)}"[:300]


# ---- parts ---------------------------------------------------------------------------------------


def about(part: Part) -> None:
    """The device and the installed software, or why there is no device."""
    try:
        part.start()
    except DeviceError as error:
        part.emit("about", "failed", found=str(error))
        return
    found = {"PyTorch": torch.__version__, "NumPy": np.__version__}
    if part.is_cuda:
        found |= {
            "GPU": torch.cuda.get_device_name(device()),
            "CUDA": str(torch.version.cuda),
            "cuDNN": str(torch.backends.cudnn.version()),
        }
        if torch.distributed.is_nccl_available():
            found["NCCL"] = ".".join(map(str, torch.cuda.nccl.version()))
    part.emit("about", "ok", versions=found)


def steps(part: Part) -> None:
    """Five training steps on the device and on the CPU from the same weights."""
    exact_float32()
    side, batch = (64, 2) if part.quick else (192, 4)
    for name in QUICK_STEPS if part.quick else SMALLEST:
        recipe, brightest, boxes = SMALLEST[name]
        training = Training(recipe, batch, side, brightest, boxes)
        rate = RATES.get(name, STEP_RATE)
        part.row(name, lambda t=training, r=rate: _compared_steps(part, t, r), needs=20.0)


def _compared_steps(part: Part, training: Training, rate: float) -> dict[str, Any]:
    launch.start("CPU")
    weights = part.fresh_weights(training.recipe)
    arrays = dict(np.load(part.batch(training)))
    noise = np.random.RandomState(1).uniform(-1, 1, arrays["images"].shape)
    shaken = part.folder / "shaken.npz"
    images = (arrays["images"] * (1 + ROUNDING * noise)).astype(np.float32)
    np.savez(shaken, **{**arrays, "images": images})

    def totals(target: str, batch: str) -> np.ndarray:
        launch.start(target, seed=0)
        return _totals(part, training, {**weights, "batch": batch}, steps=STEPS, rate=rate)

    wanted = totals("CPU", part.batch(training))
    rounding = np.abs(totals("CPU", str(shaken)) / wanted - 1)
    apart = np.abs(totals(part.target, part.batch(training)) / wanted - 1)
    limits = np.maximum(SAME_STEP, 10 * np.maximum.accumulate(rounding))
    return {
        "found": ", ".join(f"{value:.1e}" for value in apart),
        "wanted": ", ".join(f"{value:.1e}" for value in limits),
        "state": "ok" if (apart <= limits).all() else "failed",
        "differences": apart.tolist(),
    }


def _totals(
    part: Part,
    training: Training,
    files: dict[str, str],
    *,
    steps: int,
    rate: float,
    half: str = "",
) -> np.ndarray:
    """The loss before each of ``steps`` updates, from the files ``checkpoint`` and ``batch``."""
    first = part.ours.train_step("step", training.recipe, **files, rate=rate, half=half)
    call = part.ours.tasks["step"]
    return np.array([first["losses"]["total"], *(call()[0] for _ in range(steps - 1))])


def amp(part: Part) -> None:
    """Training in half precision, compared with float32."""
    exact_float32()
    part.start()
    side, batch = (128, 2) if part.quick else (256, 16)
    for name in QUICK_AMP if part.quick else SMALLEST:
        recipe, brightest, boxes = SMALLEST[name]
        training = Training(recipe, batch, side, brightest, boxes)
        rate = RATES.get(name, AMP_RATE)
        part.row(name, lambda t=training, r=rate: _half_precision(part, t, r), needs=15.0)


def _half_precision(part: Part, training: Training, rate: float) -> dict[str, Any]:
    count = 3 if part.quick else AMP_STEPS
    files = {**part.fresh_weights(training.recipe), "batch": part.batch(training)}
    of = {
        half or "float32": _totals(part, training, files, steps=count, rate=rate, half=half)
        for half in ("", *HALVES)
    }
    apart = {half: abs(of[half].mean() / of["float32"].mean() - 1) for half in HALVES}
    good = all(np.isfinite(of[half]).all() and apart[half] <= AMP_LIMIT for half in HALVES)
    return {
        "found": ", ".join(f"{half} {value:.2%}" for half, value in apart.items()),
        "wanted": f"finite, mean loss of {count} steps within {AMP_LIMIT:.0%} of float32's",
        "state": "ok" if good else "failed",
        "differences": list(apart.values()),
    }


def ranks(part: Part) -> None:
    """A step in a world of one rank, which NCCL or gloo connects, and the same step without a
    world.
    """
    training = Training(YOLOX_NANO, 2, 64 if part.quick else 192, 255.0, 120)
    part.row("a step of yolox_nano, joined and alone", lambda: _joined(part, training))


def _joined(part: Part, training: Training) -> dict[str, Any]:
    def report() -> np.ndarray:
        files = {**part.fresh_weights(training.recipe), "batch": part.batch(training)}
        return _totals(part, training, files, steps=2, rate=STEP_RATE)

    configure(part.target, device_number=0, graph_mode=True, compile_cache=None)
    alone = report()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"}
    os.environ.update(rank, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    world = launch.start(part.target, is_parallel=True)
    joined = report()
    values = torch.arange(1000.0, device=device())
    if not torch.equal(summed(values.clone()), values):
        raise ValueError("the sum over one rank is not what that rank has")
    distributed.barrier()
    apart, limit = float(np.abs(joined / alone - 1).max()), SAME_RANK[part.target]
    return {
        "found": f"{torch.distributed.get_backend()}, {world.size} rank, {apart:.1e} apart",
        "wanted": f"{limit:g} apart at most",
        "state": "ok" if apart <= limit and world.size == 1 else "failed",
        "differences": [apart],
    }


def speed(part: Part) -> None:
    """Images per second and memory of whole training steps."""
    part.start()
    batches, side = ((2,), 64) if part.quick else ((16, 64), 640)
    for name, (recipe, brightest, boxes) in (TIMED_QUICKLY if part.quick else TIMED).items():
        weights = part.ours.make_weights(str(part.folder), recipe)
        for count, half in itertools.product(batches, ("", "float16")):
            training = Training(recipe, count, side, brightest, boxes)
            part.row(
                f"{name}, batch {count}, {half or 'float32'}",
                lambda t=training, w=weights, h=half, n=name: _timed_step(part, t, w, h, n),
                needs=15.0,
            )


def _timed_step(
    part: Part, training: Training, weights: dict, half: str, name: str
) -> dict[str, Any]:
    batch = part.batch(training)
    if part.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    first = part.ours.train_step(
        "step", training.recipe, weights["checkpoint"], batch, 1e-6, half=half
    )
    call = part.ours.tasks["step"]
    seconds = timed(call, part.is_cuda, quick=part.quick)
    return {
        "images_per_second": training.batch / seconds,
        "gigabytes": peak_gigabytes(part.is_cuda),
        "first_loss": first["losses"]["total"],
        "for_peer": {"weights": weights, "batch": batch, "half": half, "model": name},
        "count": training.batch,
    }


def latency(part: Part) -> None:
    """Time from an array of one image to arrays of boxes and scores."""
    part.start()
    models = {"yolox_s": YOLOX_S, "gold_yolo_n": GOLD_YOLO["n"]}
    if part.quick:
        models = {"gold_yolo_n": GOLD_YOLO["n"]}
    for name, recipe in models.items():
        weights = part.ours.make_weights(str(part.folder), recipe)
        for half in ("", "float16"):
            part.row(
                f"{name}, batch 1, {half or 'float32'}",
                lambda w=weights, h=half: _latency(part, w["checkpoint"], h),
                needs=5.0,
            )


def _latency(part: Part, checkpoint: str, half: str) -> dict[str, Any]:
    predictor = new_predictor(load_model(checkpoint)[0])
    if half:
        precision.apply(predictor.network, "O2", half)
    side, warm, repeats = (64, 1, 3) if part.quick else (640, 10, 100)
    picture = np.random.RandomState(0).uniform(0, 1, (1, 3, side, side)).astype(np.float32)
    times = []
    for turn in range(warm + repeats):
        begin = time.perf_counter()
        boxes, scores = predictor(picture)
        if turn >= warm:
            times.append(time.perf_counter() - begin)
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("boxes or scores are not finite")
    middle = statistics.median(times)
    return {"found": f"{1e3 * middle:.2f} ms, median of {repeats}", "seconds": middle}


PARTS = {part.__name__: part for part in (about, steps, amp, ranks, speed, latency)}


def main() -> None:
    """Run a part. Rows reach standard output; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    name, settings = sys.argv[1:]
    PARTS[name](Part(json.loads(settings), answers))


if __name__ == "__main__":
    main()

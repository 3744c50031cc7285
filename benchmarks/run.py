"""Times this project against its peers, both in the same run, and writes ratios into a Markdown
file.

    python benchmarks/run.py [CASE ...] --torch-python PYTHON --yolo-fastestv2-repo CLONE
    --yolox-repo CLONE
        --gold-yolo-repo CLONE --dynamicdet-repo CLONE --simple-yolo-repo CLONE [--mindyolo-repo
        CLONE] [--out docs/benchmarks.md]

Absolute times say little on another machine, so every row is a pair: ours, peer, ours, peer, ... in
two processes that live through the case. While one computes the other is halted (SIGSTOP), and both
are bound to the same processors. ``MINDYOLO_EXT_BACKEND=torch`` times this project's PyTorch
backend, into sections of their own.
"""

import argparse
import contextlib
import itertools
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from measuring import (
    Bench,
    Row,
    Section,
    Skipped,
    measured_section,
    program_seconds,
    write_sections,
)

logger = logging.getLogger("benchmarks")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from mindyolo_ext.backend.choice import BACKEND  # noqa: E402
from mindyolo_ext.models.gold_yolo.variants import T4  # noqa: E402
from mindyolo_ext.models.registry import families, family  # noqa: E402

ON_TORCH = BACKEND == "torch"
OURS = "our PyTorch backend" if ON_TORCH else "MindSpore graph"
RECIPE = str(ROOT / "configs" / "yolo_fastestv2" / "yolo-fastestv2.yaml")
YOLOX_TINY, YOLOX_S = (
    str(ROOT / "configs" / "yolox" / f"yolox-{scale}.yaml") for scale in ("tiny", "s")
)
GOLD_YOLO = {
    scale: str(ROOT / "configs" / "gold_yolo" / f"gold_yolo-{scale}.yaml")
    for scale in ("n", "n-distill", "s-distill", "m-distill", "l-distill")
}
DYNAMICDET, NARROW_DYNAMICDET = (
    str(ROOT / "configs" / "dynamicdet" / f"dy-yolov7{name}.yaml")
    for name in ("{}-step{}", "-w0125-coco128-step{}")
)
DYNAMICDET_SCALES = {
    "": "dy_yolov7, 640 x 640",
    "x": "dy_yolov7x, 640 x 640",
    "-w6": "dy_yolov7_w6, 1280 x 1280",
}
SIMPLE_YOLO = {
    name: str(ROOT / "configs" / "simple_yolo" / f"simple-yolo-resnet18{name}.yaml")
    for name in ("", "-w025", "-single-grid", "-all-grid")
}
GOLD_YOLO_SCALES = [name.removeprefix("gold_yolo_") for name in family("gold_yolo").variants]
BATCH, BOXES_PER_PICTURE, RATE = 16, 7, 1e-6


@dataclass(frozen=True)
class Training:
    """A training step to time.

    Args:
        recipe: of this project.
        batch, side: images, and their height and width.
        brightest: value of a white pixel.
        padded_boxes: M, as the recipe pads.
        teacher: recipe of the teacher network of a distillation.
        peer: further arguments of the original's step.
    """

    recipe: str
    batch: int
    side: int
    brightest: float
    padded_boxes: int
    teacher: str = ""
    peer: dict[str, int] = field(default_factory=dict)


FASTESTV2_TRAINING = Training(RECIPE, batch=BATCH, side=352, brightest=1.0, padded_boxes=96)
YOLOX_TRAINING = Training(YOLOX_TINY, batch=4, side=416, brightest=255.0, padded_boxes=120)
GOLD_YOLO_TRAINING = Training(GOLD_YOLO["n"], batch=4, side=320, brightest=1.0, padded_boxes=160)
GOLD_YOLO_DISTILLING = Training(
    GOLD_YOLO["n-distill"],
    batch=4,
    side=320,
    brightest=1.0,
    padded_boxes=160,
    teacher=GOLD_YOLO["n"],
)


def _dynamicdet(step: int, batch: int) -> dict[str, Training]:
    """One of DynamicDet's two training steps, by model."""
    narrow, usual = NARROW_DYNAMICDET.format(step), DYNAMICDET.format("", step)
    return {
        "dy_yolov7_w0125": Training(narrow, batch, 256, 1.0, 80, peer={"size": 256}),
        "dy_yolov7": Training(usual, batch, 256, 1.0, 160, peer={"size": 640}),
    }


DYNAMICDET_CASCADES = _dynamicdet(1, batch=2)
DYNAMICDET_ROUTERS = _dynamicdet(2, batch=1)
SIMPLE_YOLO_TRAININGS = {
    "resnet18, width 0.25, nearby_grid": Training(SIMPLE_YOLO["-w025"], 8, 320, 1.0, 120),
    "resnet18, width 0.75, nearby_grid": Training(SIMPLE_YOLO[""], 4, 320, 1.0, 120),
    "resnet18, width 0.75, single_grid": Training(SIMPLE_YOLO["-single-grid"], 4, 320, 1.0, 120),
    "resnet18, width 0.75, all_grid": Training(SIMPLE_YOLO["-all-grid"], 4, 320, 1.0, 120),
}
DYNAMICDET_LARGEST = Training(
    DYNAMICDET.format("-w6", 1), batch=1, side=256, brightest=1.0, padded_boxes=160
)
MOST_MEMORY = 20  # GB that the largest one's training step may take


def main() -> int:
    """Run the requested cases; returns the exit status."""
    options = _parser().parse_args()
    peers = [*families(), "mindyolo"]
    options.clones = {name: vars(options)[f"{name}_repo"] for name in peers}
    logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers end too
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: options.threads]))
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    sections = []
    for name in options.cases or CASES:
        with (
            tempfile.TemporaryDirectory(prefix="benchmark_") as folder,
            contextlib.ExitStack() as stack,
        ):
            bench = Bench(options, Path(folder), stack)
            title = f"{name}_on_torch" if ON_TORCH else name
            logger.info("== %s", title)
            try:
                section = measured_section(title, bench, CASES[name])
            except Skipped as reason:
                section = Section(title, [], [f"Skipped: {reason}"], "")
        logger.info("%s\n", section.markdown())
        sections.append(section)
        if options.out:
            write_sections(options.out, sections)
    return 0


def wanted(of_mindspore: float) -> float:
    """The largest acceptable ratio to the original; on the original's own framework, at most 1."""
    return 1.0 if ON_TORCH else of_mindspore


def first_step(seconds: float, most: float) -> str:
    """A note on the time until a training's first step ends; MindSpore may take ``most``."""
    if ON_TORCH:
        return f"Our first step: {seconds:.1f} s (wanted: at most 5 s)."
    return (
        f"Our first step, its compilation included: {seconds:.1f} s (wanted: at most {most:g} s)."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Times this project against its peers in the same run."
    )
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help=f"of {', '.join(CASES)}; all if none is named",
        choices=[*CASES, []],
    )
    parser.add_argument("--torch-python", help="a Python with PyTorch, NumPy and OpenCV")
    for name, record in families().items():
        parser.add_argument(
            f"--{name.replace('_', '-')}-repo",
            type=Path,
            help=f"a clone of {record.repository}, unchanged",
        )
    parser.add_argument(
        "--mindyolo-repo",
        type=Path,
        help="a clone of mindspore-lab/mindyolo, unchanged: a second peer of yolox_train_step",
    )
    parser.add_argument(
        "--shared",
        type=Path,
        default=os.environ.get("MINDYOLO_EXT_SHARED", ROOT.parent / "shared"),
        help="folder with data/coco_val128 and weights/yolo_fastestv2, for `evaluate` and "
        "`pipeline`",
    )
    parser.add_argument(
        "--out", type=Path, help="Markdown file; sections of the cases run are replaced"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=15,
        help="pairs per row (whole programs: a fifth, at least 2)",
    )
    parser.add_argument(
        "--min-seconds", type=float, default=0.3, help="shortest single measurement"
    )
    parser.add_argument(
        "--quiet",
        type=float,
        default=0.1,
        help="a pair counts if other programs took at most this part of the machine meanwhile",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=120,
        help="seconds per case to wait for that; then the "
        "quietest pairs count, and the report says how quiet they were",
    )
    parser.add_argument(
        "--clock",
        choices=["wall", "processor"],
        default="wall",
        help="processor: with --threads 1 on "
        "a machine that others use too; for nms and the cases named forward and train_step",
    )
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="processors for both"
    )
    return parser


# ---- cases ---------------------------------------------------------------------------------------


def forward(bench: Bench) -> tuple[list[Row], list[str]]:
    """Deploy form against the original with fused batch norms."""
    ours, theirs = bench.ours(), bench.theirs("yolo_fastestv2")
    weights = ours("make_weights", folder=str(bench.folder), recipe=RECIPE)
    rows = []
    for batch in (1, BATCH):
        worst = _prepare_forward(bench, ours, theirs, weights, batch)
        times = bench.interleave({"ours": (ours, "forward"), "peer": (theirs, "forward")})
        rows.append(
            Row(
                f"batch {batch}, {OURS} / PyTorch eager",
                times["ours"],
                times["peer"],
                target=wanted(1.2),
                note=f"largest difference of outputs {worst:.1e}",
            )
        )
    return rows, [
        "Yolo-FastestV2, 352 x 352, batch norms folded on both sides, the original's export "
        "outputs, the same weights and pictures."
    ]


def forward_onnx(bench: Bench) -> tuple[list[Row], list[str]]:
    """The exported ONNX file beside both."""
    ours, theirs, exported = bench.ours(), bench.theirs("yolo_fastestv2"), bench.ours()
    weights = ours("make_weights", folder=str(bench.folder), recipe=RECIPE)
    rows = []
    for batch in (1, BATCH):
        _prepare_forward(bench, ours, theirs, weights, batch)
        _prepare_onnx(bench, exported, weights)
        workers = {"onnx": exported, "ours": ours, "peer": theirs}
        times = bench.interleave({name: (worker, "forward") for name, worker in workers.items()})
        rows += _onnx_rows(f"batch {batch}", times)
    return rows, [
        "As `forward`, with the file that `mindyolo-ext export --raw` writes; three processes take "
        "turns."
    ]


def yolox_forward(bench: Bench) -> tuple[list[Row], list[str]]:
    """Deploy form and exported ONNX file against the original with fused batch norms."""
    ours, theirs, exported = bench.ours(), bench.theirs("yolox"), bench.ours()
    rows = []
    for what, recipe in (("yolox_tiny, 416 x 416", YOLOX_TINY), ("yolox_s, 640 x 640", YOLOX_S)):
        weights = ours("make_weights", folder=str(bench.folder), recipe=recipe)
        worst = _prepare_forward(bench, ours, theirs, weights, batch=1)
        _prepare_onnx(bench, exported, weights)
        workers = {"onnx": exported, "ours": ours, "peer": theirs}
        times = bench.interleave({name: (worker, "forward") for name, worker in workers.items()})
        rows += [
            Row(
                f"{what}, {OURS} / PyTorch eager",
                times["ours"],
                times["peer"],
                target=wanted(1.2),
                note=f"largest difference of outputs {worst:.1e}",
            ),
            *_onnx_rows(what, times),
        ]
    return rows, [
        "Batch 1, batch norms folded on both sides (the original by its own function), the "
        "original's export outputs, the same weights and pictures; three processes take turns."
    ]


def train_step(bench: Bench) -> tuple[list[Row], list[str]]:
    """Forward, loss, backward and SGD."""
    ours, theirs = bench.ours(), bench.theirs("yolo_fastestv2")
    note, _ = _prepare_train_step(bench, FASTESTV2_TRAINING, ours, theirs)
    times = bench.interleave({"ours": (ours, "step"), "peer": (theirs, "step")})
    return (
        [
            Row(
                f"batch {BATCH}, 352 x 352",
                times["ours"],
                times["peer"],
                target=wanted(1.5),
                note=note,
            )
        ],
        [
            f"Forward, matching, loss, backward, SGD with momentum and decay. {BOXES_PER_PICTURE} "
            f"boxes per picture; ours pads them to {FASTESTV2_TRAINING.padded_boxes}, as the COCO "
            "recipe does, the original's tensors grow with the boxes."
        ],
    )


def yolox_train_step(bench: Bench) -> tuple[list[Row], list[str]]:
    """Forward, SimOTA, loss, backward, SGD with Nesterov momentum, moving average."""
    ours, theirs = bench.ours(), bench.theirs("yolox")
    note, seconds = _prepare_train_step(bench, YOLOX_TRAINING, ours, theirs)
    tasks = {"ours": (ours, "step"), "peer": (theirs, "step")}
    notes = [
        "Forward, SimOTA, loss, backward, SGD with Nesterov momentum and decay by kind of "
        f"parameter, moving average of all weights and statistics. {BOXES_PER_PICTURE} boxes per "
        f"picture, padded to {YOLOX_TRAINING.padded_boxes} on both sides; the original cuts the "
        "padding off, picture by picture.",
        first_step(seconds, 40),
    ]
    if bench.options.mindyolo_repo:
        mindyolo = bench.mindyolo()
        begin = time.monotonic()
        mindyolo(
            "train_step",
            task="step",
            recipe="configs/yolox/yolox-tiny.yaml",
            batch=str(bench.folder / "batch.npz"),
            rate=RATE,
        )
        notes.append(
            "MindYOLO: the step of its recipe, with weights, pictures in 0..1 and a matching rule "
            "of its own over the same padded boxes, so its loss is another; first step, building "
            f"the network included: {time.monotonic() - begin:.1f} s."
        )
        tasks["mindyolo"] = (mindyolo, "step")
    times, what = bench.interleave(tasks), "yolox_tiny, batch 4, 416 x 416"
    rows = [
        Row(
            f"{what}, {OURS} / PyTorch eager",
            times["ours"],
            times["peer"],
            target=wanted(1.25),
            note=note,
        )
    ]
    if "mindyolo" in times:
        rows.append(
            Row(
                f"{what}, MindSpore graph / MindYOLO's MindSpore graph",
                times["ours"],
                times["mindyolo"],
            )
        )
    return rows, notes


def gold_yolo_forward(bench: Bench) -> tuple[list[Row], list[str]]:
    """Deploy form and exported ONNX file of all scales against the original's."""
    ours, theirs, exported = bench.ours(), bench.theirs("gold_yolo"), bench.ours()
    rows = []
    for scale in GOLD_YOLO_SCALES:
        weights = ours(
            "make_weights", folder=str(bench.folder), recipe=GOLD_YOLO[f"{scale}-distill"]
        )
        worst = _prepare_forward(bench, ours, theirs, weights, batch=1)
        _prepare_onnx(bench, exported, weights)
        workers = {"onnx": exported, "ours": ours, "peer": theirs}
        times = bench.interleave({name: (worker, "forward") for name, worker in workers.items()})
        what = weights["model"]
        rows += [
            Row(
                f"{what}, {OURS} / PyTorch eager",
                times["ours"],
                times["peer"],
                target=wanted(1.2),
                note=f"largest difference of outputs {worst:.1e}",
            ),
            *_onnx_rows(what, times),
        ]
    facts = family("gold_yolo").variants
    speeds = ", ".join(
        f"{scale} {facts[f'gold_yolo_{scale}'].published[T4]:g}" for scale in GOLD_YOLO_SCALES
    )
    return rows, [
        "Batch 1, 640 x 640, the networks of the published weights (n and s in the form `distill`, "
        "m and l `plain`) with decoding; RepVGG blocks merged and batch norms folded on both "
        "sides. The original's own functions leave some norms as they are. The same weights and "
        "pictures; three processes take turns.",
        "For comparison, pictures per second that the original publishes for a T4 (TensorRT 7, "
        f"half precision, batch 1): {speeds}.",
    ]


def gold_yolo_train_step(bench: Bench) -> tuple[list[Row], list[str]]:
    """Training step 1: forward, both branches' assignment and loss, backward, SGD, moving
    average.
    """
    return _gold_yolo_step(
        bench,
        GOLD_YOLO_TRAINING,
        "with the anchor branch (form `fuse_ab`)",
        [
            "Forward, task-aligned assignment and loss of the anchor-free and of the anchor "
            "branch, backward, SGD with Nesterov momentum and decay by kind of parameter, moving "
            "average of all weights and statistics."
        ],
        target=1.2,
    )


def gold_yolo_distill_step(bench: Bench) -> tuple[list[Row], list[str]]:
    """Training step 2: forward of student and teacher, assignment, loss, backward, SGD, moving
    average.
    """
    return _gold_yolo_step(
        bench,
        GOLD_YOLO_DISTILLING,
        "self-distillation (form `distill`)",
        [
            "Forward of the student and of its teacher (form `fuse_ab`), task-aligned assignment, "
            "loss with distillation, backward, SGD and moving average as in `gold_yolo_train_step`."
        ],
        target=1.5,
    )


def _gold_yolo_step(
    bench: Bench, training: Training, what: str, notes: list[str], *, target: float
) -> tuple[list[Row], list[str]]:
    """Row and notes of a training step; ``target`` is the acceptable ratio for MindSpore."""
    ours, theirs = bench.ours(), bench.theirs("gold_yolo")
    note, seconds = _prepare_train_step(bench, training, ours, theirs)
    times = bench.interleave({"ours": (ours, "step"), "peer": (theirs, "step")})
    row = Row(
        f"gold_yolo_n, {what}, batch {training.batch}, {training.side} x {training.side}, "
        f"{OURS} / PyTorch eager",
        times["ours"],
        times["peer"],
        target=wanted(target),
        note=note,
    )
    return [row], [
        *notes,
        f"{BOXES_PER_PICTURE} boxes per picture; ours pads them to {training.padded_boxes}, as the "
        "COCO recipe does, the original to the most that a picture of the batch has. Drop-path is "
        "on, but not in the first step, whose losses are compared.",
        first_step(seconds, 90),
    ]


def dynamicdet_forward(bench: Bench) -> tuple[list[Row], list[str]]:
    """Both ways through the routed networks, as graphs and as exported ONNX files, against the
    original's.
    """
    rows = []
    for scale, name in DYNAMICDET_SCALES.items():
        ours, theirs, exported = bench.ours(), bench.theirs("dynamicdet"), bench.ours()
        weights = ours("make_weights", folder=str(bench.folder), recipe=DYNAMICDET.format(scale, 2))
        images = str(bench.folder / "images.npy")

        def files(side: str) -> dict[str, str]:
            return {route: str(bench.folder / f"{side}_{route}.npz") for route in ("easy", "hard")}

        ours("routes", checkpoint=weights["checkpoint"], images=images, **files("ours"))
        theirs("routes", weights=weights, images=images, **files("theirs"))
        exported("onnx_routes", checkpoint=weights["checkpoint"], images=images, **files("onnx"))
        for route in ("easy", "hard"):
            worst = _compare(Path(files("ours")[route]), Path(files("theirs")[route]))
            _compare(Path(files("onnx")[route]), Path(files("theirs")[route]))
            workers = {"onnx": exported, "ours": ours, "peer": theirs}
            times = bench.interleave(
                {worker: (process, route) for worker, process in workers.items()}
            )
            what = f"{name}, {route} image"
            rows += [
                Row(
                    f"{what}, {OURS} / PyTorch eager",
                    times["ours"],
                    times["peer"],
                    target=wanted(1.2),
                    note=f"largest difference of outputs {worst:.1e}",
                ),
                *_onnx_rows(what, times),
            ]
        bench.close_workers()  # these networks are large
    return rows, [
        "Batch 1; batch norms folded, RepConv and implicit layers merged on both sides (the "
        "original by its own function). An easy image takes backbone 1, router and head 1, a hard "
        "one backbone 1, router, backbone 2 and head 2; the threshold says which. Ours are two "
        "graphs each, or two exported files each (`--parts 3`), with boxes and scores as results; "
        "the original returns what it makes them of. The same weights and pictures; three "
        "processes take turns."
    ]


def dynamicdet_train_step(bench: Bench) -> tuple[list[Row], list[str]]:
    """Training step 1: both detectors' forward, OTA and loss, backward, SGD, moving average;
    memory of the largest.
    """
    rows, notes = _training_steps(bench, "dynamicdet", DYNAMICDET_CASCADES)
    largest = DYNAMICDET_LARGEST
    maker = bench.ours()
    weights = maker("make_weights", folder=str(bench.folder), recipe=largest.recipe)
    bench.close_workers()
    worker = bench.ours()
    worker(
        "train_step",
        task="step",
        recipe=largest.recipe,
        checkpoint=weights["checkpoint"],
        rate=RATE,
        batch=made_up_batch(bench.folder / "batch.npz", largest),
    )
    worker("measure", task="step", count=1)
    notes.append(
        f"The most memory of a process that compiles this step of {weights['model']} (batch "
        f"{largest.batch}, {largest.side} x {largest.side}) and runs it twice: "
        f"{worker('most_memory'):.1f} GB (wanted: at most {MOST_MEMORY} GB)."
    )
    return rows, [
        "Forward of both detectors, OTA and loss of both, backward, SGD with Nesterov momentum and "
        "decay by kind of parameter, moving average of all weights and statistics.",
        *notes,
    ]


def dynamicdet_router_step(bench: Bench) -> tuple[list[Row], list[str]]:
    """Training step 2: both detectors' forward, OTA and loss, the router's loss, its backward,
    AdamW.
    """
    rows, notes = _training_steps(bench, "dynamicdet", DYNAMICDET_ROUTERS)
    return rows, [
        "Forward of both detectors with frozen norms, OTA and loss of both, the router's loss with "
        "the median of all differences, its gradient and AdamW.",
        *notes,
    ]


def _training_steps(
    bench: Bench, family: str, trainings: dict[str, Training], target: float = 1.5
) -> tuple[list[Row], list[str]]:
    """Rows and notes of training steps; ``target`` is the acceptable ratio for MindSpore."""
    rows, compilations = [], []
    for name, training in trainings.items():
        ours, theirs = bench.ours(), bench.theirs(family)
        note, seconds = _prepare_train_step(bench, training, ours, theirs)
        times = bench.interleave({"ours": (ours, "step"), "peer": (theirs, "step")})
        rows.append(
            Row(
                f"{name}, batch {training.batch}, {training.side} x {training.side}, "
                f"{OURS} / PyTorch eager",
                times["ours"],
                times["peer"],
                target=wanted(target),
                note=note,
            )
        )
        compilations.append(f"{name} {seconds:.1f} s")
        bench.close_workers()  # these networks are large
    return rows, [
        f"{BOXES_PER_PICTURE} boxes per picture; ours pads them as the recipes do, the original's "
        "tensors grow with the boxes.",
        f"Our first step, its compilation included: {', '.join(compilations)}.",
    ]


def simple_yolo_train_step(bench: Bench) -> tuple[list[Row], list[str]]:
    """A training step: forward, assignment, loss, backward, Adam, moving average."""
    rows, notes = _training_steps(bench, "simple_yolo", SIMPLE_YOLO_TRAININGS, 1.8)
    return rows, [
        "Forward, label assignment, focal and CIoU losses, backward, Adam, moving average of all "
        "weights and statistics, 80 classes.",
        *notes,
    ]


def start(bench: Bench) -> tuple[list[Row], list[str]]:
    """From the start of the process to the end of the first training step, without and with cached
    graphs.
    """
    from mindyolo_ext.data.shapes import make_shapes_dataset

    data = make_shapes_dataset(
        bench.folder / "shapes", train_images=2 * BATCH, val_images=1, progress=False
    )
    changes = [
        f"data.root={data}",
        "data.train={images: images/train, annotations: annotations/train.json}",
    ]
    turns = itertools.count()

    def first_step(cache: Callable[[], Path]) -> float:
        _, marks = program_seconds(
            [
                sys.executable,
                str(ROOT / "train.py"),
                "--config",
                RECIPE,
                *_flags(changes),
                "--epochs",
                "1",
                "--per_batch_size",
                str(BATCH),
                "--run_eval",
                "False",
                "--save_dir",
                str(bench.folder / f"run{next(turns)}"),
                "--compile_cache",
                str(cache()),
            ],
            bench.folder,
            {"step": "compiled and ran"},
        )
        return marks["step"]

    caches = []

    def new_cache() -> Path:
        caches.append(bench.folder / f"cache{len(caches)}")
        return caches[-1]

    times = bench.quiet_turns(
        {"cold": lambda: first_step(new_cache), "warm": lambda: first_step(lambda: caches[-1])},
        bench.program_repeats,
    )
    return (
        [
            Row(
                f"batch {BATCH}, 352 x 352, second start / first start",
                times["warm"],
                times["cold"],
                target_seconds=15,
            )
        ],
        [
            "`train.py --compile_cache DIR` on drawn pictures: seconds from the start of the "
            "process to the end of the first training step. Left: DIR was filled by the start "
            "before it. Right: DIR was empty."
        ],
    )


def evaluate(bench: Bench) -> tuple[list[Row], list[str]]:
    """``test.py`` against ``evaluation.py`` on the same list of images."""
    data, changes, count = _validation_list(bench)
    source = bench.shared / "weights" / "yolo_fastestv2" / "coco2017-0.241078ap-model.pth"
    bench.need(source)
    ours, theirs = bench.ours(), bench.theirs("yolo_fastestv2")
    checkpoint = bench.folder / "official.ckpt"
    ours("convert", source=str(source), target=str(checkpoint))
    metrics = [
        ours(
            "evaluate", task="evaluate", recipe=RECIPE, checkpoint=str(checkpoint), changes=changes
        ),
        theirs("evaluate", task="evaluate", weights=str(source), data=str(data), batch_size=BATCH),
    ]
    inside = bench.quiet_turns(
        {
            "ours": lambda: ours("measure", task="evaluate", count=1),
            "peer": lambda: theirs("measure", task="evaluate", count=1),
        },
        bench.program_repeats,
    )
    split = [worker("evaluation_split") for worker in (ours, theirs)]
    real_nms = theirs("about")["torchvision"] == "installed"
    bench.close_workers()
    test = [
        sys.executable,
        str(ROOT / "test.py"),
        "--config",
        RECIPE,
        "--weight",
        str(checkpoint),
        "--save_dir",
        str(bench.folder / "test"),
        *_flags(changes),
    ]
    cached = [*test, "--compile_cache", str(bench.folder / "cache")]
    original = [
        *bench.theirs_command("yolo_fastestv2"),
        "evaluation.py",
        "--data",
        str(data),
        "--weights",
        str(source),
    ]
    program_seconds(cached, bench.folder, {})
    whole = bench.quiet_turns(
        {
            "ours": lambda: program_seconds(test, bench.folder, {})[0],
            "cached": lambda: program_seconds(cached, bench.folder, {})[0],
            "peer": lambda: program_seconds(original, bench.folder, {})[0],
        },
        bench.program_repeats,
    )
    rows = [
        Row(
            "evaluation alone, processes already warm",
            inside["ours"],
            inside["peer"],
            target=wanted(1.0),
        ),
        Row("whole program", whole["ours"], whole["peer"], target=wanted(1.0)),
        Row(
            "whole program, graphs from `--compile_cache`",
            whole["cached"],
            whole["peer"],
            target=wanted(1.0),
        ),
    ]
    shown = ["; ".join(f"{k} {v:.4f}" for k, v in m.items()) for m in metrics]
    parts = ["; ".join(f"{k} {v:.2f} s" for k, v in s.items()) for s in split]
    return rows, [
        f"{count} COCO pictures, official weights, 352 x 352. Ours: one pass, the original's "
        "metric at both confidences and the COCO metrics. The original: two passes, its metric at "
        "either confidence.",
        f"Metric, ours: {shown[0]}. Original: {shown[1]}.",
        "The last evaluation by phase, ours (waiting for data, network, NMS; the rest is "
        f"metrics): {parts[0]}. Original: {parts[1]}.",
        *(
            []
            if real_nms
            else [
                "torchvision was not installed: the original ran with a greedy NumPy loop in the "
                "place of `torchvision.ops.nms`; `nms` above is that part of its time."
            ]
        ),
    ]


def pipeline(bench: Bench) -> tuple[list[Row], list[str]]:
    """Time per image of the training loaders and of the step that uses their images."""
    data, changes, _ = _validation_list(bench)
    ours, theirs = bench.ours(), bench.theirs("yolo_fastestv2")
    pictures = ours("pipeline", task="data", recipe=RECIPE, changes=changes)
    same = theirs("pipeline", task="data", data=str(data), batch_size=BATCH)
    if pictures != same:
        raise ValueError(f"pipeline: {pictures} pictures per epoch here, {same} in the original")
    _prepare_train_step(bench, FASTESTV2_TRAINING, ours, theirs)
    times = bench.interleave(
        {"ours": (ours, "data"), "peer": (theirs, "data"), "step": (ours, "step")}
    )
    loader, peer = ([t / pictures for t in times[name]] for name in ("ours", "peer"))
    step = [t / BATCH for t in times["step"]]
    rate = [1 / sorted(v)[len(v) // 2] for v in (loader, peer, step)]
    return (
        [
            Row("per picture, our loader / our training step", loader, step, target=wanted(1.0)),
            Row("per picture, our loader / the original's", loader, peer),
        ],
        [
            "Reading, resizing, contrast and brightness, batches of 16 float32 pictures; two "
            "workers each (ours threads, the original's processes), neither while a step runs.",
            f"Pictures per second: our loader {rate[0]:.0f}, the original's {rate[1]:.0f}, our "
            f"training step takes {rate[2]:.0f}.",
        ],
    )


def nms(bench: Bench) -> tuple[list[Row], list[str]]:
    """Ours against the plain loop."""
    ours, rows = bench.ours(), []
    for boxes in (1815, 8400):
        for multi_label in (False, True):
            task = f"{boxes} {multi_label}"
            facts = ours("nms", task=task, multi_label=multi_label, boxes=boxes, classes=80)
            times = bench.interleave(
                {
                    "ours": (ours, task),
                    "plain": (ours, f"{task} plain"),
                    "early": (ours, f"{task} plain 300"),
                }
            )
            label = "multi" if multi_label else "single"
            what = f"{boxes} boxes, {label} label, {facts['candidates']} candidates"
            rows += [
                Row(f"{what} / plain loop", times["ours"], times["plain"], target=0.1),
                Row(f"{what} / plain loop that stops at 300 boxes", times["ours"], times["early"]),
            ]
    return rows, [
        "80 classes, confidence 0.001, IoU 0.65, at most 30000 candidates and 300 boxes; a made-up "
        "crowded picture (1815 boxes is Yolo-FastestV2 at 352, 8400 a YOLOX at 640); results equal "
        "bit for bit.",
        "Peer: the usual NumPy loop, each kept box in turn against all that are left, cut to 300 "
        "afterwards, then the same loop left after 300 boxes.",
    ]


CASES: dict[str, Callable[[Bench], tuple[list[Row], list[str]]]] = {
    "forward": forward,
    "forward_onnx": forward_onnx,
    "train_step": train_step,
    "start": start,
    "evaluate": evaluate,
    "pipeline": pipeline,
    "nms": nms,
    "yolox_forward": yolox_forward,
    "yolox_train_step": yolox_train_step,
    "gold_yolo_forward": gold_yolo_forward,
    "gold_yolo_train_step": gold_yolo_train_step,
    "gold_yolo_distill_step": gold_yolo_distill_step,
    "dynamicdet_forward": dynamicdet_forward,
    "dynamicdet_train_step": dynamicdet_train_step,
    "dynamicdet_router_step": dynamicdet_router_step,
    "simple_yolo_train_step": simple_yolo_train_step,
}


# ---- parts that cases share ----------------------------------------------------------------------


def _prepare_forward(
    bench: Bench, ours: Callable, theirs: Callable, weights: dict, batch: int
) -> float:
    """Prepare both sides for ``forward``; returns the largest difference of their outputs."""
    images = str(bench.folder / "images.npy")
    ours(
        "forward",
        task="forward",
        checkpoint=weights["checkpoint"],
        images=images,
        outputs=str(bench.folder / "ours.npz"),
        batch=batch,
    )
    theirs(
        "forward",
        task="forward",
        weights=weights,
        images=images,
        outputs=str(bench.folder / "theirs.npz"),
    )
    return _compare(bench.folder / "ours.npz", bench.folder / "theirs.npz")


def _prepare_onnx(bench: Bench, exported: Callable, weights: dict) -> None:
    """Prepare the exported file for ``forward`` on the images of ``_prepare_forward``."""
    exported(
        "onnx",
        task="forward",
        checkpoint=weights["checkpoint"],
        images=str(bench.folder / "images.npy"),
        outputs=str(bench.folder / "onnx.npz"),
    )
    _compare(bench.folder / "onnx.npz", bench.folder / "theirs.npz")


def _onnx_rows(what: str, times: dict[str, list[float]]) -> list[Row]:
    """The exported file beside the original and beside our graph."""
    return [
        Row(f"{what}, exported ONNX in ONNX Runtime / PyTorch eager", times["onnx"], times["peer"]),
        Row(f"{what}, exported ONNX in ONNX Runtime / {OURS}", times["onnx"], times["ours"]),
    ]


def _compare(first: Path, second: Path) -> float:
    """The largest difference, relative to the largest value along the last axis if that is above 1,
    as for pixels.

    Raises: ValueError above 1e-3, because then two different things would be timed.
    """
    import numpy as np

    with np.load(first) as a, np.load(second) as b:
        worst = 0.0
        for name in a.files:
            wanted = b[name].reshape(-1, b[name].shape[-1])
            apart = np.abs(a[name].reshape(wanted.shape) - wanted).max(0)
            worst = max(worst, float((apart / np.maximum(np.abs(wanted).max(0), 1)).max()))
    if not worst < 1e-3:
        raise ValueError(
            f"{first.name} and {second.name} differ by {worst}; not the same network, nothing to "
            "compare"
        )
    return worst


def _prepare_train_step(
    bench: Bench, training: Training, ours: Callable, theirs: Callable
) -> tuple[str, float]:
    """Prepare both sides for ``step`` on the same made-up batch; returns their first totals, and
    our first seconds.
    """
    import numpy as np

    weights = ours("make_weights", folder=str(bench.folder), recipe=training.recipe)
    path = made_up_batch(bench.folder / "batch.npz", training)
    teacher = {}
    if training.teacher:
        teacher = ours("make_weights", folder=str(bench.folder), recipe=training.teacher, seed=1)
    mine = ours(
        "train_step",
        task="step",
        recipe=training.recipe,
        checkpoint=weights["checkpoint"],
        batch=path,
        rate=RATE,
        teacher=teacher.get("checkpoint", ""),
    )
    peer = theirs(
        "train_step",
        task="step",
        weights=weights,
        batch=path,
        rate=RATE,
        **({"teacher": teacher} if teacher else {}),
        **training.peer,
    )
    losses = mine["losses"]
    sums = {names: sum(losses[name] for name in names.split("+")) for names in peer}
    if not np.allclose(list(sums.values()), list(peer.values()), rtol=1e-3):
        raise ValueError(
            f"train_step: first losses {losses} here, {peer} in the original; not the same step"
        )
    return f"first loss {losses['total']:.5g} / {peer['total']:.5g}", mine["seconds"]


def made_up_batch(path: Path, training: Training) -> str:
    """Coarse noise with boxes of many sizes, as ``rows`` (image, class, box) and padded as
    ``targets`` and ``mask``.
    """
    import numpy as np

    batch, padded, squares, rng = (
        training.batch,
        training.padded_boxes,
        training.side // 32,
        np.random.RandomState(0),
    )
    images = rng.uniform(0, 1, (batch, 3, squares, squares)).repeat(32, axis=2).repeat(32, axis=3)
    images = training.brightest * (0.7 * images + 0.3 * rng.uniform(0, 1, images.shape))
    size = rng.uniform(0.05, 0.6, (batch, BOXES_PER_PICTURE, 2))
    centre = size / 2 + rng.uniform(0, 1, size.shape) * (1 - size)
    boxes = np.concatenate([rng.randint(80, size=(*size.shape[:2], 1)), centre, size], axis=2)
    rows = np.concatenate(
        [np.repeat(np.arange(batch), BOXES_PER_PICTURE)[:, None], boxes.reshape(-1, 5)], axis=1
    )
    targets, mask = np.zeros((batch, padded, 5)), np.zeros((batch, padded))
    targets[:, :BOXES_PER_PICTURE], mask[:, :BOXES_PER_PICTURE] = boxes, 1
    arrays = {"images": images, "rows": rows, "targets": targets, "mask": mask}
    np.savez(path, **{name: value.astype(np.float32) for name, value in arrays.items()})
    return str(path)


def _flags(changes: list[str]) -> list[str]:
    """Changes of a recipe as arguments of ``train.py`` and ``test.py``."""
    return [text for change in changes for text in ("--set", change)]


def _validation_list(bench: Bench) -> tuple[Path, list[str], int]:
    """The validation images: a ``.data`` file for the original, changes of our recipe, and their
    number.

    The original expects labels beside the images, so its list uses links.
    """
    from mindyolo_ext.class_names import COCO_NAMES

    source = bench.shared / "data" / "coco_val128"
    bench.need(source / "images" / "val2017")
    folder = bench.folder / "pictures"
    folder.mkdir()
    lines = []
    for picture in sorted((source / "images" / "val2017").glob("*.jpg")):
        link, label = folder / picture.name, source / "labels" / "val2017" / f"{picture.stem}.txt"
        link.symlink_to(picture.resolve())
        link.with_suffix(".txt").write_text(label.read_text(encoding="utf-8"), encoding="utf-8")
        lines.append(str(link))
    if "." in str(folder):
        raise ValueError(
            f"{folder}: the original cannot read labels below a folder with a dot in its path; set "
            "TMPDIR"
        )
    (bench.folder / "val.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (bench.folder / "coco.names").write_text("\n".join(COCO_NAMES) + "\n", encoding="utf-8")
    data = bench.folder / "bench.data"
    data.write_text(
        f"[name]\nmodel_name=bench\n[train-configure]\nepochs=1\nsteps=150,250\nbatch_size={BATCH}\nsubdivisions=1\n"
        "learning_rate=0.001\n[model-configure]\npre_weights=None\nclasses=80\nwidth=352\nheight=352\nanchor_num=3\n"
        "anchors=12.64,19.39, 37.88,51.48, 55.71,138.31, 126.91,78.23, 131.57,214.55, "
        "279.92,258.87\n"
        f"[data-configure]\ntrain={bench.folder / 'val.txt'}\nval={bench.folder / 'val.txt'}\n"
        f"names={bench.folder / 'coco.names'}\n",
        encoding="utf-8",
    )
    files = "{images: images/val2017, annotations: annotations/instances_val128.json}"
    return (
        data,
        [f"data.root={source.resolve()}", f"data.train={files}", f"data.val={files}"],
        len(lines),
    )


if __name__ == "__main__":
    sys.exit(main())

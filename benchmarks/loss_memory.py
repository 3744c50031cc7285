"""Memory of losses and of training steps, from shapes and measured beside the originals.

    python benchmarks/loss_memory.py shapes
    python benchmarks/loss_memory.py steps --torch-python PYTHON --yolox-repo CLONE ...

``shapes`` computes from shapes alone, without using that memory, what losses and whole networks
hold at the recipes' batch (``tensor_sizes.py``), with ``MINDYOLO_EXT_BACKEND=torch``. ``steps``
measures two steps in fresh processes at two small batches; the line through them gives the memory
at the recipe's batch. Both print a table.
"""

import argparse
import contextlib
import logging
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import Bench
from run import RATE, ROOT, Training, made_up_batch

from mindyolo_ext.backend.choice import BACKEND
from mindyolo_ext.models.registry import families

if TYPE_CHECKING:
    from tensor_sizes import Held

CONFIGS = ROOT / "configs"
FEWEST_PREDICTIONS = 200  # a box's own row has five numbers


@dataclass(frozen=True)
class Case:
    """A recipe of a family.

    Args:
        recipe: below configs/.
        boxes: M, as training pads.
        side, white, batches: of the measured steps: pixels, value of a white pixel, the batches.
        peer: further arguments of the original's step.
    """

    recipe: str
    boxes: int
    side: int
    white: float
    batches: tuple[int, int]
    peer: tuple[tuple[str, int], ...] = ()

    @property
    def family(self) -> str:
        """Name of the folder."""
        return self.recipe.partition("/")[0]


CASES = (
    Case("yolo_fastestv2/yolo-fastestv2.yaml", 96, 352, 1.0, (8, 16)),
    Case("yolox/yolox-tiny.yaml", 120, 416, 255.0, (4, 8)),
    Case("yolox/yolox-s.yaml", 120, 640, 255.0, (2, 4)),
    Case("gold_yolo/gold_yolo-n.yaml", 160, 640, 1.0, (2, 4)),
    Case("gold_yolo/gold_yolo-s.yaml", 160, 640, 1.0, (2, 4)),
    Case("dynamicdet/dy-yolov7-step1.yaml", 120, 640, 1.0, (1, 2), (("size", 640),)),
    Case("dynamicdet/dy-yolov7-w6-step1.yaml", 120, 640, 1.0, (1, 2), (("size", 1280),)),
    Case("simple_yolo/simple-yolo-resnet18.yaml", 120, 416, 1.0, (4, 8)),
    Case("simple_yolo/simple-yolo-resnet18-all-grid.yaml", 120, 416, 1.0, (4, 8)),
)


def main() -> None:
    """Print the requested table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("shapes", "steps"))
    parser.add_argument("--case", default="", help="only recipes with this text in their names")
    parser.add_argument("--torch-python", help="a Python with PyTorch, NumPy and OpenCV")
    parser.add_argument("--threads", type=int, default=1)
    for name, record in families().items():
        clone = f"a clone of {record.repository}, unchanged"
        parser.add_argument(f"--{name.replace('_', '-')}-repo", type=Path, help=clone)
    options = parser.parse_args()
    logging.basicConfig(level="WARNING", stream=sys.stderr)
    cases = [case for case in CASES if options.case in case.recipe]
    if options.table == "shapes":
        print_shapes(cases)
    else:
        print_steps(cases, options)


def print_shapes(cases: list[Case]) -> None:
    """A row for each recipe."""
    import tensor_sizes

    from mindyolo_ext.backend import launch, recompute

    launch.start("CPU", seed=0)
    print(
        "| recipe | B, M, A | a tensor of all pairs | largest of pairs held | largest held | loss "
        "| network and loss | with `recompute` |\n|---|---|---|---|---|---|---|---|"
    )
    for case in cases:
        trainable, size, batch, boxes = tensor_sizes.of_recipe(
            str(CONFIGS / case.recipe), [f"data.max_boxes={case.boxes}"]
        )
        loss = tensor_sizes.held(trainable, size, batch, boxes)
        whole = tensor_sizes.held_by_step(trainable, size, batch, boxes)
        recompute.apply(trainable.model)
        again = tensor_sizes.held_by_step(trainable, size, batch, boxes)
        pairs, predictions = pairs_of(loss, boxes)
        cells = (
            Path(case.recipe).stem,
            f"{batch}, {boxes}, {predictions or '-'}",
            _megabytes(batch * boxes * predictions * 4),
            _megabytes(pairs),
            f"{_megabytes(loss.largest_bytes())} {loss.largest()[0][1]}",
            _megabytes(loss.peak),
            _megabytes(whole.peak),
            _megabytes(again.peak),
        )
        print(f"| {' | '.join(cells)} |", flush=True)


def pairs_of(loss: "Held", boxes: int) -> tuple[int, int]:
    """Bytes of the largest tensor that pairs boxes with predictions, and A; 0 if there is none."""
    rows = [
        row
        for row in loss.largest()
        if len(row[1]) == 3 and row[1][1] == boxes and row[1][2] >= FEWEST_PREDICTIONS
    ]
    often: Counter[int] = Counter()
    for _, shape, _, _, count in rows:
        often[shape[2]] += count
    # the search for the largest pads its rows, in a few tensors
    predictions = max((number for number, count in often.items() if count >= 5), default=0)
    return max((row[0] for row in rows), default=0), predictions


def _megabytes(count: int) -> str:
    """A number of bytes in readable form."""
    return f"{count / 1e6:,.0f} MB" if count else "-"


def print_steps(cases: list[Case], options: argparse.Namespace) -> None:
    """A row for each recipe: ours without and with ``recompute``, and the original."""
    options.clones = {name: vars(options)[f"{name}_repo"] for name in families()}
    options.shared, options.repeats = Path(), 1
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    print(
        f"| recipe, size | measured batches | ours on {BACKEND} | with `recompute` | original "
        f"| at the recipe's batch |\n|---|---|---|---|---|---|"
    )
    for case in cases:
        found = {
            kind: [_measured(case, batch, kind, options) for batch in case.batches]
            for kind in ("ours", "again", "original")
        }
        batch = _recipe_batch(case)
        at_batch = ", ".join(f"{_line(case.batches, pair, batch):.1f}" for pair in found.values())
        cells = [", ".join(f"{value:.2f}" for value in pair) + " GB" for pair in found.values()]
        print(
            f"| {Path(case.recipe).stem}, {case.side} | {case.batches[0]}, {case.batches[1]} | "
            f"{' | '.join(cells)} | {batch}: {at_batch} GB |",
            flush=True,
        )


def _recipe_batch(case: Case) -> int:
    """Images per rank."""
    from mindyolo_ext.config import load_config

    return load_config(str(CONFIGS / case.recipe)).train.per_batch_size


def _line(batches: tuple[int, int], values: list[float], wanted: int) -> float:
    """The value at ``wanted`` of the line through two points."""
    slope = (values[1] - values[0]) / (batches[1] - batches[0])
    return values[0] + slope * (wanted - batches[0])


def _measured(case: Case, batch: int, kind: str, options: argparse.Namespace) -> float:
    """The peak memory, in GB, of a fresh process that made two steps."""
    recipe = str(CONFIGS / case.recipe)
    training = Training(recipe, batch, case.side, case.white, case.boxes, peer=dict(case.peer))
    with (
        tempfile.TemporaryDirectory(prefix="benchmark_") as folder,
        contextlib.ExitStack() as stack,
    ):
        bench = Bench(options, Path(folder), stack)
        ours = bench.ours()
        weights = ours("make_weights", folder=folder, recipe=recipe)
        arrays = made_up_batch(Path(folder) / "batch.npz", replace(training))
        bench.close_workers()
        common = {"task": "step", "batch": arrays, "rate": RATE}
        if kind == "original":
            worker = bench.theirs(case.family)
            worker("train_step", weights=weights, **common, **training.peer)
        else:
            worker = bench.ours()
            again, checkpoint = kind == "again", weights["checkpoint"]
            worker(
                "train_step",
                recipe=recipe,
                checkpoint=checkpoint,
                computes_again=again,
                **common,
            )
        worker("measure", task="step", count=1)
        return worker("most_memory")


if __name__ == "__main__":
    main()

"""Do both programs take the same steps on the same batches?

    MINDYOLO_EXT_BACKEND=torch python benchmarks/truth_same_batches.py --repo Yolo-FastestV2 \\
        --data BCCD --start WEIGHTS.pth [--steps 14] [--rate 1e-5] [--results FILE.csv]

The original's network, loss and optimizer, and ours, in one process with PyTorch: both get our
loader's augmented batches, and train from the same weights with the original's settings
(momentum 0.949, decay 5e-4). Prints the losses of every step and their largest relative difference,
and how far apart weights, and the running statistics that evaluation uses, are in the end.
"""

import argparse
import csv
import io
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import original_yolo_fastestv2
import torch
from tabulate import tabulate
from training_truth import make_start
from truth_families import FAMILIES, Task
from truth_steps import batches, our_training

from mindyolo_ext.atomic import write_text
from mindyolo_ext.backend.parameters import parameter_groups, parameter_values
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep
from mindyolo_ext.checkpoint.convert import convert
from mindyolo_ext.checkpoint.store import load_checkpoint
from mindyolo_ext.contracts import Model
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.data.types import Batch

FAMILY, SEED = "yolo_fastestv2", 1
MOMENTUM, DECAY = 0.949, 5e-4  # in the original's train.py
EPSILON = 1e-5  # of the batch norms
TERMS = ("total", "box", "object", "class")


def main() -> None:
    """Take the steps and compare them."""
    options = arguments()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        task = Task(
            FAMILY,
            Path(place),
            options.data.resolve(),
            options.start.resolve(),
            epochs=1,
            size=options.size,
            batch=options.per_batch_size,
            every=1,
            rate=options.rate,
            threads=1,
        )
        FAMILIES[FAMILY].lay_out(task)
        make_start(task, SEED)
        ours, loader, model = our_step(task)
        theirs, network = original_step(task, options.repo)
        start = {name: value.copy() for name, value in parameter_values(model).items()}
        for number, batch in zip(range(options.steps), batches(loader)):
            both = np.array([theirs(batch), ours(batch)])
            gap = float((np.abs(both[0] - both[1]) / both[0]).max())
            rows.append([number + 1, *both[0].tolist(), *both[1].tolist(), gap])
        gaps = weight_gaps(Path(place), network, model, start)
    head = ["step", *(f"original_{name}" for name in TERMS), *(f"ours_{name}" for name in TERMS)]
    head.append("largest_relative_difference")
    print(tabulate(rows, head, floatfmt=["", *[".5g"] * 8, ".1e"]))
    for kind, gap in gaps.items():
        print(f"{kind} after the last step: {gap:.1e} apart")
    if options.results:
        text = io.StringIO(newline="")
        shown = [[row[0], *(f"{value:.7g}" for value in row[1:])] for row in rows]
        csv.writer(text).writerows([head, *shown])
        write_text(options.results, text.getvalue())


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repo", type=Path, required=True, help="clone of the original")
    parser.add_argument("--data", type=Path, required=True, help="folder of BCCD")
    parser.add_argument("--start", type=Path, required=True, help="weights of the original")
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--rate", type=float, default=1e-5, help="learning rate")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--per_batch_size", type=int, default=4)
    parser.add_argument("--results", type=Path, help="CSV to write")
    return parser.parse_args()


def our_step(task: Task) -> tuple[Callable[[Batch], np.ndarray], Loader, Model]:
    """Our step, the loader of our augmented batches, and the network."""
    trainable, loader = our_training(task, SEED)
    groups = parameter_groups(trainable, "single", DECAY)
    step = TrainStep(trainable, groups, OptimizerOptions())
    rates = np.full(len(groups), task.rate, np.float32)
    controls = np.array([MOMENTUM, 1.0, 0.0], np.float32)

    def take(batch: Batch) -> np.ndarray:
        report = step(batch.images, batch.targets, batch.mask, rates, controls)
        return np.array([report[0], *report[4:7]], np.float64)

    return take, loader, trainable.model


def original_step(task: Task, repo: Path) -> tuple[Callable[[Batch], np.ndarray], torch.nn.Module]:
    """The step of the original's ``train.py``, and the network."""
    original_yolo_fastestv2.adapt()
    sys.path.insert(0, str(repo.resolve()))
    os.chdir(repo)
    import model.detector
    import utils.loss
    import utils.utils

    network = model.detector.Detector(len(task.names), 3, True).train()
    start = torch.load(task.folder / "start" / f"seed_{SEED}.pth", map_location="cpu")
    network.load_state_dict(start, strict=True)
    settings = utils.utils.load_datafile(str(task.folder / f"seed_{SEED}.data"))
    optimizer = torch.optim.SGD(
        network.parameters(), lr=task.rate, momentum=MOMENTUM, weight_decay=DECAY
    )

    def take(batch: Batch) -> np.ndarray:
        images, rows = torch.from_numpy(batch.images), torch.from_numpy(rows_of(batch))
        found = utils.loss.compute_loss(network(images), rows, settings, torch.device("cpu"))
        found[3].backward()
        optimizer.step()
        optimizer.zero_grad()
        box, objectness, classes, total = (float(value.detach()) for value in found)
        return np.array([total, box, objectness, classes])

    return take, network


def weight_gaps(
    place: Path, network: torch.nn.Module, model: Model, start: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """How far apart the two networks are: weights as a share of their way from ``start`` (of all
    in one), running means and variances in a channel's deviations and variances.
    """
    torch.save(network.state_dict(), place / "theirs.pth")
    convert(place / "theirs.pth", place / "theirs.ckpt", anchors=[1.0] * 12)
    theirs, _ = load_checkpoint(place / "theirs.ckpt")
    ours, gaps = parameter_values(model), {"running means": 0.0, "running variances": 0.0}
    apart = way = 0.0
    for name, value in ours.items():
        gap = np.abs(theirs[name] - value)
        if name.endswith(".moving_mean"):
            spread = np.sqrt(theirs[name.replace("_mean", "_variance")] + EPSILON)
            gaps["running means"] = max(gaps["running means"], float((gap / spread).max()))
        elif name.endswith(".moving_variance"):
            share = float((gap / (theirs[name] + EPSILON)).max())
            gaps["running variances"] = max(gaps["running variances"], share)
        else:
            apart += float(np.square(gap).sum())
            way += float(np.square(theirs[name] - start[name]).sum())
    return {**gaps, "weights": (apart / way) ** 0.5}


def rows_of(batch: Batch) -> np.ndarray:
    """Boxes as the original's loader gives them: (n, 6) image, class, cx, cy, w, h."""
    image, place = np.nonzero(batch.mask)
    boxes = batch.targets[image, place]
    return np.concatenate([image[:, None], boxes], axis=1).astype(np.float32)


if __name__ == "__main__":
    main()

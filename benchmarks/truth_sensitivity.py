"""How far do the first loss and gradient move if the start weights change a little?

    MINDYOLO_EXT_BACKEND=torch python benchmarks/truth_sensitivity.py dynamicdet_w0125 yolox \\
        yolo_fastestv2=WEIGHTS.pth --data BCCD [--results FILE.csv]

Computes the loss of the first training batch with the start weights of ``training_truth.py`` (fresh
ones, or the given weights of the original), and again with weights that were multiplied by random
factors, or rounded to half precision, as some originals do before their first step. Prints how far
the raw heads, the loss and its gradient move, as means over the seeds. Where a change of 1e-5 moves
the gradient far, no two programs can take the same steps for long.
"""

import argparse
import csv
import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate
from training_truth import make_start
from truth_families import FAMILIES, Task
from truth_steps import batches, our_training

from mindyolo_ext.atomic import write_text
from mindyolo_ext.backend import Tensor, launch, nn
from mindyolo_ext.backend.gradients import value_and_grad
from mindyolo_ext.backend.parameters import load_parameters, parameter_values
from mindyolo_ext.contracts import Trainable
from mindyolo_ext.data.types import Batch

CHANGES = ("half", "1e-6", "1e-5", "1e-4")
COLUMNS = ("heads", "loss", "gradient", "cosine")


@dataclass(frozen=True)
class Found:
    """Of one batch: raw heads (N,), loss, gradient (P,)."""

    heads: np.ndarray
    loss: float
    gradient: np.ndarray


class LossAndHeads(nn.Cell):
    """Total loss and raw heads of a trainable."""

    def __init__(self, trainable: Trainable):
        super().__init__(auto_prefix=False)
        self.trainable = trainable

    def construct(self, images, targets, mask):
        """Of a batch; only the loss is differentiated."""
        heads = self.trainable.model(images)
        return self.trainable.loss(heads, targets, mask)[0], heads


def main() -> None:
    """Measure every family, print the means, write all numbers."""
    options = arguments()
    launch.start("CPU", seed=0)
    rows, shown = [], []
    for text in options.families:
        family, _, weights = text.partition("=")
        start = Path(weights).name or "fresh"
        found = measured(family, Path(weights).resolve() if weights else None, options)
        rows += [[family, start, *row] for row in found]
        for change in options.changes:
            values = np.array([row[2:] for row in found if row[0] == change])
            *moved, cosine = values.mean(axis=0)
            numbers = [*(f"{value:.1e}" for value in moved), f"{cosine:.3f}"]
            shown.append([family, start, change, *numbers])
    head = ("family", "start", "change", *COLUMNS)
    print(tabulate(shown, head, tablefmt="github", disable_numparse=True))
    if options.results:
        text = io.StringIO(newline="")
        lines = [[*row[:4], *(f"{value:.4g}" for value in row[4:])] for row in rows]
        csv.writer(text).writerows([[*head[:3], "seed", *COLUMNS], *lines])
        write_text(options.results, text.getvalue())


def measured(family: str, start: Path | None, options: argparse.Namespace) -> list[list]:
    """A row per seed and change: its name, the seed, the columns of the table."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        task = Task(
            family,
            Path(place),
            options.data.resolve(),
            start,
            epochs=100,
            size=options.size,
            batch=options.per_batch_size,
            every=100,
            rate=FAMILIES[family].rate,
            threads=1,
        )
        FAMILIES[family].lay_out(task)
        for seed in options.seeds:
            make_start(task, seed)
            trainable, loader = our_training(task, seed)
            trainable.set_train(True)
            weights = parameter_values(trainable)
            batch = next(batches(loader))
            plain = compute(trainable, weights, batch)
            for change in options.changes:
                found = compute(trainable, changed(trainable, weights, change, seed), batch)
                rows.append([change, seed, *distances(plain, found)])
    return rows


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("families", nargs="+", metavar="FAMILY[=WEIGHTS]", help=", ".join(FAMILIES))
    parser.add_argument("--data", type=Path, required=True, help="folder of BCCD, or one like it")
    parser.add_argument("--changes", nargs="+", default=list(CHANGES), help="half, or a factor's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--per_batch_size", type=int, default=8)
    parser.add_argument("--results", type=Path, help="CSV to write")
    options = parser.parse_args()
    for text in options.families:
        if text.partition("=")[0] not in FAMILIES:
            parser.error(f"{text}: no family; known are {', '.join(FAMILIES)}")
    return options


def changed(
    trainable: Trainable, values: Mapping[str, np.ndarray], change: str, seed: int
) -> dict[str, np.ndarray]:
    """Weights that training updates, rounded or multiplied by factors with the mean 1 and the
    standard deviation ``change``; the others as they are.
    """
    draw = np.random.default_rng(seed)
    weights = dict(values)
    for name, parameter in trainable.parameters_and_names():
        if parameter.requires_grad:
            value = values[name]
            if change == "half":
                weights[name] = value.astype(np.float16).astype(value.dtype)
            else:
                factors = 1 + float(change) * draw.standard_normal(value.shape)
                weights[name] = (value * factors).astype(value.dtype)
    return weights


def compute(trainable: Trainable, weights: Mapping[str, np.ndarray], batch: Batch) -> Found:
    """Loss and gradient of ``batch``, with ``weights``."""
    load_parameters(trainable, weights)
    run = value_and_grad(LossAndHeads(trainable), None, trainable.trainable_params(), has_aux=True)
    (loss, heads), gradients = run(Tensor(batch.images), Tensor(batch.targets), Tensor(batch.mask))
    return Found(flat(heads), float(loss.asnumpy()), flat(gradients))


def flat(values: object) -> np.ndarray:
    """All numbers of tensors in tuples, whatever their arrangement, (N,) float64."""
    if isinstance(values, (tuple, list)):
        return np.concatenate([flat(part) for part in values])
    return values.asnumpy().astype(np.float64).ravel()


def distances(plain: Found, found: Found) -> list[float]:
    """The columns of the table: the largest change of a raw value, in standard deviations of all;
    the relative changes of loss and gradient; the cosine between the gradients.
    """
    own, other = plain.gradient, found.gradient
    length = np.linalg.norm(own)
    return [
        float(np.abs(found.heads - plain.heads).max() / plain.heads.std()),
        abs(found.loss / plain.loss - 1),
        float(np.linalg.norm(other - own) / length),
        float(own @ other / (length * np.linalg.norm(other))),
    ]


if __name__ == "__main__":
    main()

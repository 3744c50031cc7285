"""Do whole trainings end where the original's end?

    python benchmarks/training_truth.py yolo_fastestv2 --seeds 1 2 3 --torch-python PYTHON \\
        --repo CLONE --data BCCD [--start WEIGHTS.pth] [--epochs 31] [--save_dir DIR] \\
        [--backend mindspore=PYTHON]

Trains the original, which stays as it is, and this project from the same weights on the same
images with the same settings, evaluates both every few epochs by one program, and writes curves
(picture and CSV) and a table with mean, standard deviation and a test of the difference. What is
finished is kept: the same command goes on where another one was interrupted.
"""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats
from tabulate import tabulate
from truth_families import FAMILIES, Task

from mindyolo_ext.atomic import write_text
from mindyolo_ext.backend import launch
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.convert import convert, export_torch
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.cli.evaluate import load_for_test
from mindyolo_ext.config import Config, load_config
from mindyolo_ext.engine.build import split_dataset, start_from
from mindyolo_ext.engine.evaluate import evaluate
from mindyolo_ext.models.registry import create_model

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FIRST = ("original", "ours")  # the other sides are further backends
COLORS = ("tab:orange", "tab:blue", "tab:green")
METRICS = ("AP", "AP50")


def main() -> None:
    """Train, evaluate, compare."""
    options = arguments()
    task = Task(
        options.family,
        options.save_dir or Path("runs", "truth", options.family),
        options.data,
        options.start,
        options.epochs,
        options.size,
        options.per_batch_size,
        options.every,
        FAMILIES[options.family].rate if options.rate is None else options.rate,
        options.threads,
        options.falling_rate,
        tuple(options.set),
        tuple(tuple(text.split("=", 1)) for text in options.backend),
    )
    sides = options.sides or task.sides
    keep_settings(task)
    launch.start("CPU", seed=0)
    FAMILIES[task.family].lay_out(task)
    for seed in options.seeds:
        make_start(task, seed)
        for side in sides:
            if not (task.place(side, seed) / "finished").is_file():
                print(f"{side}, seed {seed}: training", flush=True)
                train(task, side, seed, options)
    rows = []
    for seed in options.seeds:
        for side in sides:
            rows += curve(task, side, seed)
    results = options.results or task.folder
    write_csv(results / f"truth_{task.family}.csv", rows)
    text = report(task, rows, options.seeds)
    write_text(results / f"truth_{task.family}.md", text)
    draw(results / f"truth_{task.family}.png", rows, task)
    print(text)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("family", choices=list(FAMILIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--torch-python", type=Path, required=True, help="of the original")
    parser.add_argument("--repo", type=Path, required=True, help="clone of the original")
    parser.add_argument("--data", type=Path, required=True, help="folder of BCCD")
    parser.add_argument("--start", type=Path, help="weights of the original (default: fresh ones)")
    parser.add_argument("--epochs", type=int, default=31)
    parser.add_argument("--size", type=int, default=128, help="side of the input, pixels")
    parser.add_argument("--per_batch_size", type=int, default=16)
    parser.add_argument("--rate", type=float, help="learning rate (default: the family's)")
    parser.add_argument(
        "--falling_rate",
        action="store_true",
        help="Yolo-FastestV2: a tenth of the rate for the last quarter",
    )
    parser.add_argument("--every", type=int, default=10, help="epochs between evaluations")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sides", nargs="+", help="train only these (default: all)")
    parser.add_argument(
        "--backend",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="train ours on this backend too",
    )
    parser.add_argument("--set", action="append", default=[], help="a setting of our training")
    parser.add_argument("--save_dir", type=Path)
    parser.add_argument("--results", type=Path, help="folder of CSV, table and picture")
    return parser.parse_args()


def keep_settings(task: Task) -> None:
    """Note what the folder's runs were made with. Raises: SystemExit if that was something else."""
    settings = {
        name: str(value)
        for name, value in vars(task).items()
        if name not in ("folder", "data", "pythons", "threads")
    }
    file = task.folder / "settings.json"
    if not file.is_file():
        write_text(file, json.dumps(settings, indent=1))
    found = json.loads(file.read_text(encoding="utf-8"))
    other = [
        f"{key} {found.get(key)}, not {value}"
        for key, value in settings.items()
        if found.get(key) != value
    ]
    if other:
        raise SystemExit(
            f"{task.folder}: holds runs with {'; '.join(other)}; take another --save_dir"
        )


# ---- what both get -------------------------------------------------------------------------------


def make_start(task: Task, seed: int) -> None:
    """The weights that both sides of a seed start from, in both formats."""
    own = task.folder / "start" / f"seed_{seed}.ckpt"
    if own.with_suffix(".pth").is_file():
        return
    launch.set_seed(seed)
    family = FAMILIES[task.family]
    model = create_model(family.model, num_classes=len(task.names), **family.keywords(task))
    if task.start is not None:
        given = own.with_name("given.ckpt")
        convert(task.start, given)
        start_from(model, given)
    spec = replace(model.input_spec, size=(task.size, task.size))
    metadata = CheckpointMetadata(
        family.model, len(task.names), task.names, spec, dict(model.architecture)
    )
    save_checkpoint(own, parameter_values(model), metadata)
    export_torch(own, own.with_suffix(".pth"), wrap=family.entry)


@contextmanager
def plain_place(folder: Path) -> Iterator[Path]:
    """``folder`` under a name without a dot: the original cuts paths at the first one."""
    with tempfile.TemporaryDirectory() as place:
        link = Path(place, "truth")
        link.symlink_to(folder.resolve())
        yield link


# ---- trainings -----------------------------------------------------------------------------------


def train(task: Task, side: str, seed: int, options: argparse.Namespace) -> None:
    """Run one training to its end. Raises: SystemExit with the end of its log if it fails."""
    folder = task.place(side, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with plain_place(task.folder) as place:
        command = (
            original_command(task, place, seed, options)
            if side == "original"
            else our_command(task, place, side, seed)
        )
        environment = {**os.environ, "OMP_NUM_THREADS": str(task.threads)}
        environment["PYTHONPATH"] = str(HERE if side == "original" else ROOT)
        if side not in FIRST:
            environment["MINDYOLO_EXT_BACKEND"] = side
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            done = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False
            )
    if done.returncode:
        tail = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-2000:]
        raise SystemExit(f"{side}, seed {seed}: exit status {done.returncode}\n{tail}")
    (folder / "finished").touch()


def original_command(task: Task, place: Path, seed: int, options: argparse.Namespace) -> list[str]:
    """The original's training."""
    folder = task.place("original", seed).resolve()
    job = {
        "folder": str(folder),
        "every": task.every,
        "epochs": task.epochs,
        "workers": 0,
        "threads": task.threads,
        "seed": seed,
        **FAMILIES[task.family].job(task, place, seed),
    }
    write_text(folder / "job.json", json.dumps(job, indent=1))
    program = [
        str(HERE / "truth_theirs.py"),
        FAMILIES[task.family].program,
        str(options.repo.resolve()),
    ]
    return [str(options.torch_python), *program, str(folder / "job.json")]


def our_command(task: Task, place: Path, side: str, seed: int) -> list[str]:
    """Our training of the shipped recipe with the original's settings; goes on where it ended."""
    family, run = FAMILIES[task.family], task.place(side, seed) / "run"
    resume = ["--resume"] if (run / "weights" / "last.ckpt").is_file() else []
    texts = [
        *family.settings(task, place, seed),
        f"train.seed={seed}",
        f"train.weight={place}/start/seed_{seed}.ckpt",
        f"train.eval_interval={task.every}",
        "data.workers=0",
        *task.ours,
    ]
    return [
        *(dict(task.pythons).get(side, sys.executable), str(ROOT / "train.py")),
        *("--config", family.recipe, "--save_dir", str(run), "--device_target", "CPU"),
        *(part for text in texts for part in ("--set", text)),
        *resume,
    ]


# ---- evaluation ----------------------------------------------------------------------------------


def curve(task: Task, side: str, seed: int) -> list[dict]:
    """A row per evaluated epoch: metrics in percent, mean losses of the epochs since."""
    folder = task.place(side, seed)
    if side != "original":
        with (folder / "run" / "results.csv").open(encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        found = {int(row["epoch"]) + 1: row for row in table if row.get("AP")}
        values = {e: {m: 100 * float(found[e][m]) for m in METRICS} for e in task.evaluated}
        losses = {int(row["epoch"]) + 1: float(row["loss"]) for row in table}
    else:
        values = {epoch: original_metrics(task, folder, seed, epoch) for epoch in task.evaluated}
        losses = original_losses(folder, task.epochs)
    rows = []
    for epoch in task.evaluated:
        mean = np.mean([losses[e] for e in range(max(1, epoch - task.every + 1), epoch + 1)])
        row = {"side": side, "seed": seed, "epoch": epoch, "loss": float(mean)}
        rows.append({**row, **values[epoch]})
    return rows


def original_losses(folder: Path, epochs: int) -> dict[int, float]:
    """Mean total loss of each epoch."""
    with (folder / "losses.csv").open(encoding="utf-8") as file:
        totals = np.array([float(row["total"]) for row in csv.DictReader(file)])
    return {epoch + 1: float(its.mean()) for epoch, its in enumerate(np.split(totals, epochs))}


def original_metrics(task: Task, folder: Path, seed: int, epoch: int) -> dict[str, float]:
    """COCO's metrics of the original's weights after ``epoch`` epochs; kept beside them."""
    kept = folder / f"epoch_{epoch:03d}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    weights = folder / f"epoch_{epoch:03d}.pth"
    family = FAMILIES[task.family]
    names = task.folder / "names.txt"
    write_text(names, "\n".join(task.names) + "\n")
    convert(weights, weights.with_suffix(".ckpt"), names=names, **family.conversion(task))
    with plain_place(task.folder) as place:
        texts = [*family.settings(task, place, seed), *task.ours]
        found = metrics_of(weights.with_suffix(".ckpt"), load_config(family.recipe, texts))
    write_text(kept, json.dumps(found))
    return found


def metrics_of(checkpoint: Path, config: Config) -> dict[str, float]:
    """COCO's metrics of a checkpoint in percent, as ``test.py`` measures them."""
    loaded = load_for_test(checkpoint, config, split_dataset(config, "val"), split="val")
    result = evaluate(
        loaded.predictor, loaded.dataset, config.eval, workers=0, class_names=loaded.class_names
    )
    return {name: 100 * result.values()[name] for name in METRICS}


# ---- results -------------------------------------------------------------------------------------


def write_csv(path: Path, rows: Sequence[dict]) -> None:
    """The curves, a row per side, seed and epoch."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(
        {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    )
    write_text(path, text.getvalue())


def picked(rows: Sequence[dict], side: str, epoch: int, name: str) -> np.ndarray:
    """The values of all seeds."""
    return np.array([r[name] for r in rows if (r["side"], r["epoch"]) == (side, epoch)])


def report(task: Task, rows: Sequence[dict], seeds: Sequence[int]) -> str:
    """Mean, standard deviation and Welch's t-test of the two sides, by epoch."""
    others = [side for side in task.sides[1:] if any(row["side"] == side for row in rows)]
    lines = []
    for epoch in task.evaluated:
        for name in (*METRICS, "loss"):
            first = picked(rows, "original", epoch, name)
            for side in others:
                values = picked(rows, side, epoch, name)
                if min(len(first), len(values)) > 1:
                    lines.append((epoch, name, side, *compared(first, values)))
    columns = ("epochs", "", "beside", "original", "here", "difference", "95 %", "p (Welch)")
    head = (
        f"{task.family}, {task.size} x {task.size}, batch {task.batch}, rate {task.rate:g}, "
        f"{'given' if task.start else 'fresh'} start weights, seeds {', '.join(map(str, seeds))}"
        + (f"; ours with {', '.join(task.ours)}" if task.ours else "")
    )
    table = tabulate(lines, columns, tablefmt="github", disable_numparse=True)
    return f"{head}\n\n{table}\n"


def compared(first: np.ndarray, second: np.ndarray) -> tuple[str, ...]:
    """Mean and deviation of both, their difference, its 95 % interval and p by Welch's test."""
    spread = [f"{its.mean():.2f} +- {its.std(ddof=1):.2f}" for its in (first, second)]
    found = stats.ttest_ind(second, first, equal_var=False)
    low, high = found.confidence_interval()
    between = f"{low:+.2f} to {high:+.2f}"
    return *spread, f"{second.mean() - first.mean():+.2f}", between, f"{found.pvalue:.3f}"


def draw(path: Path, rows: Sequence[dict], task: Task) -> None:
    """Mean and band of both sides over the epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4))
    for axis, name in zip(axes, (*METRICS, "loss")):
        for side, color in zip(task.sides, COLORS):
            found = [picked(rows, side, epoch, name) for epoch in task.evaluated]
            if min(map(len, found)) == 0:
                continue
            mean = np.array([its.mean() for its in found])
            spread = np.array([its.std(ddof=1) if len(its) > 1 else 0.0 for its in found])
            axis.plot(task.evaluated, mean, color=color, label=side, marker="o")
            axis.fill_between(task.evaluated, mean - spread, mean + spread, color=color, alpha=0.2)
        axis.set_title(name if name == "loss" else f"{name}, %")
        axis.set_xlabel("epochs")
        axis.legend()
    figure.suptitle(f"{task.family}: mean and standard deviation over the seeds")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    main()

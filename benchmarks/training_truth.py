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
from tabulate import tabulate
from truth_families import FAMILIES, Task, convert_named
from truth_summary import compared, picked

from mindyolo_ext.atomic import write_text
from mindyolo_ext.backend import launch
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.convert import convert, export_torch
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.config import load_config
from mindyolo_ext.engine.build import split_dataset, start_from
from mindyolo_ext.engine.evaluate_file import load_for_test
from mindyolo_ext.models.registry import create_model

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FIRST = ("original", "ours")  # the other sides are further backends
COLORS = ("tab:orange", "tab:blue", "tab:green")


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
        options.epochs if FAMILIES[options.family].only_result else options.every,
        FAMILIES[options.family].rate if options.rate is None else options.rate,
        options.threads,
        options.falling_rate,
        tuple(options.set),
        tuple(tuple(text.split("=", 1)) for text in options.backend),
        options.teacher,
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
    rows, further = [], []
    for seed in options.seeds:
        for side in sides:
            rows += curve(task, side, seed)
            further += further_rows(task, side, seed)
    results = options.results or task.folder
    write_csv(results / f"truth_{task.family}.csv", rows)
    if further:
        write_csv(results / f"truth_{task.family}_tradeoff.csv", further)
    text = report(task, rows, options.seeds)
    if further and "original" in sides:
        text += "\n" + compare_thresholds(task, further, options)
    write_text(results / f"truth_{task.family}.md", text)
    draw(results / f"truth_{task.family}.png", rows, further, task)
    print(text)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("family", choices=list(FAMILIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--torch-python", type=Path, required=True, help="of the original")
    parser.add_argument("--repo", type=Path, required=True, help="clone of the original")
    parser.add_argument("--data", type=Path, required=True, help="folder of BCCD, or one like it")
    parser.add_argument("--start", type=Path, help="weights of the original (default: fresh ones)")
    parser.add_argument("--teacher", type=Path, help="gold_yolo_n_step2: weights of step 1")
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
    """Run one training to its end. Raises: as ``run_logged``."""
    folder = task.place(side, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with plain_place(task.folder) as place:
        command = (
            original_command(task, place, seed, options)
            if side == "original"
            else our_command(task, place, side, seed)
        )
        run_logged(command, folder, side, task)
    (folder / "finished").touch()


def run_logged(command: Sequence[str], folder: Path, side: str, task: Task) -> None:
    """Run a program of ``side``. Raises: SystemExit with the end of its log if it fails."""
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
        raise SystemExit(f"{folder}: exit status {done.returncode}\n{tail}")


def original_command(task: Task, place: Path, seed: int, options: argparse.Namespace) -> list[str]:
    """The original's training."""
    family = FAMILIES[task.family]
    job = {"folder": task.place("original", seed), "seed": seed, **family.job(task, place, seed)}
    return theirs(family.program, job, task, options)


def theirs(program: str, job: dict, task: Task, options: argparse.Namespace) -> list[str]:
    """A command of ``truth_theirs.py``, whose job lies in the job's folder."""
    folder = Path(job["folder"]).resolve()
    common = {"every": task.every, "epochs": task.epochs, "workers": 0, "threads": task.threads}
    write_text(folder / "job.json", json.dumps({**common, **job, "folder": str(folder)}, indent=1))
    own = [str(HERE / "truth_theirs.py"), program, str(options.repo.resolve())]
    return [str(options.torch_python), *own, str(folder / "job.json")]


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
    """A row per epoch: its mean losses, and metrics in percent if it was evaluated, else None."""
    folder, family = task.place(side, seed), FAMILIES[task.family]
    if side == "original":
        losses = original_losses(folder, task)
    else:
        with (folder / "run" / "results.csv").open(encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        losses = {"loss": [float(row["loss"]) for row in table]}
        for name, _, _, columns in family.terms:
            losses[name] = [sum(float(row[column]) for column in columns) for row in table]
    if side == "original" or family.only_result:
        values = {epoch: measured(task, side, seed, epoch)[0] for epoch in task.evaluated}
    else:
        found = {int(row["epoch"]) + 1: row for row in table if row.get("AP")}
        values = {e: {m: 100 * float(found[e][m]) for m in family.metrics} for e in task.evaluated}
    rows = []
    for epoch in range(1, task.epochs + 1):
        means = {name: its[epoch - 1] for name, its in losses.items()}
        metrics = values.get(epoch, dict.fromkeys(family.metrics))
        rows.append({"side": side, "seed": seed, "epoch": epoch, **metrics, **means})
    return rows


def further_rows(task: Task, side: str, seed: int) -> list[dict]:
    """What the family measures of a result beside its metrics: its accuracy over speed."""
    if not FAMILIES[task.family].only_result:
        return []
    _, rows = measured(task, side, seed, task.epochs)
    names = ("easy", "threshold", "AP", "AP50")
    return [{"side": side, "seed": seed, **{name: row[name] for name in names}} for row in rows]


def original_losses(folder: Path, task: Task) -> dict[str, list[float]]:
    """Mean loss and terms of each epoch, named and weighted as ours."""
    with (folder / "losses.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    columns = [("loss", "total", 1.0), *(term[:3] for term in FAMILIES[task.family].terms)]
    return {
        name: [
            weight * float(its.mean())
            for its in np.split(np.array([float(row[column]) for row in table]), task.epochs)
        ]
        for name, column, weight in columns
    }


def measured(task: Task, side: str, seed: int, epoch: int) -> tuple[dict[str, float], list[dict]]:
    """What the family measures after ``epoch`` epochs, as ``test.py`` does; kept in a file."""
    folder, family = task.place(side, seed), FAMILIES[task.family]
    kept = folder / f"epoch_{epoch:03d}.json"
    if kept.is_file():
        return tuple(json.loads(kept.read_text(encoding="utf-8")))
    checkpoint = folder / "run" / "weights" / "last.ckpt"
    if side == "original":
        weights = folder / f"epoch_{epoch:03d}.pth"
        checkpoint = weights.with_suffix(".ckpt")
        convert_named(task, weights, checkpoint)
    with plain_place(task.folder) as place:
        config = load_config(family.recipe, [*family.settings(task, place, seed), *task.ours])
        loaded = load_for_test(checkpoint, config, split_dataset(config, "val"), split="val")
        found = family.measure(loaded, config)
    write_text(kept, json.dumps(found))
    return found


def compare_thresholds(task: Task, rows: Sequence[dict], options: argparse.Namespace) -> str:
    """Ours beside those that the original's own program finds for its results: how far apart."""
    family, largest = FAMILIES[task.family], 0.0
    for seed in options.seeds:
        folder = task.place("original", seed) / "thresholds"
        folder.mkdir(exist_ok=True)
        kept = folder / "thresholds.json"
        if not kept.is_file():
            with plain_place(task.folder) as place:
                job = {**family.job(task, place, seed), "folder": folder, "seed": seed}
                job["weights"] = str(folder.parent.resolve() / f"epoch_{task.epochs:03d}.pth")
                run_logged(theirs(family.thresholds, job, task, options), folder, "original", task)
        found = np.array(json.loads(kept.read_text(encoding="utf-8")))
        ours = [r["threshold"] for r in rows if (r["side"], r["seed"]) == ("original", seed)]
        largest = max(largest, float(np.abs(found - ours).max()))
    return (
        "Thresholds of the original's own program for the original's results: those found here "
        f"differ by at most {largest:.1e}\n"
    )


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


def report(task: Task, rows: Sequence[dict], seeds: Sequence[int]) -> str:
    """Mean, standard deviation and Welch's t-test of the two sides, by epoch."""
    others = [side for side in task.sides[1:] if any(row["side"] == side for row in rows)]
    lines = []
    for epoch in task.evaluated:
        for name in compared_names(task):
            since = 1 if name in FAMILIES[task.family].metrics else task.every
            first = picked(rows, "original", epoch, name, since=since)
            for side in others:
                values = picked(rows, side, epoch, name, since=since)
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


def compared_names(task: Task) -> list[str]:
    """Columns of numbers: metrics, the loss and its terms."""
    family = FAMILIES[task.family]
    return [*family.metrics, "loss", *(term[0] for term in family.terms)]


def draw(path: Path, rows: Sequence[dict], further: Sequence[dict], task: Task) -> None:
    """Mean and band of all sides: over the epochs, or over the share of easy images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    table, along, label = rows, "epoch", "epochs"
    names = compared_names(task)
    if further:
        table = [
            {**row, "easy": 10 * round(10 * row["easy"])}
            | {name: 100 * row[name] for name in ("AP", "AP50")}
            for row in further
        ]
        along, label, names = "easy", "easy images, %", ["AP", "AP50", "threshold"]
    figure, axes = pyplot.subplots(-(-len(names) // 3), 3, figsize=(13, 3.6 * -(-len(names) // 3)))
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names):
        for side, color in zip(task.sides, COLORS):
            found: dict[float, list[float]] = {}
            for row in table:
                if row["side"] == side and row[name] is not None:
                    found.setdefault(row[along], []).append(row[name])
            places = sorted(found)
            mean = np.array([np.mean(found[place]) for place in places])
            spread = np.array(
                [np.std(found[p], ddof=1) if len(found[p]) > 1 else 0.0 for p in places]
            )
            marker = "o" if len(places) < 15 else ""
            axis.plot(places, mean, color=color, label=side, marker=marker)
            axis.fill_between(places, mean - spread, mean + spread, color=color, alpha=0.2)
        axis.set_title(f"{name}, %" if name.startswith("AP") else name)
        axis.set_xlabel(label)
        axis.legend()
    figure.suptitle(f"{task.family}: mean and standard deviation over the seeds")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    with Image.open(path) as picture:  # a palette is a third of the size
        small = picture.convert("RGB").quantize(96, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main()

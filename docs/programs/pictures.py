"""Draw the pictures of the docs: ``python docs/programs/pictures.py [NAME ...]``.

Curves and the confusion matrix come from tables in ``docs/programs/runs``; the other pictures are
computed, and need more:

    python docs/programs/pictures.py --bccd BCCD --weight yolox_nano.ckpt

``BCCD`` is the folder of the blood cells (Shenggan/BCCD_Dataset, MIT), and ``yolox_nano.ckpt`` the
converted COCO weights. ``parity.jpg`` has a program of its own, parity.py.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from style import COLORS, FONT, MARKERS, panels, save, title

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "images"
RUNS = HERE / "runs"
ASSIGNED = 30  # index in BCCD's val split of the photo whose assignment is drawn


def read(name: str) -> dict[str, np.ndarray]:
    """Columns of a table of a run by name, NaN where a cell is empty."""
    lines = (RUNS / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    return {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0]}


def lines(axes: Any, columns: dict[str, np.ndarray], names: dict[str, str], head: str) -> None:
    """A line per column, named as ``names`` says, over epochs that count from 1."""
    for (column, name), color, marker in zip(names.items(), COLORS, MARKERS):
        there = np.isfinite(columns[column])
        epochs, values = columns["epoch"][there] + 1, columns[column][there]
        step = max(1, len(epochs) // 12)
        axes.plot(epochs, values, color=color, marker=marker, markevery=step, label=name)
    title(axes, head)
    axes.set_xlabel("epoch", fontsize=FONT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(names) > 1:
        axes.legend(fontsize=FONT - 2)


# ---- from tables ---------------------------------------------------------------------------------


def yolox_bccd(_: argparse.Namespace) -> None:
    """Loss, its terms and accuracy of fine-tuning YOLOX-Nano on BCCD."""
    run = read("yolox_bccd")
    accuracy = {"epoch": run["epoch"]} | {k: 100 * run[k] for k in ("AP", "AP50", "AP75")}
    figure, (loss, terms, metrics) = panels(3, 4.6)
    lines(loss, run, {"loss": "loss"}, "Loss")
    names = {"iou": "IoU", "object": "objectness", "class": "class", "l1": "L1"}
    lines(terms, run, names, "Terms of the loss")
    lines(metrics, accuracy, {k: k for k in ("AP50", "AP75", "AP")}, "Accuracy, %")
    save(figure, IMAGES / "yolox_bccd.png")


def simple_yolo_bccd(_: argparse.Namespace) -> None:
    """Loss and AP50 of the three assignments of the simple YOLO."""
    run, kinds = read("simple_yolo_bccd"), ("single_grid", "nearby_grid", "all_grid")
    figure, (loss, accuracy) = panels(2, 5.0)
    lines(loss, run, {f"loss {kind}": kind for kind in kinds}, "Training loss")
    lines(accuracy, run, {f"AP50 {kind}": kind for kind in kinds}, "AP50 on validation images, %")
    save(figure, IMAGES / "simple_yolo_bccd.png")


def gold_yolo_coco128(_: argparse.Namespace) -> None:
    """Losses of both training steps of Gold-YOLO."""
    run = read("gold_yolo_coco128")
    figure, axes = panels(2, 4.4)
    for one, step, what in zip(axes, ("step 1", "step 2"), ("base training", "self-distillation")):
        lines(one, run, {step: "loss"}, f"Loss of {step}, {what}")
    save(figure, IMAGES / "gold_yolo_coco128.png")


def confusion(_: argparse.Namespace) -> None:
    """The confusion matrix of YOLOX-Nano on COCO for the classes with most boxes."""
    text = (RUNS / "confusion.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.reader(line for line in text if not line.startswith("#")))
    names, counts = rows[0][1:], np.array([[int(n) for n in row[1:]] for row in rows[1:]])
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, (axes,) = panels(1, 8.4)
    axes.grid(False)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("share of the row", fontsize=FONT)
    bar.ax.tick_params(labelsize=FONT)
    axes.set_xticks(range(len(names)), names, fontsize=FONT, rotation=35, ha="right")
    axes.set_yticks(range(len(names)), names, fontsize=FONT)
    axes.set_xlabel("detected as", fontsize=FONT)
    axes.set_ylabel("true class", fontsize=FONT)
    for row, column in np.argwhere(counts > 0).tolist():
        color = "white" if share[row, column] > 0.5 else "black"
        place = {"ha": "center", "va": "center", "fontsize": FONT, "color": color}
        axes.text(column, row, str(counts[row, column]), **place)
    save(figure, IMAGES / "confusion.png")


# ---- computed ------------------------------------------------------------------------------------


def recipe(name: str, bccd: str, *overrides: str) -> Any:
    """A shipped recipe for BCCD."""
    from mindyolo_ext.config import load_config

    return load_config(name, overrides=[f"data.root={bccd}", *overrides])


def assigned(config: Any, weight: str | None) -> Any:
    """The assignment of the network of a recipe on one validation photo."""
    from mindyolo_ext.backend import launch
    from mindyolo_ext.backend.compiled import Compiled
    from mindyolo_ext.data.targets import targets_of
    from mindyolo_ext.engine.assign import MatchesAndBoxes
    from mindyolo_ext.engine.build import (
        new_model,
        new_trainable,
        split_dataset,
        start_from,
        training_pipeline,
    )
    from mindyolo_ext.engine.stages import stage_at
    from mindyolo_ext.visual.assignment import AssignedPicture

    launch.set_seed(0)
    data = split_dataset(config, "val")
    model = new_model(config, len(data.class_names))
    if weight:
        start_from(model, weight)  # the class layer stays fresh, as before fine-tuning
    sample = training_pipeline([], model.input_spec, data, seed=0)(ASSIGNED)
    run = Compiled(MatchesAndBoxes(new_trainable(model, stage_at(config, 0)[0], None)))
    rows = targets_of(sample)
    image = model.input_spec.to_tensor(sample.image)[None]
    found = run(image, rows[None], np.ones((1, len(rows)), np.float32))
    matches, predicted = (array[0] for array in found)
    priors = model.priors(*sample.image.shape[:2])
    kept = ~sample.ignore
    picture = (sample.image, sample.boxes[kept], sample.labels[kept], data.class_names)
    return AssignedPicture("", *picture, priors, matches > 0.5, predicted)


def draw_level(axes: Any, picture: Any, stride: int, head: str) -> None:
    """The photo in gray, and on it the cells of a level in the colors of the boxes that they are
    trained on.
    """
    gray = np.repeat(picture.image.mean(axis=2, keepdims=True), 3, axis=2) / 255
    axes.imshow(0.35 + 0.65 * gray)
    seen = np.flatnonzero(picture.image.std(axis=(1, 2)) > 1)  # rows that are not padding
    axes.set_ylim(seen[-1] + 0.5, seen[0] - 0.5)
    level = picture.priors.strides.index(stride)
    cells = picture.priors.cells()
    colors = distinct_colors(picture.boxes)
    for number, (box, matched) in enumerate(zip(picture.boxes, picture.matches)):
        color = colors[number]
        for x1, y1, x2, y2 in np.unique(cells[matched & (picture.priors.level == level)], axis=0):
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, color=color, alpha=0.55, lw=0))
        x1, y1, x2, y2 = box
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=color, lw=3.5))
        style = {"facecolor": color, "edgecolor": "none", "pad": 2}
        above = y2 - y1 < 40 and y1 > 20  # a label would hide a small box
        place = {"va": "bottom" if above else "top", "fontsize": FONT - 4, "bbox": style}
        y = y1 - 3 if above else max(y1, seen[0]) + 3
        axes.text(x1 + 3, y, number + 1, color=ink(color), **place)
    title(axes, head)
    axes.set_axis_off()


def distinct_colors(boxes: np.ndarray) -> list[str]:
    """A color per box (N, 4) that its nearest neighbors do not have."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    colors: list[str] = []
    for number, center in enumerate(centers):
        near = np.argsort(np.linalg.norm(centers[:number] - center, axis=1))[: len(COLORS) - 2]
        taken = {colors[i] for i in near}
        colors.append(next(color for color in COLORS[:-1] if color not in taken))
    return colors


def ink(color: str) -> str:
    """Black or white, whichever is legible on ``color``."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"


def yolox_assignment(options: argparse.Namespace) -> None:
    """SimOTA on a photo of blood cells."""
    picture = assigned(recipe("yolox-nano-bccd", options.bccd), options.weight)
    figure, axes = panels(2, 5.3)
    for one, stride in zip(axes, (8, 16)):
        level = picture.priors.level == picture.priors.strides.index(stride)
        served = int(picture.matches[:, level].any(axis=1).sum())
        head = f"Stride {stride}: predictions for {served} of {len(picture.boxes)} boxes"
        draw_level(one, picture, stride, head)
    save(figure, IMAGES / "yolox_assignment.jpg")


def simple_yolo_assignments(options: argparse.Namespace) -> None:
    """The three assignments of the simple YOLO on the same photo."""
    figure, axes = panels(3, 3.85)
    for one, kind in zip(axes, ("single_grid", "nearby_grid", "all_grid")):
        keywords = f"model.keywords.assignment={kind}"
        config = recipe("simple-yolo-resnet18-bccd", options.bccd, keywords)
        draw_level(one, assigned(config, None), 16, kind)
    save(figure, IMAGES / "simple_yolo_assignments.jpg")


PICTURES: dict[str, Callable[[argparse.Namespace], None]] = {
    function.__name__: function
    for function in (
        yolox_bccd,
        confusion,
        simple_yolo_bccd,
        gold_yolo_coco128,
        yolox_assignment,
        simple_yolo_assignments,
    )
}
NEEDS = {
    "yolox_assignment": ("bccd", "weight"),
    "simple_yolo_assignments": ("bccd",),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the named pictures, or all whose files are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    parser.add_argument("--bccd", help="folder of the blood cells")
    parser.add_argument("--weight", help="converted COCO weights of YOLOX-Nano")
    options = parser.parse_args(arguments)
    for name in options.names or PICTURES:
        if name not in PICTURES:
            parser.error(f"no picture is called {name}; there are {', '.join(PICTURES)}")
        lacking = [f"--{one}" for one in NEEDS.get(name, ()) if getattr(options, one) is None]
        if not lacking:
            PICTURES[name](options)
        elif options.names:
            parser.error(f"{name} needs {' and '.join(lacking)}")


if __name__ == "__main__":
    main()

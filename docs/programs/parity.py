"""Draw the README's picture: one network in its original program and here, on the same photos.

    python docs/programs/parity.py --repo YOLOX --torch_python PYTHON --weights yolox_nano.pth

The original runs in ``PYTHON``, which needs PyTorch, NumPy and OpenCV; the port runs in this Python
with the same file, converted. Both get the same photos and thresholds.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from style import WIDTH

from mindyolo_ext import Detector, convert
from mindyolo_ext.class_names import COCO_NAMES

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "images"
PHOTOS = ("coffee", "cat", "astronaut")
CONFIDENCE, OVERLAP = 0.3, 0.45
COLORS = ("#56B4E9", "#E69F00", "#009E73", "#F0E442")  # the light ones of style.COLORS


def main() -> None:
    """Detect with both programs, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", required=True, help="clone of the original YOLOX")
    parser.add_argument("--torch_python", required=True, help="a Python with PyTorch and OpenCV")
    parser.add_argument("--weights", required=True, help="the original's yolox_nano.pth")
    parser.add_argument("--out", default=str(IMAGES / "parity.jpg"))
    options = parser.parse_args()
    photos = [IMAGES / "photos" / f"{name}.jpg" for name in PHOTOS]
    theirs = original_detections(options, photos)
    ours = own_detections(Path(options.weights), photos)
    difference = largest_differences(theirs, ours)
    draw(photos, theirs, ours, difference, Path(options.out))
    print(f"{options.out}: boxes differ by {difference[0]:.1g} px, scores by {difference[1]:.1g}")


def original_detections(options: argparse.Namespace, photos: list[Path]) -> list[np.ndarray]:
    """Rows (N, 6) x1, y1, x2, y2, score, class per photo, by the original program."""
    job = {
        "repo": str(Path(options.repo).resolve()),
        "weights": str(Path(options.weights).resolve()),
        "photos": [str(photo) for photo in photos],
        "confidence": CONFIDENCE,
        "overlap": OVERLAP,
    }
    command = [options.torch_python, str(HERE / "original_yolox.py"), json.dumps(job)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return [inside_photo(np.array(found[str(photo)]).reshape(-1, 6), photo) for photo in photos]


def inside_photo(rows: np.ndarray, photo: Path) -> np.ndarray:
    """``rows`` with every box cut at the photo's border, as ``Detector`` cuts them."""
    with Image.open(photo) as image:
        width, height = image.size
    rows[:, :4] = np.clip(rows[:, :4], 0, [width, height, width, height])
    return rows


def own_detections(weights: Path, photos: list[Path]) -> list[np.ndarray]:
    """As ``original_detections``, by this project."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "yolox-nano.ckpt")
        convert(weights, checkpoint)
        detector = Detector(checkpoint, conf_thres=CONFIDENCE, iou_thres=OVERLAP)
    found = [detector.predict(photo) for photo in photos]
    return [np.column_stack([one.boxes, one.scores, one.labels]) for one in found]


def largest_differences(theirs: list[np.ndarray], ours: list[np.ndarray]) -> tuple[float, float]:
    """Largest difference of a coordinate, in pixels, and of a score.

    Raises: ValueError if the programs found different objects.
    """
    for one, other in zip(theirs, ours):
        if one[:, 5].tolist() != other[:, 5].tolist():
            raise ValueError(f"the programs found different classes: {one[:, 5]}, {other[:, 5]}")
    gaps = np.concatenate([np.abs(one - other) for one, other in zip(theirs, ours)])
    return float(gaps[:, :4].max()), float(gaps[:, 4].max())


def draw(
    photos: list[Path],
    theirs: list[np.ndarray],
    ours: list[np.ndarray],
    difference: tuple[float, float],
    out: Path,
) -> None:
    """Write the picture: a row of photos per program, and the differences below."""
    images = [np.asarray(Image.open(photo).convert("RGB")) for photo in photos]
    ratios = [image.shape[1] / image.shape[0] for image in images]
    figure = Figure(figsize=(WIDTH, 7.8), layout="constrained")
    grid = figure.subplots(2, len(photos), gridspec_kw={"width_ratios": ratios})
    titles = ("Original: YOLOX-Nano on PyTorch", "mindyolo_ext: the same weights on MindSpore")
    for axes, rows, title in zip(grid, (theirs, ours), titles):
        axes[0].set_title(title, fontsize=19, loc="left", fontweight="bold")
        for one, image, found in zip(axes, images, rows):
            one.imshow(image)
            one.set_axis_off()
            draw_boxes(one, found)
    pixels, score = difference
    figure.supxlabel(
        f"Largest difference: {pixels:.1g} pixels in a box, {score:.6f} in a score", fontsize=19
    )
    figure.savefig(out, dpi=130, pil_kwargs={"quality": 88})


def draw_boxes(axes: Axes, rows: np.ndarray) -> None:
    """Every box with its class and score, best last so that it lies on top."""
    bottom, right = axes.get_ylim()[0], axes.get_xlim()[1]
    for color, (x1, y1, x2, y2, score, label) in reversed(list(zip(COLORS, rows))):
        x1, y1, x2, y2 = max(x1, 3), max(y1, 3), min(x2, right - 4), min(y2, bottom - 4)
        axes.add_patch(
            Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=4)
        )
        axes.text(
            x1 + 4,
            y2 - 4,
            f"{COCO_NAMES[int(label)]} {score:.5f}",
            fontsize=15,
            va="bottom",
            bbox={"facecolor": color, "edgecolor": "none", "pad": 2.5},
        )


if __name__ == "__main__":
    main()

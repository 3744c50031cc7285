"""Generate a small data set of circles, squares and triangles, for demonstrations and tests."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.errors import UsageError
from mindyolo_ext.progress import bar

SHAPE_NAMES = ("circle", "square", "triangle")
_RADIUS = (0.12, 0.28)  # share of the shorter side of the image
_TURN = 0.35  # maximum rotation, radians
_MAX_HIDDEN = 0.35  # maximum share of a shape that others may cover


def make_shapes_dataset(
    folder: str | Path,
    *,
    train_images: int = 400,
    val_images: int = 100,
    size: tuple[int, int] = (240, 320),
    seed: int = 0,
    image_format: str = "jpg",
    progress: bool = True,
) -> Path:
    """Write seeded images with 1 to 4 shapes each and their boxes in three formats.

    The folder then holds ``images/{train,val}``, label files beside the images (darknet) and in
    ``labels`` (YOLO text, ``shapes.yaml``), ``annotations/{train,val}.json`` (COCO), ``train.txt``,
    ``val.txt``, ``shapes.names`` and ``shapes.data``. All paths inside are relative to the folder.
    The same arguments give the same pixels and the same label files.

    Args:
        folder: folder to write to; created if needed.
        train_images, val_images: number of images.
        size: (height, width) of the images.
        seed: seed of the drawings.
        image_format: ``jpg`` or ``png`` (lossless, larger).
        progress: show a progress bar.

    Raises: UsageError for another format, a count below 0 or a side below 64 pixels.
    """
    if image_format not in ("jpg", "png"):
        raise UsageError(
            f"make_shapes_dataset: image_format must be jpg or png, got {image_format!r}"
        )
    if min(train_images, val_images) < 0 or min(size) < 64:
        raise UsageError(
            "make_shapes_dataset: wanted counts from 0 and sides from 64 pixels, got "
            f"{train_images}, {val_images} and {size}"
        )
    folder = Path(folder)
    for number, (split, count) in enumerate((("train", train_images), ("val", val_images))):
        _write_split(
            folder,
            split,
            range(count),
            seed=(seed, number),
            size=size,
            image_format=image_format,
            progress=progress,
        )
    (folder / "shapes.names").write_text("\n".join(SHAPE_NAMES) + "\n", encoding="utf-8")
    (folder / "shapes.yaml").write_text(
        "train: images/train\nval: images/val\nnames:\n"
        + "".join(f"  {label}: {name}\n" for label, name in enumerate(SHAPE_NAMES)),
        encoding="utf-8",
    )
    (folder / "shapes.data").write_text(
        "[name]\nmodel_name=shapes\n\n[train-configure]\nepochs=30\nsteps=20,26\nbatch_size=16\nsubdivisions=1\n"
        "learning_rate=0.001\n\n[model-configure]\npre_weights=None\nclasses=3\nwidth=352\nheight=352\nanchor_num=3\n"
        "anchors=12.64,19.39, 37.88,51.48, 55.71,138.31, 126.91,78.23, 131.57,214.55, "
        "279.92,258.87\n\n"
        "[data-configure]\ntrain=train.txt\nval=val.txt\nnames=shapes.names\n",
        encoding="utf-8",
    )
    return folder


def draw_shapes(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw an image of 1 to 4 shapes on a noisy, textured background.

    Args:
        rng: random numbers.
        size: (height, width).

    Returns: image uint8 BGR (height, width, 3), boxes (N, 4) float32 xyxy of the whole shapes
        (including hidden parts), labels (N,) int64 into ``SHAPE_NAMES``.
    """
    image = _background(rng, size)
    wanted = int(rng.integers(1, 5))
    masks: list[np.ndarray] = []
    boxes: list[tuple[int, tuple[int, ...]]] = []  # area and frame of the whole shape
    labels: list[int] = []
    for _ in range(20 * wanted):
        if len(masks) == wanted:
            break
        label = int(rng.integers(len(SHAPE_NAMES)))
        mask = cv2.fillPoly(np.zeros(size, np.uint8), [_outline(rng, label, size)], (255,))
        visible = [earlier & ~mask for earlier in masks]
        whole = [full for full, _ in boxes]
        if any(
            (left > 0).sum() < (1 - _MAX_HIDDEN) * area
            for left, area in zip(visible, whole, strict=True)
        ):
            continue  # would hide another shape
        masks = [*visible, mask]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        frame = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        boxes.append((int((mask > 0).sum()), frame))
        labels.append(label)
        image = _paint(rng, image, mask)
    image = np.clip(image + rng.normal(0, rng.uniform(2, 8), image.shape), 0, 255).astype(np.uint8)
    return (
        image,
        np.array([box for _, box in boxes], np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
    )


def _background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw a gradient of two colors with cloudy texture and a few faint lines, float (height,
    width, 3).
    """
    height, width = size
    y, x = np.mgrid[0:height, 0:width] / max(size)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (x * np.cos(angle) + y * np.sin(angle))[:, :, None]
    ramp = (ramp - ramp.min()) / np.ptp(ramp)
    colors = rng.uniform(40, 215, (2, 3))
    image = colors[0] * (1 - ramp) + colors[1] * ramp
    for cells in (4, 12, 40):  # clouds: noise at three scales
        noise = rng.normal(0, 1, (cells, cells, 1)) + rng.normal(0, 0.4, (cells, cells, 3))
        image = image + cv2.resize(
            noise, (width, height), interpolation=cv2.INTER_CUBIC
        ) * rng.uniform(4, 12)
    image = np.clip(image, 0, 255)
    for _ in range(int(rng.integers(0, 5))):
        ends = rng.uniform(0, 1, (2, 2)) * (width, height)
        shade = image.copy()
        cv2.line(
            shade,
            [int(v) for v in ends[0]],
            [int(v) for v in ends[1]],
            color=rng.uniform(0, 255, 3).tolist(),
            thickness=int(rng.integers(1, 4)),
            lineType=cv2.LINE_AA,
        )
        image = 0.6 * image + 0.4 * shade
    return image


def _outline(rng: np.random.Generator, label: int, size: tuple[int, int]) -> np.ndarray:
    """Return the corners of a slightly rotated shape inside the image, (points, 2) int32."""
    height, width = size
    radius = rng.uniform(*_RADIUS) * min(size)
    if label == 0:
        angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    else:
        sides = 4 if label == 1 else 3
        upright = np.pi / 4 if label == 1 else -np.pi / 2
        angles = upright + rng.uniform(-_TURN, _TURN) + np.arange(sides) * 2 * np.pi / sides
    center = (
        rng.uniform(radius + 1, width - radius - 1),
        rng.uniform(radius + 1, height - radius - 1),
    )
    return np.rint(np.stack([np.cos(angles), np.sin(angles)], 1) * radius + center).astype(np.int32)


def _paint(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Paint the shape of ``mask`` in a color that stands out, shaded, with a darker rim."""
    ground = image[mask > 0].mean(0)
    color = rng.uniform(0, 255, 3)
    while np.abs(color - ground).sum() < 150:
        color = rng.uniform(0, 255, 3)
    height, width = mask.shape
    shade = (
        1
        + rng.uniform(-0.25, 0.25) * np.linspace(-1, 1, width)[None, :, None]
        + rng.uniform(-0.25, 0.25) * np.linspace(-1, 1, height)[:, None, None]
    )
    rim = cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=(0,)) == 0
    fill = color * shade * np.where(rim, 0.7, 1.0)[:, :, None]
    share = cv2.GaussianBlur(mask, (3, 3), 0)[:, :, None] / 255.0  # a soft edge
    return image * (1 - share) + np.clip(fill, 0, 255) * share


def _write_split(
    folder: Path,
    split: str,
    numbers: range,
    *,
    seed: tuple[int, int],
    size: tuple[int, int],
    image_format: str,
    progress: bool,
) -> None:
    """Draw and write the images of one split with all their label files."""
    for name in (f"images/{split}", f"labels/{split}", "annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    height, width = size
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    lines: list[str] = []
    for number in bar(numbers, title=f"drawing {split}", show=progress):
        image, boxes, labels = draw_shapes(np.random.default_rng([*seed, number]), size)
        name = f"{number + 1:06d}.{image_format}"
        write_image(folder / "images" / split / name, image)
        text = []
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            x1, y1, x2, y2 = box
            text.append(
                f"{label} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} "
                f"{(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"
            )
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": number + 1,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
        for place in (f"images/{split}", f"labels/{split}"):
            (folder / place / f"{number + 1:06d}.txt").write_text("".join(text), encoding="utf-8")
        images.append({"id": number + 1, "file_name": name, "height": height, "width": width})
        lines.append(f"images/{split}/{name}\n")
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(SHAPE_NAMES)]
    content = {"images": images, "annotations": rows, "categories": categories}
    (folder / "annotations" / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")

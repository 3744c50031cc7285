"""Draw images with ground truth on the left and detections on the right."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.visual.detections import draw_detections

_TILE = 480  # longer side of an image, pixels
_CAPTION, _GAP = 22, 6


def spread(dataset: Dataset, count: int) -> list[int]:
    """Return the indices of at most ``count`` images with boxes, spread over the data set."""
    with_boxes = np.flatnonzero(dataset.boxes_per_image() > 0)
    if not len(with_boxes):
        with_boxes = np.arange(len(dataset))
    places = np.linspace(0, len(with_boxes) - 1, min(count, len(with_boxes)))
    return [int(with_boxes[place]) for place in np.unique(places.round().astype(int))]


def draw_predictions(
    dataset: Dataset,
    detections: Sequence[np.ndarray],
    path: str | Path,
    *,
    images: Sequence[int],
    title: str,
    least_score: float,
) -> None:
    """Write a sheet of images with ground truth, and with detections of at least ``least_score``,
    two images per row.

    Args:
        detections: per image of the data set (N, 6) x1, y1, x2, y2 in photo pixels, score, class.
        images: indices of the images to draw.
        title: caption of the detections.

    Raises: as ``Dataset.load``; WriteError if the file cannot be written.
    """
    rows = []
    for index in images:
        sample = dataset.load(index)
        keep = ~sample.ignore
        truth = np.column_stack(
            [sample.boxes[keep], np.ones(int(keep.sum())), sample.labels[keep]]
        ).reshape(-1, 6)
        found = detections[index][detections[index][:, 4] >= least_score]
        name = Path(sample.path).name.encode("ascii", "replace").decode()
        tiles = [
            _tile(sample.image, truth, dataset.class_names, f"{name}  truth: {len(truth)}"),
            _tile(sample.image, found, dataset.class_names, f"{title}: {len(found)}", scores=True),
        ]
        rows.append(np.concatenate([_framed(tile) for tile in tiles], axis=1))
    blank = np.full((1, 2 * (_TILE + _GAP), 3), 255, np.uint8)
    pairs = [rows[k : k + 2] for k in range(0, len(rows), 2)]
    lines = []
    for pair in pairs:
        height = max(row.shape[0] for row in pair)
        filled = [_to_height(row, height) for row in (*pair, blank)]
        lines.append(np.concatenate(filled[: min(2, len(rows))], axis=1))
    write_image(path, np.concatenate(lines))


def _to_height(row: np.ndarray, height: int) -> np.ndarray:
    """Pad a row with white at the bottom, up to ``height``."""
    return np.pad(row, ((0, height - row.shape[0]), (0, 0), (0, 0)), constant_values=255)


def _tile(
    image: np.ndarray,
    detections: np.ndarray,
    class_names: Sequence[str],
    caption: str,
    *,
    scores: bool = False,
) -> np.ndarray:
    """Draw one image, scaled to the common longer side, below a caption."""
    height, width = image.shape[:2]
    factor = _TILE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    scaled = detections.astype(np.float32)
    scaled[:, :4] *= factor
    drawn = draw_detections(
        cv2.resize(image, size, interpolation=method), scaled, class_names, show_scores=scores
    )
    strip = np.full((_CAPTION, size[0], 3), 255, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(strip, caption, (2, 15), font, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([strip, drawn])


def _framed(tile: np.ndarray) -> np.ndarray:
    """Pad a tile with white at the right and bottom, up to its full width."""
    missing = _TILE + _GAP - tile.shape[1]
    return np.pad(tile, ((0, _GAP), (0, missing), (0, 0)), constant_values=255)

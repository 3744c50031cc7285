"""Draw a training batch as the network sees it, with its boxes, to check the augmentation."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.data.types import Batch
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.visual.detections import draw_detections

_LARGEST_SIDE = 2400  # of the sheet, pixels
_CAPTION, _GAP = 22, 6


def draw_batch(
    batch: Batch,
    input_spec: InputSpec,
    class_names: Sequence[str],
    path: str | Path | None = None,
    *,
    max_images: int = 16,
) -> np.ndarray:
    """Draw a sheet of the first images of a batch, each with its boxes, classes and file name.

    Args:
        batch: batch of the loader.
        input_spec: input convention of float32 ``batch.images``.
        class_names: name per class index.
        path: file to write; None writes nothing.
        max_images: maximum number of images.

    Shape: -> uint8 BGR (h, w, 3).
    Raises: ValueError for a batch without images.
    """
    count = min(batch.valid, max_images)
    if count < 1:
        raise ValueError(
            f"draw_batch: no images to draw, batch.valid is {batch.valid}, max_images {max_images}"
        )
    columns = int(np.ceil(count**0.5))
    rows = int(np.ceil(count / columns))
    height, width = batch.size
    factor = min(1.0, _LARGEST_SIDE / (max(height * rows, width * columns)))
    tiles = [
        _tile(
            batch, index, input_spec, class_names, (round(height * factor), round(width * factor))
        )
        for index in range(count)
    ]
    tile_height, tile_width = tiles[0].shape[:2]
    sheet = np.full(
        (rows * (tile_height + _GAP) + _GAP, columns * (tile_width + _GAP) + _GAP, 3), 255, np.uint8
    )
    for index, tile in enumerate(tiles):
        top, left = (
            _GAP + k * (side + _GAP)
            for k, side in zip(divmod(index, columns), (tile_height, tile_width))
        )
        sheet[top : top + tile_height, left : left + tile_width] = tile
    if path is not None:
        write_image(path, sheet)
    return sheet


def image_of_tensor(tensor: np.ndarray, input_spec: InputSpec) -> np.ndarray:
    """Return the image of a network input, the inverse of ``InputSpec.to_tensor``.

    Shape: float32 (3, H, W) in the model's convention -> uint8 BGR (H, W, 3).
    """
    mean, std = (
        np.array(values, np.float32)[:, None, None] for values in (input_spec.mean, input_spec.std)
    )
    image = ((tensor * std + mean) / np.float32(input_spec.scale)).transpose(1, 2, 0)
    if input_spec.color == "rgb":
        image = image[:, :, ::-1]
    return np.ascontiguousarray(np.clip(image.round(), 0, 255).astype(np.uint8))


def _tile(
    batch: Batch,
    index: int,
    input_spec: InputSpec,
    class_names: Sequence[str],
    size: tuple[int, int],
) -> np.ndarray:
    """Draw one image of ``size`` (height, width) with its boxes, and its file name above."""
    height, width = size
    image = batch.images[index]
    if image.dtype != np.uint8:
        image = image_of_tensor(image, input_spec)
    if image.shape[:2] != size:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    targets = batch.targets[index][batch.mask[index] > 0]
    half = targets[:, 3:5] / 2
    corners = np.concatenate([targets[:, 1:3] - half, targets[:, 1:3] + half], axis=1) * (
        [width, height] * 2
    )
    rows = np.concatenate([corners, np.ones((len(targets), 1)), targets[:, :1]], axis=1)
    image = draw_detections(image, rows, class_names, show_scores=False)
    strip = np.full((_CAPTION, width, 3), 255, np.uint8)
    noun = "box" if len(targets) == 1 else "boxes"
    name = Path(batch.paths[index]).name.encode("ascii", "replace").decode()
    cv2.putText(
        strip,
        f"{name}  {len(targets)} {noun}",
        (2, 15),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.45,
        (40, 40, 40),
        1,
        cv2.LINE_AA,
    )
    return np.concatenate([strip, image])

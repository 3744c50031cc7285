"""Types of the data between label files and batches. Uses NumPy only."""

from dataclasses import dataclass

import numpy as np

from mindyolo_ext.input_spec import Placement

# Kinds of problems that do not stop training; every other kind does
WARNINGS = (
    "clipped box",
    "doubtful labels",
    "doubtful set",
    "dropped box",
    "duplicate box",
    "far box",
    "left out",
    "listed twice",
    "lost boxes",
    "no label file",
    "odd box",
    "odd size",
    "turned image",
    "two images",
)


@dataclass
class Sample:
    """One image with its boxes.

    Args:
        image: uint8 BGR (h, w, 3).
        boxes: (N, 4) float32 xyxy in pixels of ``image``.
        labels: (N,) int64, contiguous from 0.
        ignore: (N,) bool, crowd or difficult: neither trained on nor counted as missed.
        image_id: the id in ``Dataset.coco_ground_truth``.
        path: the photo's file.
        placement: position of the photo in ``image``, None before the step ``resize``; if an
            earlier step moved the photo, the position of the moved one.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    image_id: int
    path: str
    placement: Placement | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of ``image``."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def is_unseen(self) -> bool:
        """Whether ``image`` is only a placeholder, see ``unseen``."""
        return not any(self.image.strides)


def unseen(height: int, width: int) -> np.ndarray:
    """Return a placeholder image that takes no memory, for a photo without visible pixels."""
    return np.broadcast_to(np.zeros((), np.uint8), (height, width, 3))


@dataclass(frozen=True)
class Annotations:
    """The boxes of one photo, without the pixels.

    Args:
        boxes: (N, 4) float32 xyxy in photo pixels.
        labels: (N,) int64.
        ignore: (N,) bool, as in ``Sample``.
        height, width: size of the photo.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    height: int
    width: int


@dataclass(frozen=True)
class Problem:
    """A problem in a data set.

    Args:
        kind: a few words, the same for all problems of the kind.
        where: file, and line if it has lines.
        message: what came and what was wanted.
    """

    kind: str
    where: str
    message: str

    @property
    def fatal(self) -> bool:
        """Whether it stops training."""
        return self.kind not in WARNINGS


@dataclass(frozen=True)
class Batch:
    """One rank's part of a batch; the rows from ``valid`` on are padding.

    Args:
        images: (B, 3, H, W) float32 in the model's convention, or (B, H, W, 3) uint8 BGR as the
            pipeline returns it; 0 for padding.
        targets: (B, M, 5) float32 class, cx, cy, w, h as fractions of the network input, 0 where
            ``mask`` is 0.
        mask: (B, M) float32, 1 for a box.
        indices: (B,) int64 indices in the data set, -1 for padding.
        valid: number of images.
        placements, paths, image_ids: one per image, ``valid`` long.
    """

    images: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    indices: np.ndarray
    valid: int
    placements: tuple[Placement, ...]
    paths: tuple[str, ...]
    image_ids: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network input."""
        shape = self.images.shape
        return (shape[1], shape[2]) if self.images.dtype == np.uint8 else (shape[2], shape[3])

"""Test-time augmentation: predict several views of an image and merge their boxes in one NMS."""

import math

import cv2
import numpy as np
from numpy.typing import DTypeLike

from mindyolo_ext.contracts import Model, Predictor
from mindyolo_ext.errors import UsageError

# Factor on the sides of the input, and whether the image is mirrored left to right
VIEWS = ((1.0, False), (0.83, True), (0.67, False))


class AugmentedPredictor:
    """Predict three views of an image: unchanged, mirrored at 0.83 and unmirrored at 0.67 of its
    size. The boxes of all views are returned in pixels of the whole input.

    A routed predictor routes each view separately.

    Args:
        predictor: predicts each view.

    Source: YOLOv5, and DynamicDet after it, ``forward`` with ``augment``. Unlike the original,
        pixels of a smaller view are rounded to integers because images are bytes, and boxes are
        scaled by the exact factor of each side after rounding to whole pixels.
    """

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self.input_spec, self.num_classes = predictor.input_spec, predictor.num_classes
        stride = predictor.input_spec.stride
        self._views = [View(factor, mirrored, stride) for factor, mirrored in VIEWS]

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict all views.

        Shape: images (B, H, W, 3) uint8 BGR -> boxes (B, A, 4) xyxy, scores (B, A, K); A counts the
            rows of all views, one view after the other.
        Raises: UsageError for images that are not bytes.
        """
        if images.dtype != np.uint8:
            raise UsageError(f"AugmentedPredictor: wanted uint8 images, got {images.dtype}")
        boxes, scores = [], []
        for view in self._views:
            found, confidences = self._predictor(view.image(images, self.input_spec.pad_value))
            boxes.append(view.boxes(found, images.shape[1:3]))
            scores.append(confidences)
        return np.concatenate(boxes, axis=1), np.concatenate(scores, axis=1)

    def compile(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> bool:
        """Compile the views of images of ``shape`` (B, H, W, 3); False if that was done before."""
        done = [
            self._predictor.compile((shape[0], *view.padded(shape[1:3]), 3), dtype)
            for view in self._views
        ]
        return any(done)

    def update(self, model: Model) -> None:
        """Load the weights of ``model`` without compiling again."""
        self._predictor.update(model)


class View:
    """One view of an image.

    Args:
        factor: of the sides, rounded down to whole pixels, then padded at the right and bottom.
        mirrored: left to right.
        stride: sides are padded to a multiple of it.
    """

    def __init__(self, factor: float, mirrored: bool, stride: int):
        self.factor, self.mirrored, self.stride = factor, mirrored, stride

    def scaled(self, size: tuple[int, ...]) -> tuple[int, int]:
        """(height, width) of the image within the view of an image of ``size``."""
        return int(size[0] * self.factor), int(size[1] * self.factor)

    def padded(self, size: tuple[int, ...]) -> tuple[int, int]:
        """(height, width) of the view of an image of ``size``."""
        height, width = (
            math.ceil(side * self.factor / self.stride) * self.stride for side in size[:2]
        )
        return height, width

    def image(self, images: np.ndarray, pad_value: int) -> np.ndarray:
        """The view of images (B, H, W, 3) uint8."""
        if self.mirrored:
            images = images[:, :, ::-1]
        if self.factor == 1:
            return np.ascontiguousarray(images)
        (height, width), outer = self.scaled(images.shape[1:3]), self.padded(images.shape[1:3])
        views = np.full((len(images), *outer, 3), pad_value, np.uint8)
        for view, image in zip(views, images, strict=True):
            view[:height, :width] = cv2.resize(np.ascontiguousarray(image), (width, height))
        return views

    def boxes(self, boxes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        """Boxes (B, A, 4) xyxy of the view in pixels of the images of ``size`` (height, width)."""
        height, width = self.scaled(size)
        moved = boxes * np.array([size[1] / width, size[0] / height] * 2, np.float32)
        if self.mirrored:
            x1, y1, x2, y2 = np.moveaxis(moved, -1, 0)
            moved = np.stack([size[1] - x2, y1, size[1] - x1, y2], axis=-1)
        return moved.astype(np.float32)

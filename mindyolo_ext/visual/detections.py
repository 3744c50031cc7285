"""Draw labeled boxes on images, with NumPy and OpenCV only."""

from collections.abc import Sequence

import cv2
import numpy as np

from mindyolo_ext.visual.colors import OUTLINE, class_color, ink_on
from mindyolo_ext.visual.letters import Text, printable


def draw_detections(
    image: np.ndarray,
    detections: np.ndarray,
    class_names: Sequence[str],
    *,
    show_scores: bool = True,
    track_ids: np.ndarray | None = None,
) -> np.ndarray:
    """Return a copy of the image with a labeled box per detection, the best on top.

    Lines and letters grow with the image. ``class <index>`` replaces a name that no installed font
    can write.

    Args:
        image: the photo.
        detections: boxes in photo pixels, in any order.
        class_names: name per class index.
        show_scores: whether a label shows the score after the name.
        track_ids: (N,) number of the tracked object in each box. It precedes the name and selects
            the color.

    Shape: image uint8 BGR (h, w, 3), detections (N, 6) x1, y1, x2, y2, score, class -> uint8 BGR
        (h, w, 3).
    Raises: ValueError for another shape or type, a non-finite number, or a class without a
    name.
    """
    detections = np.asarray(detections, np.float32)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"draw_detections: wanted a uint8 image (h, w, 3), got {image.dtype} {image.shape}"
        )
    if detections.ndim != 2 or detections.shape[1] != 6 or not np.isfinite(detections).all():
        raise ValueError(
            f"draw_detections: wanted finite detections (N, 6), got {detections.shape}"
        )
    labels = detections[:, 5].astype(int)
    colors = [class_color(one) for one in (labels if track_ids is None else track_ids)]
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(class_names):
        raise ValueError(
            f"draw_detections: classes {labels.min()}..{labels.max()}, but {len(class_names)} names"
        )
    canvas = np.ascontiguousarray(image).copy()
    height, width = image.shape[:2]
    corners = np.clip(detections[:, :4], 0, [width - 1, height - 1] * 2).round().astype(int)
    order = np.argsort(detections[:, 4], kind="stable")
    thickness = max(1, round((height * width) ** 0.5 / 260))
    edge = thickness + (1 if thickness < 3 else 2)  # OpenCV then adds a pixel on either side
    for index in order:
        x1, y1, x2, y2 = corners[index].tolist()
        cv2.rectangle(canvas, (x1, y1), (x2, y2), OUTLINE, edge)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colors[index], thickness)
    taken: list[np.ndarray] = []
    strips = []
    for index in order[::-1]:  # the best choose their places first
        text = printable(class_names[labels[index]], labels[index])
        if track_ids is not None:
            text = f"#{track_ids[index]} {text}"
        if show_scores:
            text += f" {detections[index, 4]:.2f}"
        strips.append(_Label(text, canvas.shape, corners[index], taken))
        taken.append(strips[-1].rectangle)
    for label, index in zip(reversed(strips), order):
        label.draw(canvas, colors[index])
    return canvas


class _Label:
    """A line of text on a filled strip near or in its box, within the image.

    Args:
        text: the text.
        shape: shape of the image.
        corners: x1, y1, x2, y2 of the box.
        taken: rectangles to avoid if possible.
    """

    def __init__(
        self, text: str, shape: tuple[int, ...], corners: np.ndarray, taken: list[np.ndarray]
    ):
        height, width = shape[:2]
        letters = min(max((height * width) ** 0.5 * 0.015, 7.5), 55.0)
        self.text = Text(text, letters, room=width - 4)
        self.margin = max(2, round(self.text.height * 0.25))
        size = np.array([self.text.width, self.text.height]) + 2 * self.margin
        self.rectangle = self._place(corners, size, np.array([width, height]), taken)

    @staticmethod
    def _place(
        corners: np.ndarray, size: np.ndarray, picture: np.ndarray, taken: list[np.ndarray]
    ) -> np.ndarray:
        """Return the first free place above the box, in its corners or below it, else the first
        place.
        """
        x1, y1, x2, y2 = corners
        left, right, above, low = x1, x2 - size[0], y1 - size[1], y2 - size[1]
        corner = [(left, above), (left, y1), (right, above), (right, y1), (left, low), (left, y2)]
        if above < 0:
            corner = [(x, y) for x, y in corner if y != above]
        spots = [np.clip(xy, 0, np.maximum(picture - size, 0)) for xy in corner]
        rectangles = [np.concatenate([xy, xy + size]).astype(int) for xy in spots]
        others = np.array(taken).reshape(-1, 4)
        for one in rectangles:
            if not ((one[:2] < others[:, 2:]) & (one[2:] > others[:, :2])).all(axis=1).any():
                return one
        return rectangles[0]

    def draw(self, canvas: np.ndarray, color: tuple[int, int, int]) -> None:
        """Fill the strip with ``color`` and write in black or white."""
        left, top, right, bottom = self.rectangle.tolist()
        cv2.rectangle(canvas, (left, top), (right, bottom), color, -1)
        self.text.draw(canvas, left + self.margin, top + self.margin, ink_on(color))

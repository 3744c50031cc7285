"""Hand-made images, samples and random numbers for tests of data and augmentation."""

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.data.types import Sample

OPENCV_5 = int(cv2.__version__.partition(".")[0]) >= 5  # it warps with other roundings


def add_photo(
    collector: Collector,
    path: Path,
    image: np.ndarray,
    boxes: Iterable[Sequence[float]] = (),
    *,
    image_id: int = 1,
    labels: Sequence[int] | None = None,
    ignore: Sequence[bool] | None = None,
    polygons: Sequence[np.ndarray | None] | None = None,
) -> None:
    """Write ``image`` and add it with its boxes, by default of class 0 and none of them ignored."""
    write_image(path, image)
    boxes = list(boxes)
    collector.add(
        str(path),
        image_id,
        image.shape[:2],
        boxes=boxes,
        labels=[0] * len(boxes) if labels is None else labels,
        ignore=[False] * len(boxes) if ignore is None else ignore,
        where=[f"{path.name}:{row + 1}" for row in range(len(boxes))],
        polygons=polygons,
    )


def one_photo(folder: Path, image: np.ndarray, boxes: Sequence[Sequence[float]] = ()) -> Dataset:
    """A data set of one image with boxes of one class."""
    collector = Collector("one", ["a"], relative=False, tolerance=0)
    add_photo(collector, folder / "a.png", image, boxes)
    return collector.finish()


def plain_photos(
    folder: Path, sizes: Sequence[tuple[int, int]], levels: Sequence[int], *, crowds: bool = True
) -> Dataset:
    """Images of one gray level and one class each, with a box that covers the image, and a crowd
    inside it.

    Args:
        sizes: (height, width) of each.
        levels: gray level of each.
        crowds: whether there are crowds.
    """
    names = [str(label) for label in range(len(sizes))]
    collector = Collector("plain", names, relative=False, tolerance=0)
    for label, ((height, width), level) in enumerate(zip(sizes, levels, strict=True)):
        count = 1 + crowds
        add_photo(
            collector,
            folder / f"{label}.png",
            np.full((height, width, 3), level, np.uint8),
            [(0, 0, width, height), (1, 1, width - 1, height - 1)][:count],
            image_id=label + 1,
            labels=[label] * count,
            ignore=[False, True][:count],
        )
    return collector.finish()


def made_sample(
    image: np.ndarray, boxes: object = (), ignore: Sequence[bool] | None = None
) -> Sample:
    """A sample whose boxes have the labels 0, 1, 2 ..."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    ignore = np.zeros(len(boxes), bool) if ignore is None else np.array(ignore)
    return Sample(image, boxes, np.arange(len(boxes)), ignore, 1, "a.png")


def blocks() -> Sample:
    """A blue, a green and a red block on black; the second is ignored."""
    boxes = [[6, 10, 30, 34], [50, 8, 80, 30], [40, 50, 60, 70]]
    image = np.zeros((80, 90, 3), np.uint8)
    for channel, (x1, y1, x2, y2) in enumerate(boxes):
        image[y1:y2, x1:x2, channel] = 255
    return made_sample(image, boxes, [False, True, False])


def assert_boxes_follow(result: Sample, tolerance: float) -> None:
    """Make sure that the boxes of ``blocks`` lie where the blocks are now."""
    for box, label in zip(result.boxes, result.labels, strict=True):
        hit = result.image[:, :, label] > 127  # padding has at most 114
        rows, columns = np.flatnonzero(hit.any(1)), np.flatnonzero(hit.any(0))
        np.testing.assert_allclose(
            box, [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=tolerance
        )


class Script:
    """A random generator that replays given numbers and records the ranges it was asked for."""

    def __init__(self, *numbers: object):
        self.numbers, self.asked = deque(numbers), []

    def random(self) -> float:
        return self.numbers.popleft()

    def uniform(self, low: float, high: float, size: int | None = None) -> float | np.ndarray:
        self.asked.append((round(low, 6), round(high, 6)))
        return self.numbers.popleft() if size is None else np.array(self.numbers.popleft())

    def normal(self, mean: float, deviation: float, size: tuple[int, int]) -> np.ndarray:  # noqa: ARG002
        self.asked.append((mean, deviation))
        return np.array(self.numbers.popleft())

    def integers(
        self, low: int, high: int | None = None, size: int | None = None
    ) -> int | np.ndarray:
        self.asked.append((0, low) if high is None else (low, high))
        return self.numbers.popleft() if size is None else np.array(self.numbers.popleft())

    def choice(self, count: int, size: int, replace: bool) -> np.ndarray:
        assert not replace
        self.asked.append((count, size))
        return np.array(self.numbers.popleft())

    def permutation(self, count: int) -> np.ndarray:
        assert sorted(self.numbers[0]) == list(range(count))
        return np.array(self.numbers.popleft())

    def beta(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        return self.numbers.popleft()

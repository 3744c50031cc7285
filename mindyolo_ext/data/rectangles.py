"""Form batches with as little padding as possible. Uses NumPy only."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from mindyolo_ext.input_spec import InputSpec

_STREAM = 4  # random stream; loader, images and selection have others


def rectangular_batches(
    sizes: np.ndarray, batch_size: int, input_spec: InputSpec, pad: float = 0.5
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Group images into batches by their aspect ratio, and compute the input size of each batch.

    The longer side of an input is the spec's; the shorter side follows the image of the batch that
    is closest to a square. A batch with both portrait and landscape images is square.

    Args:
        sizes: height and width of every image.
        batch_size: images per batch.
        input_spec: input convention of the model.
        pad: padding added to each side, in units of the stride, before rounding up. With 0.5, even
            a longer side that is a multiple of the stride grows: 640 becomes 672.

    Shape: sizes (N, 2) -> order (N,) int64, and (height, width) of each of the ceil(N / batch_size)
        inputs.
    Source: Gold-YOLO ``yolov6/data/datasets.py`` ``sort_files_shapes``. Unlike the original:
        images of one shape keep their order.
    """
    aspect = sizes[:, 0] / sizes[:, 1]  # height / width
    order = np.argsort(aspect, kind="stable")
    frames = []
    for start in range(0, len(order), batch_size):
        low, high = aspect[order[start]], aspect[order[min(start + batch_size, len(order)) - 1]]
        sides = np.array([high, 1.0] if high < 1 else [1.0, 1.0 / low] if low > 1 else [1.0, 1.0])
        units = np.ceil(sides * max(input_spec.size) / input_spec.stride + pad).astype(int)
        frames.append((int(units[0]) * input_spec.stride, int(units[1]) * input_spec.stride))
    return order, frames


class RectangularEpochs:
    """Training batches of images of similar shape. The batches of an epoch do not depend on the
    number of ranks, and all input sizes are fixed before the first epoch.

    Every epoch drops random images that do not fill a whole batch. The others are sorted by shape,
    and their batches are shuffled.

    Args:
        sizes: height and width of every image.
        batch_size: images per step, over all ranks.
        input_spec: input convention of the model.
        most_sizes: maximum number of input sizes, each compiled once; 0 for no limit.
        seed: seed of the dropped images and of the order.

    Shape: sizes (N, 2).
    Source: DynamicDet (a fork of YOLOv7) ``utils/datasets.py`` with ``--rect``, for the sizes of
        sorted batches. Unlike the original: the order of the batches is random, and sizes are few.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        batch_size: int,
        input_spec: InputSpec,
        *,
        most_sizes: int,
        seed: int,
    ):
        self._sizes, self._batch_size, self._spec = sizes, batch_size, input_spec
        self._seed = seed
        _, frames = rectangular_batches(sizes, batch_size, input_spec, pad=0.0)
        self.frames = fewest(frames, most_sizes, longest(input_spec)) if most_sizes else None

    def order(self, epoch: int) -> np.ndarray:
        """Return the image indices of an epoch, (batches * batch_size,) int64."""
        return self._plan(epoch)[0]

    def inputs(self, epoch: int) -> list[tuple[int, int]]:
        """Return the input (height, width) of each batch of an epoch."""
        return self._plan(epoch)[1]

    def _plan(self, epoch: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Compute ``order`` and ``inputs``."""
        rng = np.random.default_rng([self._seed, epoch, 0, _STREAM])
        batches = len(self._sizes) // self._batch_size
        kept = np.sort(rng.permutation(len(self._sizes))[: batches * self._batch_size])
        order, frames = rectangular_batches(self._sizes[kept], self._batch_size, self._spec, 0.0)
        place = rng.permutation(batches)
        order = kept[order].reshape(batches, self._batch_size)[place].reshape(-1)
        shuffled = [frames[batch] for batch in place]
        return order, shuffled if self.frames is None else fitted(shuffled, self.frames)


def longest(input_spec: InputSpec) -> tuple[int, int]:
    """Return the square of the longer side, into which every image fits."""
    return max(input_spec.size), max(input_spec.size)


def fewest(
    frames: Sequence[tuple[int, int]], most: int, square: tuple[int, int]
) -> list[tuple[int, int]]:
    """Choose at most ``most`` sizes (height, width) so that each of ``frames`` fits into one.

    Sizes with neighboring shapes are merged into one that holds both, in the order of the area that
    this adds over all batches. ``square``, which holds all frames, is always in the result.
    """
    counts = {square: 0, **Counter(frames)}
    found = sorted(counts, key=lambda its: (its[0] / its[1], its))
    while len(found) > most:
        joined = [(max(a[0], b[0]), max(a[1], b[1])) for a, b in pairwise(found)]
        costs = [
            sum(counts[its] * (size[0] * size[1] - its[0] * its[1]) for its in pair)
            for pair, size in zip(pairwise(found), joined)
        ]
        place = int(np.argmin(costs))
        total = counts[found[place]] + counts[found[place + 1]]
        found[place : place + 2] = [joined[place]]
        counts[joined[place]] = total
    return found


def fitted(
    frames: Sequence[tuple[int, int]], allowed: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return for each of ``frames`` the smallest of the ``allowed`` sizes that holds it."""
    return [
        min(
            (its for its in allowed if its[0] >= height and its[1] >= width),
            key=lambda its: (its[0] * its[1], its),
        )
        for height, width in frames
    ]

"""Cell, level and anchor of each prediction of a network; training does not change them. Uses
NumPy only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Priors:
    """One entry per prediction, in the order of ``model.predict``.

    Args:
        x, y: center of the cell, pixels of the network input.
        stride: side of the cell in pixels.
        level: index of the level, from 0.
        width, height: of the anchor in pixels, 0 for a model without anchors.

    Shape: each (A,); ``level`` int64, the others float32.
    Raises: ValueError if they are not vectors of one length.
    """

    x: np.ndarray
    y: np.ndarray
    stride: np.ndarray
    level: np.ndarray
    width: np.ndarray
    height: np.ndarray

    def __post_init__(self) -> None:
        shapes = {field.name: np.shape(getattr(self, field.name)) for field in fields(self)}
        if len(set(shapes.values())) != 1 or len(shapes["x"]) != 1:
            raise ValueError(f"Priors: wanted vectors of one length, got {shapes}")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def strides(self) -> list[int]:
        """The stride of each level, first level first."""
        return [
            int(self.stride[self.level == level][0]) for level in range(int(self.level.max()) + 1)
        ]

    def cells(self) -> np.ndarray:
        """The cells as boxes (A, 4) xyxy in pixels of the network input."""
        half = self.stride / 2
        return np.stack([self.x - half, self.y - half, self.x + half, self.y + half], 1).astype(
            np.float32
        )

    def anchors(self) -> np.ndarray:
        """The anchors around the centers of their cells, (A, 4) xyxy in pixels; empty boxes if
        there are no anchors.
        """
        half_width, half_height = self.width / 2, self.height / 2
        return np.stack(
            [self.x - half_width, self.y - half_height, self.x + half_width, self.y + half_height],
            1,
        ).astype(np.float32)


def checked_anchors(
    anchors: Sequence[Sequence[float]], levels: int, where: str, *, per_level: int | None = None
) -> tuple[tuple[float, float], ...]:
    """Convert the anchors to pairs of floats.

    Args:
        anchors: (width, height) in pixels, level by level.
        levels: of the network.
        where: prefix of the message.
        per_level: required number per level; None allows any number.

    Raises: ValueError if they are not (width, height) pairs of positive pixels, the same number for
        each level.
    """
    pairs = tuple(tuple(float(side) for side in pair) for pair in anchors)
    good = all(len(pair) == 2 and min(pair) > 0 and math.isfinite(max(pair)) for pair in pairs)
    counted = len(pairs) == per_level * levels if per_level else len(pairs) % levels == 0
    if not pairs or not counted or not good:
        wanted = (
            f"{per_level * levels} (width, height) pairs of positive pixels, {per_level} for each"
            if per_level
            else "(width, height) pairs of positive pixels, the same number for each"
        )
        raise ValueError(f"{where}: anchors must be {wanted} of {levels} levels, got {anchors}")
    return pairs


def grid_priors(
    height: int,
    width: int,
    strides: Sequence[int],
    anchors: Sequence[Sequence[Sequence[float]]] = (),
    *,
    anchors_fastest: bool = True,
) -> Priors:
    """Build the priors of a network whose predictions are ordered by level and then by row.

    Args:
        height, width: of the network input in pixels.
        strides: pixels per cell of each level.
        anchors: per level the (width, height) of its anchors in pixels; empty for one prediction
            per cell without anchor.
        anchors_fastest: True if the anchors of a cell are adjacent, False if the cells of an anchor
            are.

    Raises: ValueError if a stride does not divide the input, or levels and anchors differ in
        number.
    """
    if any(height % stride or width % stride for stride in strides):
        raise ValueError(
            f"grid_priors: height and width must be multiples of {list(strides)}, got {height} x "
            f"{width}"
        )
    if len(anchors) not in (0, len(strides)):
        raise ValueError(
            f"grid_priors: wanted anchors for {len(strides)} levels, got {len(anchors)}"
        )
    parts = []
    for level, stride in enumerate(strides):
        sizes = np.array(anchors[level] if len(anchors) else [(0, 0)], np.float32).reshape(-1, 2)
        rows, columns = np.indices((height // stride, width // stride)).reshape(2, -1)
        cells = len(rows)
        of_cell, of_anchor = np.repeat, np.tile
        if not anchors_fastest:
            of_cell, of_anchor = np.tile, np.repeat
        parts.append(
            np.stack(
                [
                    of_cell((columns + 0.5) * stride, len(sizes)),
                    of_cell((rows + 0.5) * stride, len(sizes)),
                    np.full(cells * len(sizes), stride),
                    np.full(cells * len(sizes), level),
                    of_anchor(sizes[:, 0], cells),
                    of_anchor(sizes[:, 1], cells),
                ]
            )
        )
    x, y, stride, level, anchor_width, anchor_height = np.concatenate(parts, 1).astype(np.float32)
    return Priors(x, y, stride, level.astype(np.int64), anchor_width, anchor_height)

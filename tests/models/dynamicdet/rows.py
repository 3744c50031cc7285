"""Matched rows of DynamicDet's losses, in the form in which the original lists them."""

from collections.abc import Sequence

import numpy as np

from mindyolo_ext.backend import nn, ops
from mindyolo_ext.losses.assign.dynamic_k import EXCLUDED, dynamic_k


class MatchedRows(nn.Cell):
    """``trainable.rows`` for the detectors in use, from targets, mask and the model's raw maps."""

    def __init__(self, trainable: nn.Cell):
        super().__init__(auto_prefix=False)
        self.trainable = trainable

    def construct(self, targets, mask, *maps):
        own = self.trainable
        return own.rows(own.maps_of(maps), own.for_detectors(targets), own.for_detectors(mask))[:4]


class CandidateCosts(nn.Cell):
    """What ``MatchedRows`` returns; costs (D * B, M, C), the number of candidates that each box
    takes, and the candidates' integers.
    """

    def __init__(self, trainable: nn.Cell):
        super().__init__(auto_prefix=False)
        self.trainable = trainable

    def construct(self, targets, mask, *maps):
        own, rows = self.trainable, self.trainable.rows
        maps, targets, mask = own.maps_of(maps), own.for_detectors(targets), own.for_detectors(mask)
        floats, integers = rows.candidates(
            targets, mask, tuple((level.shape[2], level.shape[3]) for level in maps)
        )
        flat = ops.cat([ops.reshape(level, (-1,)) for level in maps], 0)
        cost, iou = rows.assigner.pair_costs(
            *rows.assigner_input(maps, flat, floats, integers, targets), mask
        )
        return rows(maps, targets, mask)[:4] + (cost, dynamic_k(iou, floats[0]), integers[0])


def has_open_choice(cost: np.ndarray, number: np.ndarray, prediction: np.ndarray) -> bool:
    """Whether some box may take either of two candidates that are the same prediction at the same
    cost, but not both.

    The original leaves that choice to ``torch.topk``; here the first candidate is taken.

    Args:
        cost: (N, M, C) of images, boxes and candidates.
        number: how many candidates each box takes, (N, M).
        prediction: of each candidate, (N, C).
    """
    for costs, numbers, own in zip(cost, number, prediction, strict=True):
        for row, count in zip(costs, numbers, strict=True):
            order = np.argsort(row, kind="stable")
            last, next_one = order[count - 1 : count + 1]
            if row[next_one] < 0.5 * EXCLUDED and own[last] == own[next_one]:
                return True
    return False


def equal_losses(ours: list[list[np.ndarray]], theirs: list[list[np.ndarray]]) -> bool:
    """Whether both give the same loss: the same rows in any order, and the same last row for every
    prediction.
    """
    return all(
        _as_the_loss_sees(a) == _as_the_loss_sees(b)
        for mine, other in zip(ours, theirs, strict=True)
        for a, b in zip(mine, other, strict=True)
    )


def _as_the_loss_sees(rows: np.ndarray) -> tuple[list, dict]:
    """All rows, sorted, and the last row of every prediction."""
    found = [tuple(row) for row in rows.tolist()]
    return sorted(found), {row[:4]: row for row in found}


def rows_by_level(
    found: Sequence[np.ndarray], targets: np.ndarray, sizes: Sequence[tuple[int, int]]
) -> list[list[np.ndarray]]:
    """Of every detector and level the rows (n, 10): image, anchor, gy, gx, then image, class, cx,
    cy, w, h.

    Args:
        found: matched, box, floats and integers of ``MatchedRows``.
        targets: (B, M, 5).
        sizes: (height, width) of every level's map.
    """
    matched, box, _, integers = found
    firsts = np.cumsum([0] + [3 * height * width for height, width in sizes])
    batch, detectors = len(targets), []
    for begin in range(0, len(matched), batch):
        image, place = np.nonzero(matched[begin : begin + batch])
        row, own = integers[0, begin + image, place], targets[image, box[begin + image, place]]
        levels = []
        for level, (height, width) in enumerate(sizes):
            here = (row >= firsts[level]) & (row < firsts[level + 1])
            inside = np.unravel_index(row[here] - firsts[level], (3, height, width))
            levels.append(
                np.column_stack((image[here], *inside, image[here], own[here])).astype(np.float32)
            )
        detectors.append(levels)
    return detectors

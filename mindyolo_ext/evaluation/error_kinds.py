"""How much AP50 each kind of error costs, by TIDE's definitions. Uses NumPy only."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from tabulate import tabulate

from mindyolo_ext.evaluation.confidence import GRID, curves
from mindyolo_ext.evaluation.matching import MATCH_IOU, Matches, Pairs

KINDS = ("classification", "localization", "both", "duplicate", "background")
_CLASSIFICATION, _LOCALIZATION, _BOTH, _DUPLICATE, _BACKGROUND = range(5)
_SMALL, _LARGE = 32**2, 96**2  # areas that COCO calls small and large
_LONG = 2.0  # a box is wide or tall if one side is this many times the other
_RECALL = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Bucket:
    """Objects of one size or shape: their number, how many are found, and the errors about them."""

    name: str
    objects: int
    found: int
    errors: dict[str, int]


@dataclass(frozen=True)
class Breakdown:
    """Errors of an evaluation at IoU 0.5.

    Args:
        ap50: AP50 with all errors.
        gains: what AP50 would gain if all errors of one kind were fixed: for each of ``KINDS``,
            ``missed``, all false positives, and all false negatives.
        confidence: the threshold with the highest mean F1; errors above it are counted.
        counts: errors by kind.
        buckets: counts by size and shape of the object, or of the detection if it is on background.
    """

    ap50: float
    gains: dict[str, float]
    confidence: float
    counts: dict[str, int]
    buckets: list[Bucket] = field(repr=False)

    def table(self) -> str:
        """Format both tables as text."""
        kinds = [
            [name, str(self.counts[name]), f"{100 * self.gains[name]:.2f}"]
            for name in (*KINDS, "missed")
        ]
        for name in ("false positives", "false negatives"):
            kinds.append([name, "", f"{100 * self.gains[name]:.2f}"])
        first = tabulate(
            kinds,
            ["error", f"above {self.confidence:.3f}", "costs AP50, %"],
            disable_numparse=True,
            colalign=("left", "right", "right"),
        )
        rows = [
            [b.name, b.objects, b.found, *(b.errors[name] for name in (*KINDS, "missed"))]
            for b in self.buckets
        ]
        return f"Errors by kind, IoU 0.5:\n{first}\n\n" + tabulate(
            rows, [f"above {self.confidence:.3f}", "boxes", "found", *KINDS, "missed"]
        )


@dataclass(frozen=True)
class _Errors:
    """For each detection (n,): its kind of error and the object concerned, -1 for none. For each
    object (m,): whether it is found, and whether it is missed without any error about it.
    """

    kind: np.ndarray
    about: np.ndarray
    found: np.ndarray
    missed: np.ndarray


def break_down(matches: Matches) -> Breakdown:
    """Classify the errors of an evaluation.

    A false positive is a localization error if it overlaps an object of its class by 0.1 to 0.5;
    else a classification error if it overlaps one of another class by 0.5; else a duplicate if it
    overlaps one of its class by 0.5, which a better detection has taken; background if it overlaps
    nothing by 0.1; else both. An object is missed if no detection finds it and no localization or
    classification error is about it.

    Source: TIDE, arXiv:2008.08115. Fixing errors of the first two kinds turns the best one about a
        free object into a hit and removes the others; errors of other kinds are removed, and so are
        missed objects. Unlike the original: a class whose objects are all missed leaves the mean
        instead of counting as 0, and COCO's 100 detections per image are counted by class.
    """
    errors = _classified(matches, -math.inf)
    before = _ap50(matches, matches.found.category, matches.hit, matches.counted)
    gains = {name: ap - before for name, ap in _mended(matches, errors)}
    confidence = best_confidence(matches)
    shown = _classified(matches, confidence)
    counts = {name: int((shown.kind == kind).sum()) for kind, name in enumerate(KINDS)}
    counts["missed"] = int(shown.missed.sum())
    return Breakdown(before, gains, confidence, counts, list(_buckets(matches, shown)))


def best_confidence(matches: Matches) -> float:
    """Find the lowest of the thresholds 0, 0.001 ... 0.999 with the highest F1, averaged over the
    classes that have objects.
    """
    objects, hit = _objects(matches), matches.hit
    rows = [matches.of_category(k) for k in np.flatnonzero(objects)]
    if not rows:
        return 0.0
    f1 = [
        curves(matches.found.score[its], hit[its], count, GRID)[2]
        for its, count in zip(rows, objects[objects > 0].tolist())
    ]
    return float(GRID[np.mean(f1, axis=0).argmax()])


def _objects(matches: Matches) -> np.ndarray:
    """Count the evaluated objects of each category, (K,)."""
    truth = matches.truth
    kept = truth.category[~truth.crowd & (truth.category >= 0)]
    return np.bincount(kept, minlength=len(truth.category_ids))


def _classified(matches: Matches, above: float) -> _Errors:
    """Classify all errors with a score above ``above``."""
    truth, shown = matches.truth, matches.found.score > above
    count = len(shown)
    wrong = shown & matches.counted & (matches.partner < 0)
    pairs = matches.pairs
    solid = ~truth.crowd[pairs.truth] & (truth.category[pairs.truth] >= 0)
    same, same_object = _best(pairs, solid & pairs.same, count)
    other, other_object = _best(pairs, solid & ~pairs.same, count)
    kind = np.select(
        [
            ~wrong,
            (same > 0) & (same < MATCH_IOU),
            other >= MATCH_IOU,
            same >= MATCH_IOU,
            other > 0,
        ],
        [-1, _LOCALIZATION, _CLASSIFICATION, _DUPLICATE, _BOTH],
        _BACKGROUND,
    )
    is_same = (kind == _LOCALIZATION) | (kind == _DUPLICATE)
    is_other = (kind == _CLASSIFICATION) | (kind == _BOTH)
    about = np.select([is_same, is_other], [same_object, other_object], -1)
    found = np.zeros(len(truth.crowd), bool)
    found[matches.partner[matches.hit & shown]] = True
    missed = ~found & ~truth.crowd & (truth.category >= 0)
    missed[about[(kind == _LOCALIZATION) | (kind == _CLASSIFICATION)]] = False
    return _Errors(kind, about, found, missed)


def _best(pairs: Pairs, chosen: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the largest IoU of each of ``count`` detections and its object; 0 and -1 for none."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.lexsort((pairs.truth[rows], -pairs.iou[rows], pairs.found[rows]))]
    detections, first = np.unique(pairs.found[rows], return_index=True)
    iou, target = np.zeros(count), np.full(count, -1)
    iou[detections], target[detections] = pairs.iou[rows[first]], pairs.truth[rows[first]]
    return iou, target


def _mended(matches: Matches, errors: _Errors) -> Iterator[tuple[str, float]]:
    """Compute AP50 with each kind of error fixed."""
    truth, category, hit = matches.truth, matches.found.category, matches.hit
    for kind, name in enumerate(KINDS):
        mine = errors.kind == kind
        kept, mended, label = matches.counted & ~mine, hit.copy(), category.copy()
        if kind in (_CLASSIFICATION, _LOCALIZATION):
            rows = matches.order[mine[matches.order]]
            rows = rows[~errors.found[errors.about[rows]]]
            rows = rows[np.unique(errors.about[rows], return_index=True)[1]]
            kept[rows] = mended[rows] = True
            label[rows] = truth.category[errors.about[rows]]
        yield name, _ap50(matches, label, mended, kept)
    yield "missed", _ap50(matches, category, hit, matches.counted, without=errors.missed)
    yield "false positives", _ap50(matches, category, hit, hit)
    lost = ~errors.found & ~truth.crowd & (truth.category >= 0)
    yield "false negatives", _ap50(matches, category, hit, matches.counted, without=lost)


def _ap50(
    matches: Matches,
    category: np.ndarray,
    hit: np.ndarray,
    kept: np.ndarray,
    without: np.ndarray | None = None,
) -> float:
    """Compute COCO's AP at IoU 0.5 with changed classes (n,), hits (n,) and detections (n,), and
    ``without`` some objects (m,); NaN if none is left.
    """
    objects = _objects(matches)
    if without is not None:
        objects = objects - np.bincount(matches.truth.category[without], minlength=len(objects))
    rows = matches.order[kept[matches.order]]
    rows = rows[np.argsort(category[rows], kind="stable")]
    ends = np.searchsorted(category[rows], np.arange(len(objects) + 1))
    scores = []
    for position in np.flatnonzero(objects).tolist():
        true = np.cumsum(hit[rows[ends[position] : ends[position + 1]]])
        precision = true / np.arange(1, len(true) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        reached = np.searchsorted(true / objects[position], _RECALL, side="left")
        scores.append(np.append(envelope, 0.0)[reached].mean())
    return float(np.mean(scores)) if scores else math.nan


def _buckets(matches: Matches, errors: _Errors) -> Iterator[Bucket]:
    """Count the errors by size and shape."""
    truth, found = matches.truth, matches.found
    objects = ~truth.crowd & (truth.category >= 0)
    of_objects = _memberships(truth.xywh, truth.area)
    of_boxes = _memberships(found.xywh, found.xywh[:, 2] * found.xywh[:, 3])
    for name, members in of_objects.items():
        near = np.where(errors.about >= 0, np.append(members, False)[errors.about], of_boxes[name])
        counts = {kind: int((near & (errors.kind == n)).sum()) for n, kind in enumerate(KINDS)}
        counts["missed"] = int((members & errors.missed).sum())
        yield Bucket(
            name, int((members & objects).sum()), int((members & errors.found).sum()), counts
        )


def _memberships(xywh: np.ndarray, area: np.ndarray) -> dict[str, np.ndarray]:
    """Determine which boxes (N, 4) belong to each size and shape."""
    width, height = xywh[:, 2], xywh[:, 3]
    small, large = area < _SMALL, area >= _LARGE
    wide, tall = width > _LONG * height, height > _LONG * width
    return {
        "small (below 32 x 32)": small,
        "medium": ~small & ~large,
        "large (from 96 x 96)": large,
        "tall (over 1:2)": tall,
        "between": ~tall & ~wide,
        "wide (over 2:1)": wide,
    }

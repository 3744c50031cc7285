"""Check on images that an exported file finds the boxes of its network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindyolo_ext.data.image_file import read_image
from mindyolo_ext.data.shapes import draw_shapes
from mindyolo_ext.engine.sources import find_sources, name_outputs
from mindyolo_ext.errors import ExportError, UsageError
from mindyolo_ext.evaluation.collect import detections_to_photo
from mindyolo_ext.evaluation.nms import NMSOptions, nms
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.runtimes.session import Arrays, Shape

MOST_BOXES = 200  # per image before NMS, to choose the confidence of the comparison
DIGITS = 4  # of scores that NMS sorts by, so that rounding does not decide between near ties
DRAWN = ((240, 320), (333, 250))  # (height, width) of images that are drawn if the user gives none


@dataclass(frozen=True)
class Limits:
    """Largest allowed differences between the boxes of a file and of the network.

    Args:
        scores: largest difference of a score.
        overlap: smallest IoU of a box with that of the network.
        missing: largest share of boxes without a partner; NMS may decide near ties differently.
    """

    scores: float = 2e-3
    overlap: float = 0.98
    missing: float = 0.02


EXACT = Limits()
# YOLOX-Nano in float16 loses 9 % of 1357 weak boxes in photos and 18 % of 74 in the drawn images,
# with scores within 0.021, and has the AP of float32 (33.70 and 33.65)
HALF = Limits(scores=0.05, overlap=0.9, missing=0.2)
# For 8 bits AP is the measure; these limits only detect a file that is useless
INT8 = Limits(scores=0.6, overlap=0.4, missing=1.0)
# The graph interpolates to one gray level, as OpenCV does up to rounding, which decides between
# near ties: Yolo-FastestV2 loses 14 % of its 600 weak boxes in the drawn images and 7 % of 296 in
# photos. If boxes are shifted or scaled, nearly all are lost.
PREPARED = Limits(scores=0.05, overlap=0.9, missing=0.25)


@dataclass
class BoxCheck:
    """The result of the comparison.

    Args:
        pictures, boxes: number of compared images and boxes.
        missing: boxes without a partner, of either side.
        pixels, scores: largest differences of partners.
    """

    pictures: int = 0
    boxes: int = 0
    missing: int = 0
    pixels: float = 0.0
    scores: float = 0.0

    def __str__(self) -> str:
        lost = f", {self.missing} without a partner" if self.missing else ""
        return (
            f"{self.boxes} boxes of {self.pictures} images within {self.pixels:.2g} pixels and "
            f"{self.scores:.1e} of the score{lost}"
        )


Finder = Callable[[np.ndarray], np.ndarray]  # image -> rows (N, 6) in its pixels
Found = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ArraySession:
    """A ``Session`` around a function of arrays."""

    inputs: Mapping[str, Shape]
    outputs: tuple[str, ...]
    call: Callable[[Arrays], Sequence[np.ndarray]]
    device: str = "CPU"

    def run(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """As ``Session.run``."""
        own = {name: arrays[name] for name in self.inputs}
        return dict(zip(self.outputs, self.call(own), strict=True))


def check_pictures(folder: Path | None, most: int = 8) -> list[np.ndarray]:
    """Load up to ``most`` images of ``folder``, or draw two.

    Raises: as ``find_sources``; UsageError for a folder without images.
    """
    if folder is None:
        rng = np.random.default_rng(0)
        return [draw_shapes(rng, size)[0] for size in DRAWN]
    paths = [output.path for output in name_outputs(find_sources(folder)) if not output.is_video]
    if not paths:
        raise UsageError(f"{folder}: no image there to check the exported files with")
    return [read_image(path) for path in paths[:most]]


def confidence_for(found: Sequence[Found]) -> float:
    """Choose a confidence for the comparison: in the widest gap between the best scores of all
    images, so that rounding moves no box across it.
    """
    best = np.sort(np.concatenate([scores.max(-1).ravel() for _, scores in found]))[::-1]
    most = MOST_BOXES * len(found)
    candidates = np.round(best[most // 2 : most + 1], DIGITS)
    if len(candidates) < 2:
        return 0.0
    gaps = candidates[:-1] - candidates[1:]
    place = int(gaps.argmax())
    if gaps[place] < 2 * 10**-DIGITS:  # the scores are nearly equal: use all of them
        return max(float(candidates[-1]) - 0.01, 0.0)
    return float(candidates[place] + candidates[place + 1]) / 2


def finder(
    predict: Callable[[np.ndarray], Found],
    spec: InputSpec,
    options: NMSOptions,
    *,
    digits: int | None = DIGITS,
) -> Finder:
    """Wrap a network as a ``Finder``.

    Args:
        predict: images (1, H, W, 3) uint8 -> boxes, scores.
        digits: decimals of the scores; None does not round.
    """

    def find(picture: np.ndarray) -> np.ndarray:
        resized, placement = spec.resize_image(picture)
        boxes, scores = (arrays[0] for arrays in predict(resized[None]))
        if digits is not None:
            scores = np.round(scores, digits)
        return detections_to_photo(nms(boxes, scores, options), placement, clip=True)

    return find


def compare_boxes(
    source: Finder,
    exported: Finder,
    pictures: Sequence[np.ndarray],
    limits: Limits,
    *,
    name: str,
    advice: str = "",
) -> BoxCheck:
    """Compare the boxes of two networks.

    Args:
        name: of the exported file, for messages.
        advice: end of error messages.

    Raises: ExportError if ``limits`` are exceeded.
    """
    check = BoxCheck(len(pictures))
    for picture in pictures:
        _compare(source(picture), exported(picture), limits.overlap, check)
    allowed = max(limits.missing * check.boxes, 1.0)
    if check.missing > allowed or check.scores > limits.scores:
        raise ExportError(
            f"export: {name} does not find the network's boxes: {check}; allowed are "
            f"{limits.scores:g} of the score and {allowed:.0f} boxes without a partner{advice}"
        )
    return check


def _compare(wanted: np.ndarray, found: np.ndarray, overlap: float, check: BoxCheck) -> None:
    """Pair each box with the box of its class that overlaps most, best scores first."""
    check.boxes += len(wanted)
    free = np.ones(len(found), bool)
    for row in wanted:
        same = np.flatnonzero(free & (found[:, 5] == row[5]))
        overlaps = _overlaps(row[:4], found[same, :4])
        if not len(same) or overlaps.max() < overlap:
            check.missing += 1
            continue
        partner = same[overlaps.argmax()]
        free[partner] = False
        check.pixels = max(check.pixels, float(np.abs(found[partner, :4] - row[:4]).max()))
        check.scores = max(check.scores, float(abs(found[partner, 4] - row[4])))
    check.missing += int(free.sum())


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (n,) of ``box`` (4,) with ``others`` (n, 4); 1 if all edges agree within a tenth of a
    pixel, as for boxes that the border of the image cuts down to a line.
    """
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.clip(high - low, 0, None).prod(1)
    areas = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1)
    same = np.abs(others - box).max(1, initial=0) <= 0.1
    return np.where(same, 1.0, common / np.maximum(areas - common, 1e-9))

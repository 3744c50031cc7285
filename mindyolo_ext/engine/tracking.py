"""Objects through the frames of a video, by the trackers of the package trackers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mindyolo_ext.engine.detections import Detections
from mindyolo_ext.errors import MissingPackageError, UsageError

TRACKERS = {"bytetrack": "ByteTrackTracker", "ocsort": "OCSORTTracker", "sort": "SORTTracker"}
# without what they declare: opencv-python beside opencv-python-headless, and NumPy 2, which
# MindSpore's wheels are not built for; they run with NumPy 1.26
INSTALL = (
    "pip install --no-deps trackers supervision pydeprecate defusedxml av requests rich "
    "markdown-it-py mdurl pygments"
)
Tracker = Callable[[Detections], Detections]


def new_tracker(name: str, rate: float) -> Tracker:
    """A function that numbers the objects of one frame after the other.

    It keeps the detections that belong to an object it follows; an object gets its number when it
    is seen in the second frame.

    Args:
        name: a key of ``TRACKERS``.
        rate: frames per second.

    Raises: UsageError for another name; MissingPackageError.
    """
    if name not in TRACKERS:
        raise UsageError(f"--track: wanted one of {', '.join(TRACKERS)}, got {name!r}")
    try:
        import trackers
    except ImportError as error:
        raise MissingPackageError(
            f"--track {name}: the package trackers is not installed ({error}): {INSTALL}"
        ) from error
    tracker = getattr(trackers, TRACKERS[name])(frame_rate=rate)
    return lambda found: _followed(tracker, found)


def _followed(tracker: Any, found: Detections) -> Detections:
    boxes = found.to_supervision()
    boxes.data["row"] = np.arange(len(found))
    known = tracker.update(boxes)
    known = known[known.tracker_id >= 0]
    rows = np.asarray(known.data.get("row", ()), np.int64)
    order = np.argsort(rows, kind="stable")  # by falling score again
    rows = rows[order]
    return replace(
        found,
        boxes=found.boxes[rows],
        scores=found.scores[rows],
        labels=found.labels[rows],
        track_ids=np.asarray(known.tracker_id, np.int64)[order],
    )

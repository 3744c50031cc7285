"""Follow objects through the frames of a video with the trackers of the package trackers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mindyolo_ext.engine.detections import Detections
from mindyolo_ext.errors import MissingPackageError, UsageError

TRACKERS = ("bytetrack", "ocsort", "sort")
# trackers requires NumPy 2, which MindSpore's wheels do not support, but runs with NumPy 1.26. It
# also requires opencv-python, which is installed into the folder of opencv-python-headless.
INSTALL = "pip install 'mindyolo_ext[track]', then pip install --no-deps trackers"
_WEAK_SHARE = 1 / 3  # of the lowest score: such boxes may continue a track of ByteTrack
Tracker = Callable[[Detections], Detections]


def new_tracker(name: str, rate: float, lowest: float) -> Tracker:
    """Create a function that numbers the objects of successive frames.

    It keeps the detections of tracked objects. An object gets its number after two or three
    consecutive frames, depending on the tracker.

    Args:
        name: one of ``TRACKERS``.
        rate: frames per second.
        lowest: score from which an object is followed.

    Raises: UsageError for another name; MissingPackageError.
    """
    if name not in TRACKERS:
        raise UsageError(f"--track: wanted one of {', '.join(TRACKERS)}, got {name!r}")
    try:
        import supervision  # noqa: F401  # hands the boxes to the tracker
        import trackers
    except ImportError as error:
        raise MissingPackageError(
            f"--track {name}: wanted the packages trackers and supervision ({error}): {INSTALL}"
        ) from error
    tracker: Any
    if name == "bytetrack":
        tracker = trackers.ByteTrackTracker(
            frame_rate=rate, track_activation_threshold=lowest, high_conf_det_threshold=lowest
        )
    elif name == "ocsort":
        tracker = trackers.OCSORTTracker(frame_rate=rate, high_conf_det_threshold=lowest)
    else:
        tracker = trackers.SORTTracker(frame_rate=rate, track_activation_threshold=lowest)
    return lambda found: _followed(tracker, found)


def weakest(name: str, lowest: float) -> float | None:
    """Lowest score of the boxes that a tracker uses, if it is below ``lowest``: ByteTrack continues
    a track in frames where the object is hard to see. None for the others.
    """
    return lowest * _WEAK_SHARE if name == "bytetrack" else None


def _followed(tracker: Any, found: Detections) -> Detections:
    boxes = found.to_supervision()
    boxes.data["row"] = np.arange(len(found))
    known = tracker.update(boxes)
    known = known[known.tracker_id >= 0]
    rows = np.asarray(known.data.get("row", ()), np.int64)
    order = np.argsort(rows, kind="stable")  # restores the order of falling scores
    rows = rows[order]
    return replace(
        found,
        boxes=found.boxes[rows],
        scores=found.scores[rows],
        labels=found.labels[rows],
        track_ids=np.asarray(known.tracker_id, np.int64)[order],
    )

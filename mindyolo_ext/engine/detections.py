"""Detections of one image, and their conversion to other formats."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.errors import MissingPackageError
from mindyolo_ext.evaluation.collect import coco_records, yolo_lines
from mindyolo_ext.visual.detections import draw_detections

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class Detections:
    """Boxes found in one image, highest score first.

    Args:
        image: the image, uint8 BGR (h, w, 3).
        boxes: (N, 4) float32 xyxy in pixels of ``image``.
        scores: (N,) float32 in 0..1.
        labels: (N,) int64 class index.
        class_names: name per class index.
        track_ids: (N,) int64, the same for one object in all frames of a video; None without
            tracking.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]
    track_ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def names(self) -> list[str]:
        """Class name of each box."""
        return [self.class_names[k] for k in self.labels]

    @property
    def rows(self) -> np.ndarray:
        """(N, 6) float32 x1, y1, x2, y2, score, class."""
        columns = [self.boxes, self.scores[:, None], self.labels[:, None]]
        return np.concatenate(columns, axis=1).astype(np.float32)

    def plot(self) -> np.ndarray:
        """A copy of the image with its boxes, uint8 BGR (h, w, 3)."""
        return draw_detections(self.image, self.rows, self.class_names, track_ids=self.track_ids)

    def save(self, path: str | Path) -> None:
        """Write the annotated image, completely or not at all.

        Raises: UsageError for a suffix without an encoder; WriteError if the disk refuses.
        """
        write_image(path, self.plot())

    def crops(self) -> list[np.ndarray]:
        """The part of the image in each box, at least one pixel, uint8 BGR."""
        height, width = self.image.shape[:2]
        low = np.floor(self.boxes[:, :2]).clip(0, [width - 1, height - 1]).astype(int)
        high = np.ceil(self.boxes[:, 2:]).clip(low + 1, [width, height]).astype(int)
        return [
            self.image[top:bottom, left:right].copy()
            for (left, top), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True)
        ]

    def to_list(self) -> list[dict]:
        """JSON-ready rows: name, class, score, box (xyxy pixels), and track if there is one."""
        rows = [
            {
                "name": n,
                "class": int(k),
                "score": round(float(s), 5),
                "box": [round(float(v), 2) for v in b],
            }
            for n, k, s, b in zip(self.names, self.labels, self.scores, self.boxes)
        ]
        if self.track_ids is not None:
            for row, track in zip(rows, self.track_ids.tolist(), strict=True):
                row["track"] = track
        return rows

    def to_json(self) -> str:
        """``to_list`` as text."""
        return json.dumps(self.to_list(), allow_nan=False)

    def to_coco(
        self, image_id: int | str = 0, category_ids: Sequence[int] | None = None
    ) -> list[dict]:
        """Records of the COCO results format.

        Args:
            image_id: the image's id in the ground truth; any id will do for a single image.
            category_ids: the id of each class index in the ground truth; by default the index.
        """
        ids = range(len(self.class_names)) if category_ids is None else category_ids
        return coco_records(self.rows, image_id, ids)

    def to_yolo(self, *, scores: bool = True) -> str:
        """Lines of a YOLO label file, ``class cx cy width height score``, sides in 0..1 of the
        image; without ``scores`` it is a file of ground truth.
        """
        return yolo_lines(self.rows, *self.image.shape[:2], scores=scores)

    def to_supervision(self) -> "supervision.Detections":
        """Convert to the package supervision, which annotates, counts and tracks.

        Raises: MissingPackageError without that package.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingPackageError(
                "to_supervision: the package supervision is not installed: pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels,
            tracker_id=self.track_ids,
            data={"class_name": np.array(self.names, dtype=str)},
        )

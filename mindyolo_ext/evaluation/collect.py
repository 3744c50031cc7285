"""Convert detections from the network's coordinates to those of photos and of COCO files. Uses
NumPy only.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from mindyolo_ext.input_spec import Placement


def detections_to_photo(
    detections: np.ndarray, placement: Placement, *, clip: bool = True
) -> np.ndarray:
    """Convert detections to photo pixels.

    Args:
        detections: from ``nms``, pixels of the network input.
        placement: of the photo in the network input.
        clip: clip the boxes at the photo's border.

    Shape: (N, 6) x1, y1, x2, y2, score, class -> (N, 6), the same order and columns.
    Raises: ValueError for another shape.
    """
    detections = checked_detections(detections)
    return np.concatenate(
        [placement.to_photo(detections[:, :4], clip=clip), detections[:, 4:]], axis=1
    )


def coco_records(
    detections: np.ndarray, image_id: int | str, category_ids: Sequence[int]
) -> list[dict]:
    """Convert detections of one photo to records of the COCO results format.

    Args:
        detections: photo pixels.
        image_id: the photo's id in the ground truth.
        category_ids: ground-truth category id of each class index.

    Shape: (N, 6) x1, y1, x2, y2, score, class -> N records with ``bbox`` x, y, width, height.
    Raises: ValueError for another shape or a class without category.
    """
    detections = checked_detections(detections).astype(np.float64)
    classes = detections[:, 5].astype(int)
    if len(classes) and not 0 <= classes.min() <= classes.max() < len(category_ids):
        raise ValueError(
            f"coco_records: image {image_id}: classes {classes.min()}..{classes.max()}, "
            f"but {len(category_ids)} category ids"
        )
    xywh = np.concatenate([detections[:, :2], detections[:, 2:4] - detections[:, :2]], axis=1)
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for label, box, score in zip(classes.tolist(), xywh.tolist(), detections[:, 4].tolist())
    ]


class CocoRecords:
    """Detections of many photos as records of the COCO results format. Records are created during
    iteration, because an array row takes 24 bytes and a record several hundred.

    Args:
        detections: per photo (N, 6) as in ``coco_records``.
        image_ids: one per photo.
        category_ids: see ``coco_records``.
    """

    def __init__(
        self,
        detections: Sequence[np.ndarray],
        image_ids: Sequence[int | str],
        category_ids: Sequence[int],
    ):
        self._detections = detections
        self.image_ids, self.category_ids = image_ids, category_ids

    def __len__(self) -> int:
        return sum(len(found) for found in self._detections)

    def __iter__(self) -> Iterator[dict]:
        for found, image_id in zip(self._detections, self.image_ids, strict=True):
            yield from coco_records(found, image_id, self.category_ids)

    def stacked(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of detections of each photo (photos,), and all of them in one array (N,
        6).

        Raises: ValueError for another shape or a class without category.
        """
        if len(self._detections) != len(self.image_ids):
            raise ValueError(
                f"detections of {len(self._detections)} photos, but {len(self.image_ids)} image ids"
            )
        found = [checked_detections(its) for its in self._detections]
        rows = np.concatenate([np.zeros((0, 6), np.float32), *found])
        labels = rows[:, 5]
        if len(rows) and not 0 <= labels.min() <= labels.max() < len(self.category_ids):
            raise ValueError(
                f"detections: classes {labels.min():g}..{labels.max():g}, but "
                f"{len(self.category_ids)} category ids"
            )
        return np.array([len(its) for its in found], np.int64), rows


def yolo_lines(detections: np.ndarray, height: int, width: int, *, scores: bool = True) -> str:
    """Detections of one photo as lines ``class cx cy width height score`` of a YOLO label file.

    Args:
        detections: photo pixels.
        height, width: of the photo; sides are written in 0..1 of it.
        scores: whether a line ends with the score; files of ground truth have none.

    Shape: (N, 6) x1, y1, x2, y2, score, class -> N lines.
    Raises: ValueError for another shape.
    """
    detections = checked_detections(detections)
    corners = detections[:, :4].astype(np.float64) / [width, height, width, height]
    center, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    rows = np.concatenate([center, sides, detections[:, 4:5]], axis=1)[:, : 5 if scores else 4]
    labels = detections[:, 5].astype(int).tolist()
    return "".join(
        f"{label} " + " ".join(f"{value:.6g}" for value in row) + "\n"
        for label, row in zip(labels, rows.tolist())
    )


def checked_detections(detections: np.ndarray) -> np.ndarray:
    """Return the array as float32 (N, 6). Raises: ValueError for another shape."""
    detections = np.asarray(detections, np.float32)
    if detections.ndim != 2 or detections.shape[1] != 6:
        raise ValueError(
            f"detections: wanted (N, 6) x1, y1, x2, y2, score, class, got {detections.shape}"
        )
    return detections

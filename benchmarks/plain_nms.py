"""The plain greedy loop of detection programs in NumPy, as a reference for ours. Not part of the
package.
"""

import numpy as np

from mindyolo_ext.evaluation.nms import NMSOptions


def plain_nms(
    boxes: np.ndarray, scores: np.ndarray, options: NMSOptions, *, stop_early: bool
) -> np.ndarray:
    """The same result as ``evaluation.nms``: one kept box at a time, compared with all that are
    left.

    Args:
        stop_early: leave the loop after ``max_detections`` boxes; most programs cut the list
            afterwards.

    Shape: boxes (A, 4), scores (A, K) -> (N, 6) x1, y1, x2, y2, score, class; falling score.
    """
    if options.multi_label:
        rows, classes = np.nonzero(scores > options.conf_thres)
    else:
        classes = scores.argmax(axis=1)
        rows = np.flatnonzero(scores[np.arange(len(scores)), classes] > options.conf_thres)
        classes = classes[rows]
    confidences = scores[rows, classes]
    order = np.argsort(-confidences, kind="stable")[: options.max_candidates]
    rows, classes, confidences = rows[order], classes[order], confidences[order]
    x1, y1, x2, y2 = np.ascontiguousarray(boxes[rows].T)
    area = (x2 - x1) * (y2 - y1)
    kept, left = [], np.arange(len(rows))
    while len(left) and not (stop_early and len(kept) == options.max_detections):
        best, rest = left[0], left[1:]
        kept.append(best)
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest])
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest])
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        iou = overlap / (area[best] + area[rest] - overlap)
        left = rest[(iou <= np.float32(options.iou_thres)) | (classes[best] != classes[rest])]
    kept = kept[: options.max_detections]
    return np.concatenate(
        [boxes[rows[kept]], confidences[kept, None], classes[kept, None].astype(np.float32)], axis=1
    )

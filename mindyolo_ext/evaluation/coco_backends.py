"""Run pycocotools or faster-coco-eval for a few categories at a time. The dictionaries that both
need, and the per-image results of pycocotools, then never exist for all detections at once.
"""

import contextlib
import importlib.util
import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mindyolo_ext.errors import DeviceError, UsageError
from mindyolo_ext.evaluation.columns import Found, Truth

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "faster_coco_eval", "pycocotools")
_FAST = "faster_coco_eval"
_TOGETHER = 50_000  # detections in dictionaries at a time, if no category has more


def chosen_backend(backend: str) -> str:
    """Return the package that computes COCO's metrics: ``auto`` is faster-coco-eval if it is
    installed.

    Raises: UsageError for a name not in ``BACKENDS``, DeviceError if it is not installed.
    """
    if backend not in BACKENDS:
        raise UsageError(
            f"evaluate_coco: backend must be one of {', '.join(BACKENDS)}, got {backend!r}"
        )
    if backend == "auto":
        return _FAST if _is_installed(_FAST) else "pycocotools"
    if not _is_installed(backend):
        raise DeviceError(
            f"eval.backend: {backend} is not installed; run `pip install faster-coco-eval`, or set "
            "eval.backend=pycocotools, which gives the same numbers"
        )
    return backend


def check_backend(backend: str) -> None:
    """Check that a package for COCO's metrics is installed, and log if it is not the usual one.

    Raises: as ``chosen_backend``.
    """
    if chosen_backend(backend) != _FAST and backend == "auto":
        logger.info(
            "COCO's metrics: computed by pycocotools, which is slower and gives the same numbers; "
            "`pip install faster-coco-eval` installs the faster package"
        )


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def run(backend: str, truth: Truth, found: Found) -> Any:
    """Run the backend's own evaluation of all categories, accumulated and summarized.

    Args:
        backend: from ``chosen_backend``.
    """
    with contextlib.redirect_stdout(io.StringIO()) as said:  # both packages print
        pieces = []
        for categories in _pieces(truth, found):
            piece = _evaluation(backend, truth, found, categories)
            piece.evaluate()
            piece.accumulate()
            pieces.append({name: piece.eval[name] for name in ("precision", "recall", "scores")})
        said.seek(0)
        said.truncate()
        whole = _evaluation(backend, truth, found, range(0))
        whole.params.catIds = truth.category_ids
        whole.eval = {
            # (IoU, R, K, size, most detections); recall has no R
            name: np.concatenate([piece[name] for piece in pieces], axis=-3)
            for name in pieces[0]
        }
        whole.summarize()
    logger.debug("%s:\n%s", backend, said.getvalue().rstrip())
    return whole


def _pieces(truth: Truth, found: Found) -> Iterator[range]:
    """Yield ranges of category positions, each with few detections or of one category."""
    counts = np.bincount(found.category, minlength=len(truth.category_ids)).tolist()
    begin = total = 0
    for position, count in enumerate(counts):
        if position > begin and total + count > _TOGETHER:
            yield range(begin, position)
            begin, total = position, 0
        total += count
    yield range(begin, len(counts))


def _evaluation(backend: str, truth: Truth, found: Found, categories: range) -> Any:
    """Evaluate some categories on the images where they occur."""
    boxes = _entries(truth, categories, truth.category_ids, area=truth.area, iscrowd=truth.crowd)
    area = found.xywh[:, 2] * found.xywh[:, 3]
    no_crowd = np.zeros(len(area), bool)
    records = _entries(
        found, categories, truth.category_ids, area=area, iscrowd=no_crowd, score=found.score
    )
    numbers = sorted({entry["image_id"] for entry in (*boxes, *records)}) or [1]
    sections = {
        "images": [{"id": number} for number in numbers],
        "categories": [{"id": truth.category_ids[position]} for position in categories],
    }
    if backend == "pycocotools":
        return COCOeval(*(_index(COCO(), sections, one) for one in (boxes, records)), "bbox")
    import faster_coco_eval

    return faster_coco_eval.COCOeval_faster(
        *(_index(faster_coco_eval.COCO(), sections, one) for one in (boxes, records)),
        "bbox",
        print_function=print,
        extra_calc=False,  # no matches, which it would write into the dictionaries
    )


def _entries(
    columns: Truth | Found, categories: range, category_ids: list[int], **values: np.ndarray
) -> list[dict]:
    """Build the dictionaries of the boxes of some categories. Images and boxes are numbered from 1,
    because 0 means "no match" to both programs.

    Args:
        values: further columns by name.
    """
    rows = np.flatnonzero(
        (columns.category >= categories.start) & (columns.category < categories.stop)
    )
    image, category = columns.image[rows] + 1, columns.category[rows]
    names = ("id", "image_id", "category_id", "bbox", *values)
    ids = [category_ids[position] for position in category.tolist()]
    lists = [
        (rows + 1).tolist(),
        image.tolist(),
        ids,
        columns.xywh[rows].tolist(),
        *(its[rows].tolist() for its in values.values()),
    ]
    return [dict(zip(names, entry)) for entry in zip(*lists)]


def _index(index: Any, sections: dict, annotations: list[dict]) -> Any:
    """The backend's own empty ``index``, filled."""
    index.dataset = {**sections, "annotations": annotations}
    index.createIndex()
    return index

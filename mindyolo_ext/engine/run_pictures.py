"""Pictures in the folder of a run, all drawn by rank 0."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mindyolo_ext.atomic import replacing
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.types import Batch
from mindyolo_ext.engine.evaluate import EvalResult
from mindyolo_ext.engine.evaluation_report import write_confusion
from mindyolo_ext.evaluation.confusion import has_supervision
from mindyolo_ext.evaluation.error_kinds import break_down
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.visual.batch import draw_batch
from mindyolo_ext.visual.labels import plot_labels
from mindyolo_ext.visual.predictions import draw_predictions, spread

logger = logging.getLogger(__name__)
FIRST_BATCHES = 3
_IMAGES = 8  # of an evaluation
_LEAST_SCORE = 0.25


class RunPictures:
    """Draw ``labels.png``, ``train_batch*.jpg``, ``val_predictions.jpg`` and ``confusion.png``.

    If a picture cannot be drawn, for example because of a broken image or a missing package, a
    warning is logged.

    Args:
        folder: of the run.
        dataset: the training images.
        wanted: False draws only the first batch.
    """

    def __init__(self, folder: Path, dataset: Dataset, *, wanted: bool):
        self.folder, self.dataset, self.wanted = folder, dataset, wanted
        self._batches: list[str] = []  # file names of the next batches

    def labels(self) -> None:
        """Draw the labels of the training images."""
        if self.wanted:
            _try(lambda: plot_labels(self.dataset, self.folder / "labels.png"))

    def expect_batches(self, epoch: int) -> None:
        """Draw the next batches; ``epoch`` is the first with other augmentations."""
        if epoch == 0:
            count = FIRST_BATCHES if self.wanted else 1
            self._batches = ["train_batch", *(f"train_batch_{k + 1}" for k in range(1, count))]
        elif self.wanted:
            self._batches = [f"train_batch_epoch{epoch + 1}"]

    def batch(self, batch: Batch, input_spec: InputSpec) -> None:
        """Draw a batch as the network sees it, if it is one of those expected."""
        if not self._batches:
            return
        with replacing(self.folder / f"{self._batches.pop(0)}.jpg") as unfinished:
            draw_batch(batch, input_spec, self.dataset.class_names, unfinished)

    def predictions(self, epoch: int, result: EvalResult, dataset: Dataset) -> None:
        """Draw the detections of an evaluation beside the ground truth."""
        if not self.wanted or not result.detections:
            return
        path = self.folder / "val_predictions.jpg"
        _try(
            lambda: draw_predictions(
                dataset,
                result.detections,
                path,
                images=spread(dataset, _IMAGES),
                title=f"epoch {epoch + 1}, score from {_LEAST_SCORE}",
                least_score=_LEAST_SCORE,
            )
        )

    def confusion(self, result: EvalResult | None) -> None:
        """Draw the confusion matrix of an evaluation, if the required package is installed."""
        if not self.wanted or result is None or result.coco is None or not has_supervision():
            return
        coco = result.coco
        if np.isfinite([one.ap for one in coco.per_class]).any():
            confidence = break_down(coco.matches).confidence
            _try(lambda: write_confusion(self.folder, coco, confidence))


def _try(draw: Callable[[], object]) -> None:
    """Draw, or log a warning."""
    try:
        draw()
    except Exception as error:  # a failed picture must not end the training
        logger.warning("a picture was not drawn: %s: %s", type(error).__name__, error)

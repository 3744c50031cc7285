"""Pictures and videos in, boxes and annotated pictures out.

from mindyolo_ext import Detector
found = Detector("yolo-fastestv2.ckpt").predict("street.jpg")
found.save("street_boxes.jpg")
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from mindyolo_ext import atomic, progress
from mindyolo_ext.backend import launch
from mindyolo_ext.backend.choice import check_backend
from mindyolo_ext.backend.lock import framework_lock
from mindyolo_ext.class_names import default_names
from mindyolo_ext.data.image_file import read_image, write_image
from mindyolo_ext.engine.augmented import AugmentedPredictor
from mindyolo_ext.engine.build import load_model
from mindyolo_ext.engine.routing import RoutedPredictor, new_predictor
from mindyolo_ext.engine.sources import (
    PREDICTIONS,
    VIDEO_SUFFIXES,
    Output,
    claim_folder,
    counted,
    find_sources,
    name_outputs,
    survey,
)
from mindyolo_ext.engine.thresholds import choose_threshold
from mindyolo_ext.engine.video import VideoReader, copying
from mindyolo_ext.errors import DataError, UsageError, WriteError, shown
from mindyolo_ext.evaluation.collect import detections_to_photo
from mindyolo_ext.evaluation.nms import NMSOptions, nms
from mindyolo_ext.visual.detections import draw_detections

__all__ = [
    "VIDEO_SUFFIXES",
    "Detections",
    "Detector",
    "find_sources",
    "predict_sources",
    "read_image",
]

logger = logging.getLogger(__name__)
DEFAULT_FOLDER = Path("runs/predict")
# What is wrong with one picture or video. A DeviceError is not: it ends the job.
_ITEM_ERRORS = (ValueError, OSError, MemoryError, cv2.error)


@dataclass(frozen=True)
class Detections:
    """Boxes found in one picture, falling score.

    Args:
        image: the picture, uint8 BGR (h, w, 3).
        boxes: (N, 4) float32 xyxy in pixels of ``image``.
        scores: (N,) float32 in 0..1.
        labels: (N,) int64 class index.
        class_names: name per class index.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def names(self) -> list[str]:
        """Class name of each box."""
        return [self.class_names[k] for k in self.labels]

    def plot(self) -> np.ndarray:
        """A copy of the picture with its boxes, uint8 BGR."""
        rows = np.concatenate(
            [self.boxes, self.scores[:, None], self.labels[:, None]], axis=1
        ).astype(np.float32)
        return draw_detections(self.image, rows, self.class_names)

    def save(self, path: str | Path) -> None:
        """Write the annotated picture, whole or not at all. Raises: UsageError for a suffix without
        an encoder; WriteError if the disk refuses.
        """
        write_image(path, self.plot())

    def to_list(self) -> list[dict]:
        """JSON-ready rows: name, class, score, box (xyxy pixels)."""
        return [
            {
                "name": n,
                "class": int(k),
                "score": round(float(s), 5),
                "box": [round(float(v), 2) for v in b],
            }
            for n, k, s, b in zip(self.names, self.labels, self.scores, self.boxes)
        ]


class Detector:
    """A checkpoint ready to look at pictures. Threads may share one, or have one each.

    Args:
        checkpoint: ``.ckpt`` of ``train.py`` or ``mindyolo-ext convert``.
        device_target: ``CPU``, ``GPU`` or ``Ascend``; None takes the device that this process has,
            else the best that is there.
        backend: ``mindspore`` or ``torch``, to make sure of it; ``MINDYOLO_EXT_BACKEND`` chooses it
            before the first import.
        conf_thres, iou_thres: score below which boxes are dropped, overlap above which they are
            merged.
        class_agnostic: whether boxes of different classes are merged too.
        size: (height, width) of the network input, default as trained.
        dy_thres: of a routed model: pictures whose easiness is below it take the second exit.
        easy: of a routed model: share of easy pictures to aim at, instead of ``dy_thres``; the
            checkpoint's thresholds tell which threshold that is.
        augment: look at every picture at three sizes, see ``AugmentedPredictor``.

    Raises: FileNotFoundError; ValueError for a file that is not such a checkpoint, a threshold
        that it does not have, or another backend than this process has.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device_target: str | None = None,
        backend: str | None = None,
        conf_thres: float = 0.3,
        iou_thres: float = 0.45,
        size: tuple[int, int] | None = None,
        max_detections: int = 300,
        class_agnostic: bool = False,
        dy_thres: float | None = None,
        easy: float | None = None,
        augment: bool = False,
    ):
        check_backend(backend)
        with framework_lock:
            launch.start(device_target)
            model, self.metadata = load_model(checkpoint)
        if size is not None:
            model.input_spec = replace(model.input_spec, size=size)
        self.options = NMSOptions(
            conf_thres=conf_thres,
            iou_thres=iou_thres,
            max_detections=max_detections,
            class_agnostic=class_agnostic,
        )
        self.input_spec = model.input_spec
        self.class_names = self.metadata.class_names or default_names(self.metadata.num_classes)
        threshold = choose_threshold(
            model, self.metadata, where=checkpoint, dy_thres=dy_thres, easy=easy
        )
        with framework_lock:
            self._predictor = new_predictor(model, dy_thres=threshold)
        if augment:
            self._predictor = AugmentedPredictor(self._predictor)

    def predict(self, image: str | Path | np.ndarray) -> Detections:
        """Boxes of one picture: a file name, or a uint8 BGR array (h, w, 3) as OpenCV reads it.

        Raises: as ``read_image``; UsageError for another array.
        """
        picture = read_image(image) if isinstance(image, (str, Path)) else _checked(image)
        resized, placement = self.input_spec.resize_image(picture)
        boxes, scores = self._predictor(resized[None])
        found = detections_to_photo(nms(boxes[0], scores[0], self.options), placement, clip=True)
        return Detections(
            picture, found[:, :4], found[:, 4], found[:, 5].astype(np.int64), self.class_names
        )

    def routing(self) -> str:
        """How many pictures took which exit so far, one sentence; empty for a model that is not
        routed.
        """
        if not isinstance(self._predictor, RoutedPredictor):
            return ""
        first, second = (self._predictor.meters[part].images for part in ("first", "second"))
        return f"{first} easy, {second} hard at threshold {self._predictor.dy_thres:.6f}"

    def predict_video(self, path: str | Path) -> Iterator[Detections]:
        """Boxes of every frame of a video file that can be read; how many cannot is logged.

        Raises: FileNotFoundError; ValueError if it cannot be read at all.
        """
        with VideoReader(path) as video:
            for _, frame in video:
                yield self.predict(frame)
            if video.shortfall():
                logger.warning("%s", video.shortfall())


def predict_sources(
    detector: Detector,
    source: str | Path | Sequence[str | Path],
    save_dir: str | Path | None = None,
) -> dict[str, list]:
    """Annotate everything ``source`` means and write ``predictions.json`` beside the copies.

    A file that cannot be read is reported and left out; the others go on. What was found until an
    interruption is written, too.

    Args:
        detector: a ``Detector``, or whatever has its ``predict`` and ``routing``.
        source: as in ``find_sources``.
        save_dir: folder for the results. If it already holds results, or by default if
            ``runs/predict`` is there at all, the first of save_dir2, save_dir3 ... that is new.

    Returns: rows by file name, or by path below the common folder where names repeat; for a video a
        list with the rows of each frame, None for a frame that could not be read.
    Raises: MissingFileError or UsageError for a source that means nothing; DataError if none of the
        files could be read; UsageError if ``save_dir`` is the folder they come from; WriteError.
    """
    sources = survey(source)
    outputs = name_outputs(sources.paths)
    wanted = DEFAULT_FOLDER if save_dir is None else Path(save_dir)
    folder = claim_folder(wanted, outputs, must_be_new=save_dir is None)
    if folder != wanted:
        logger.info("%s is left as it is; these results go to %s", wanted, folder)
    results = _Results(folder)
    for problem in sources.problems:
        results.leave_out(problem)
    try:
        for output in progress.bar(outputs, title="predict"):
            results.add(detector, output)
    finally:
        results.write(len(outputs) + len(sources.problems))
    if not results.rows:
        raise DataError(
            f"predict: none of {len(outputs)} files could be read; the first: {results.left_out[0]}"
        )
    if detector.routing():
        logger.info("%s", detector.routing())
    if sources.not_looked_at():
        logger.info("not looked at: %s", sources.not_looked_at())
    logger.info("%s", results.summary())
    return results.rows


@dataclass
class _Results:
    """What became of each file.

    Args:
        folder: where everything is written.
        rows: by name.
        left_out: why, of each file that could not be read.
        not_drawn: why, of each file whose boxes are in ``rows`` but whose copy could not be
            written.
    """

    folder: Path
    rows: dict[str, list] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    not_drawn: list[str] = field(default_factory=list)

    def add(self, detector: Detector, output: Output) -> None:
        """Predict one picture or video, or report why not."""
        try:
            annotate = self._annotate_video if output.is_video else self._annotate_picture
            rows = annotate(detector, output.path, self.folder / output.target)
            json.dumps(rows, allow_nan=False)  # one box that is not finite must not spoil the rest
        except _ITEM_ERRORS as error:
            self.leave_out(_named(error, output.path))
        else:
            self.rows[output.name] = rows

    def leave_out(self, why: str) -> None:
        """Report and count a file or source that could not be read."""
        self.left_out.append(why)
        logger.error("left out: %s", why)

    def write(self, wanted: int) -> None:
        """Write the rows; without any, take the empty folder away. ``wanted``: files to look at."""
        if self.rows:
            atomic.write_json(self.folder / PREDICTIONS, self.rows, indent=1)
        elif not any(self.folder.iterdir()):
            self.folder.rmdir()
        done = len(self.rows) + len(self.left_out)
        if done < wanted:
            logger.warning("stopped after %d of %d files: %s", done, wanted, self.summary())

    def summary(self) -> str:
        """One line for the end."""
        not_drawn = f", {len(self.not_drawn)} without a copy" if self.not_drawn else ""
        return (
            f"{counted(self.rows, 'file')}, "
            f"{counted([row for rows in self.rows.values() for row in rows], 'row')}, "
            f"{len(self.left_out)} left out{not_drawn}. Annotated pictures and {PREDICTIONS}: "
            f"{self.folder}"
        )

    def _annotate_picture(self, detector: Detector, path: Path, target: Path) -> list[dict]:
        found = detector.predict(path)
        rows = found.to_list()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            found.save(target)
        except (OSError, UsageError) as error:
            self._keep_undrawn(error, target)
        return rows

    def _annotate_video(self, detector: Detector, path: Path, target: Path) -> list:
        """Rows of each frame; the copy shows the next frame in place of one that is unreadable."""
        rows: list[list[dict] | None] = []
        begin = time.perf_counter()
        with VideoReader(path) as video:
            try:
                with copying(target, video.rate) as copy:
                    total = video.announced or None
                    title = shown(path.name, 40)
                    for number, frame in progress.bar(iter(video), total=total, title=title):
                        found = detector.predict(frame)
                        copy.add(found.plot(), times=number + 1 - len(rows))
                        rows += [None] * (number - len(rows))
                        rows.append(found.to_list())
                    if not rows:
                        raise DataError(f"video {video.name}: holds no frame that OpenCV can read")
            except WriteError as error:
                if not rows:
                    raise
                self._keep_undrawn(error, target)
        if video.shortfall():
            logger.warning("%s", video.shortfall())
        rate = video.read / (time.perf_counter() - begin)
        logger.info("%s: %d frames, %.1f frames/s", shown(path.name, 100), video.read, rate)
        return rows

    def _keep_undrawn(self, error: BaseException, target: Path) -> None:
        self.not_drawn.append(_named(error, target))
        logger.error("boxes kept, but no annotated copy: %s", self.not_drawn[-1])


def _named(error: BaseException, path: Path) -> str:
    """The message of an error, with the file in it."""
    text = str(error) or type(error).__name__
    name = shown(str(path), 300)
    return text if name in text else f"{name}: {shown(text, 500)}"


def _checked(image: np.ndarray) -> np.ndarray:
    """The picture itself. Raises: UsageError if it is not uint8 (h, w, 3) with a pixel."""
    if not isinstance(image, np.ndarray):
        raise UsageError(f"predict: wanted a file name or an array, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UsageError(
            f"predict: wanted a uint8 BGR array (h, w, 3), got {image.dtype} {image.shape}; "
            "cv2.cvtColor turns gray or transparent pictures into BGR"
        )
    return image

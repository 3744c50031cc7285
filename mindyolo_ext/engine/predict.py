"""Pictures and videos in, boxes and annotated pictures out.

from mindyolo_ext import Detector
found = Detector("yolo-fastestv2.ckpt").predict("street.jpg")
found.save("street_boxes.jpg")
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from mindyolo_ext import progress
from mindyolo_ext.backend import launch
from mindyolo_ext.backend.choice import check_backend
from mindyolo_ext.class_names import default_names
from mindyolo_ext.data.image_file import IMAGE_SUFFIXES, read_image, write_image
from mindyolo_ext.engine.build import load_model
from mindyolo_ext.engine.routing import RoutedPredictor, new_predictor
from mindyolo_ext.engine.thresholds import choose_threshold
from mindyolo_ext.errors import DataError, MissingFileError, UsageError, UserError
from mindyolo_ext.evaluation.collect import detections_to_photo
from mindyolo_ext.evaluation.nms import NMSOptions, nms
from mindyolo_ext.visual.detections import draw_detections

logger = logging.getLogger(__name__)
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v")


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
        """Write the annotated picture."""
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
    """A checkpoint ready to look at pictures.

    Args:
        checkpoint: ``.ckpt`` of ``train.py`` or ``mindyolo-ext convert``.
        device_target: ``CPU``, ``GPU`` or ``Ascend``.
        backend: ``mindspore`` or ``torch``, to make sure of it; ``MINDYOLO_EXT_BACKEND`` chooses it
            before the first import.
        conf_thres, iou_thres: score below which boxes are dropped, overlap above which they are
            merged.
        class_agnostic: whether boxes of different classes are merged too.
        size: (height, width) of the network input, default as trained.
        dy_thres: of a routed model: pictures whose easiness is below it take the second exit.
        easy: of a routed model: share of easy pictures to aim at, instead of ``dy_thres``; the
            checkpoint's thresholds tell which threshold that is.

    Raises: FileNotFoundError; ValueError for a file that is not such a checkpoint, a threshold
        that it does not have, or another backend than this process has.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device_target: str = "CPU",
        backend: str | None = None,
        conf_thres: float = 0.3,
        iou_thres: float = 0.45,
        size: tuple[int, int] | None = None,
        max_detections: int = 300,
        class_agnostic: bool = False,
        dy_thres: float | None = None,
        easy: float | None = None,
    ):
        check_backend(backend)
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
        self._predictor = new_predictor(model, dy_thres=threshold)

    def predict(self, image: str | Path | np.ndarray) -> Detections:
        """Boxes of one picture: a file name, or a uint8 BGR array (h, w, 3) as OpenCV reads it."""
        picture = read_image(image) if isinstance(image, (str, Path)) else image
        tensor, placement = self.input_spec.prepare(picture)
        boxes, scores = self._predictor(tensor[None])
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
        """Boxes of every frame of a video file. Raises: FileNotFoundError, ValueError if it
        cannot be read.
        """
        with _Video(path) as video:
            for frame in video:
                yield self.predict(frame)


class _Video:
    """Frames of a video file."""

    def __init__(self, path: str | Path):
        if not Path(path).is_file():
            raise MissingFileError(f"video {path}: no such file")
        self.capture = cv2.VideoCapture(str(path))
        if not self.capture.isOpened():
            raise DataError(
                f"video {path}: OpenCV cannot read it; wanted one of {', '.join(VIDEO_SUFFIXES)}"
            )
        self.frames = max(int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self.rate = self.capture.get(cv2.CAP_PROP_FPS) or 25.0

    def __enter__(self) -> "_Video":
        return self

    def __exit__(self, *error: object) -> None:
        self.capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            good, frame = self.capture.read()
            if not good:
                return
            yield frame


def find_sources(source: str | Path) -> list[Path]:
    """Pictures and videos that ``source`` means: a file, a folder, or a pattern with ``*``.

    Raises: FileNotFoundError if there is none, ValueError for a file of another kind.
    """
    path = Path(source)
    if path.is_file():
        if path.suffix.lower() not in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
            raise UsageError(
                f"{path}: wanted a picture ({', '.join(IMAGE_SUFFIXES)}) or a video "
                f"({', '.join(VIDEO_SUFFIXES)})"
            )
        return [path]
    candidates = (
        path.iterdir() if path.is_dir() else path.parent.glob(path.name) if "*" in path.name else []
    )
    found = sorted(p for p in candidates if p.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES)
    if not found:
        raise MissingFileError(f"predict {source}: no picture or video there")
    return found


def predict_sources(
    detector: Detector, source: str | Path, save_dir: str | Path
) -> dict[str, list]:
    """Annotate everything ``source`` means into ``save_dir`` and write ``predictions.json``.

    A file that cannot be read is reported and left out; the others go on.

    Returns: rows by file name; for a video a list of rows per frame.
    Raises: ValueError if none of the files could be read, or ``save_dir`` is the folder they come
    from.
    """
    folder, rows, failed = Path(save_dir), {}, []
    paths = find_sources(source)
    if folder.resolve() in {path.resolve().parent for path in paths}:
        raise UsageError(
            f"predict: the results would overwrite the pictures in {folder}; choose another "
            "--save_dir"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path in progress.bar(paths, title="predict"):
        try:
            if path.suffix.lower() in VIDEO_SUFFIXES:
                rows[path.name] = _annotate_video(detector, path, folder / f"{path.stem}.mp4")
            else:
                found = detector.predict(path)
                found.save(folder / path.name)
                rows[path.name] = found.to_list()
        except (UserError, OSError) as error:
            failed.append(path)
            logger.error("left out: %s", error)
    if len(failed) == len(paths):
        raise DataError(f"predict {source}: none of {len(paths)} files could be read")
    (folder / "predictions.json").write_text(
        json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8"
    )
    count = sum(len(r) for r in rows.values())
    if detector.routing():
        logger.info("%s", detector.routing())
    logger.info(
        "%d files, %d rows, %d left out. Annotated pictures and predictions.json: %s",
        len(rows),
        count,
        len(failed),
        folder,
    )
    return rows


def _annotate_video(detector: Detector, path: Path, target: Path) -> list[list[dict]]:
    """Write an annotated copy of a video; rows per frame."""
    writer, rows, begin = None, [], time.perf_counter()
    with _Video(path) as video:
        try:
            for frame in progress.bar(video, total=video.frames or None, title=path.name):
                found = detector.predict(frame)
                if writer is None:
                    height, width = frame.shape[:2]
                    writer = cv2.VideoWriter(
                        str(target), cv2.VideoWriter_fourcc(*"mp4v"), video.rate, (width, height)
                    )
                    if not writer.isOpened():
                        raise UsageError(f"video {target}: OpenCV cannot write it")
                writer.write(found.plot())
                rows.append(found.to_list())
        finally:
            if writer is not None:
                writer.release()
    if not rows:
        raise DataError(f"video {path}: holds no frame that OpenCV can read")
    logger.info(
        "%s: %d frames, %.1f frames/s",
        path.name,
        len(rows),
        len(rows) / (time.perf_counter() - begin),
    )
    return rows

"""Images in, boxes out, in Python.

from mindyolo_ext import Detector
detector = Detector("yolo-fastestv2.ckpt")
found = detector.predict("street.jpg")
found.save("street_boxes.jpg")
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np

from mindyolo_ext.backend import launch
from mindyolo_ext.backend.choice import check_backend
from mindyolo_ext.backend.lock import framework_lock
from mindyolo_ext.class_names import default_names
from mindyolo_ext.data.any_image import AnyImage, as_image
from mindyolo_ext.data.image_file import read_image
from mindyolo_ext.engine.build import load_model
from mindyolo_ext.engine.detections import Detections
from mindyolo_ext.engine.predict_job import PredictOptions, predict_sources
from mindyolo_ext.engine.routing import RoutedPredictor, new_predictor
from mindyolo_ext.engine.sources import VIDEO_SUFFIXES, find_sources
from mindyolo_ext.engine.thresholds import choose_threshold
from mindyolo_ext.engine.tracking import new_tracker, weakest
from mindyolo_ext.engine.video import VideoReader
from mindyolo_ext.errors import UsageError
from mindyolo_ext.evaluation.collect import detections_to_photo
from mindyolo_ext.evaluation.nms import NMSOptions, nms
from mindyolo_ext.evaluation.tiles import Tiling, merge

__all__ = [
    "VIDEO_SUFFIXES",
    "Detections",
    "Detector",
    "PredictOptions",
    "find_sources",
    "predict_sources",
    "read_image",
]

logger = logging.getLogger(__name__)
_SINGLE = (str, bytes, bytearray, memoryview)  # sequences that are one image


class Detector:
    """A checkpoint ready to look at images. Threads may share one, or have one each.

    Args:
        checkpoint: ``.ckpt`` of ``train.py`` or ``mindyolo-ext convert``.
        device_target: ``CPU``, ``GPU`` or ``Ascend``; None takes the device that this process has,
            else the best that is there.
        backend: ``mindspore`` or ``torch``, to make sure of it; ``MINDYOLO_EXT_BACKEND`` chooses it
            before the first import.
        conf_thres, iou_thres: score below which boxes are dropped, overlap above which they are
            merged.
        size: (height, width) of the network input, default as trained.
        max_detections: most boxes per image.
        class_agnostic: whether boxes of different classes are merged too.
        classes: names or indices of the classes that are wanted; None is all.
        batch: images that the network takes at once where ``predict`` is given several.
        tile: look at images that are larger than this side, in pixels, in tiles of it, too; None
            looks at each as a whole.
        overlap: share of a tile that its neighbor sees as well, in 0..0.9.
        dy_thres: of a routed model: images whose easiness is below it take the second exit.
        easy: of a routed model: share of easy images to aim at, instead of ``dy_thres``; the
            checkpoint's thresholds tell which threshold that is.

    Raises: FileNotFoundError; ValueError for a file that is not such a checkpoint, a threshold or a
        class that it does not have, or another backend than this process has.
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
        classes: Sequence[str | int] | None = None,
        batch: int = 1,
        tile: int | None = None,
        overlap: float = 0.2,
        dy_thres: float | None = None,
        easy: float | None = None,
    ):
        if batch < 1:
            raise UsageError(f"Detector: batch must be at least 1, got {batch}")
        self.batch = batch
        self.tiling = None if tile is None else Tiling(tile, overlap)
        check_backend(backend)
        with framework_lock:
            launch.start(device_target)
            model, self.metadata = load_model(checkpoint)
        if size is not None:
            model.input_spec = replace(model.input_spec, size=size)
        self.input_spec = model.input_spec
        self.class_names = self.metadata.class_names or default_names(self.metadata.num_classes)
        self.options = NMSOptions(
            conf_thres=conf_thres,
            iou_thres=iou_thres,
            max_detections=max_detections,
            class_agnostic=class_agnostic,
            classes=None if classes is None else indices_of(classes, self.class_names),
        )
        threshold = choose_threshold(
            model, self.metadata, where=checkpoint, dy_thres=dy_thres, easy=easy
        )
        with framework_lock:
            self._predictor = new_predictor(model, dy_thres=threshold)

    # text is a sequence of texts to a type checker; the first signature decides
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, image: AnyImage, *, conf_thres: float | None = None
    ) -> Detections: ...
    @overload
    def predict(
        self, image: Sequence[AnyImage], *, conf_thres: float | None = None
    ) -> list[Detections]: ...
    @overload
    def predict(
        self, image: Iterator[AnyImage], *, conf_thres: float | None = None
    ) -> Iterator[Detections]: ...
    def predict(
        self,
        image: AnyImage | Sequence[AnyImage] | Iterator[AnyImage],
        *,
        conf_thres: float | None = None,
    ) -> Detections | list[Detections] | Iterator[Detections]:
        """Boxes of an image, or of several.

        Args:
            image: a file name, an array, an image of Pillow or the bytes of an image file, see
                ``as_image``; a sequence of them; or an iterator over them, which is read ``batch``
                by ``batch`` as results are taken.
            conf_thres: in place of the detector's, for this call.

        Returns: ``Detections``, a list of them, or an iterator over them.
        Raises: as ``as_image``; UsageError for a threshold outside 0..1.
        """
        options = self.options
        if conf_thres is not None:
            options = replace(options, conf_thres=conf_thres)
        if isinstance(image, Iterator):
            return self._in_batches(image, options)
        if isinstance(image, Sequence) and not isinstance(image, _SINGLE):
            return list(self._in_batches(image, options))
        return self._found([as_image(image)], 1, options)[0]

    def predict_video(self, path: str | Path, *, track: str = "") -> Iterator[Detections]:
        """Boxes of every frame of a video file that can be read; how many cannot is logged.

        Args:
            path: the file, or the address of a stream.
            track: ``bytetrack``, ``ocsort`` or ``sort`` follows objects from frame to frame and
                sets ``Detections.track_ids``.

        Raises: FileNotFoundError; ValueError if it cannot be read at all; MissingPackageError for
            ``track`` without the package that does it.
        """
        lowest = self.options.conf_thres
        with VideoReader(path) as video:
            follow = new_tracker(track, video.rate, lowest) if track else lambda found: found
            for _, frame in video:
                yield follow(self.predict(frame, conf_thres=weakest(track, lowest)))
            if video.shortfall():
                logger.warning("%s", video.shortfall())

    def routing(self) -> str:
        """How many images took which exit so far, one sentence; empty for a model that is not
        routed.
        """
        if not isinstance(self._predictor, RoutedPredictor):
            return ""
        first, second = (self._predictor.meters[part].images for part in ("first", "second"))
        return f"{first} easy, {second} hard at threshold {self._predictor.dy_thres:.6f}"

    def _in_batches(self, images: Iterable[AnyImage], options: NMSOptions) -> Iterator[Detections]:
        waiting = iter(images)
        while several := [as_image(image) for image in islice(waiting, self.batch)]:
            yield from self._found(several, self.batch, options)

    def _found(self, images: list[np.ndarray], batch: int, options: NMSOptions) -> list[Detections]:
        """Detections of uint8 BGR images; the network always takes ``batch`` of them."""
        if self.tiling is None:
            rows = self._rows(images, batch, options)
        else:
            rows = [self._rows_of_tiles(image, self.tiling, options) for image in images]
        return [
            Detections(
                image, found[:, :4], found[:, 4], found[:, 5].astype(np.int64), self.class_names
            )
            for image, found in zip(images, rows, strict=True)
        ]

    def _rows_of_tiles(self, image: np.ndarray, tiling: Tiling, options: NMSOptions) -> np.ndarray:
        """(N, 6) of an image that is looked at in tiles."""
        windows = tiling.windows(*image.shape[:2])
        tiles = [image[top:bottom, left:right] for left, top, right, bottom in windows.tolist()]
        found = []
        for start in range(0, len(tiles), self.batch):
            found += self._rows(tiles[start : start + self.batch], self.batch, options)
        for rows, window in zip(found, windows, strict=True):
            rows[:, :4] += np.tile(window[:2], 2)
        return merge(found, windows, options)

    def _rows(self, images: list[np.ndarray], batch: int, options: NMSOptions) -> list[np.ndarray]:
        """Per image (N, 6) x1, y1, x2, y2, score, class in its pixels. At most ``batch`` images;
        the rest of the batch is filled with the last one.
        """
        resized = [self.input_spec.resize_image(image) for image in images]
        pixels = [network_pixels for network_pixels, _ in resized]
        stacked = np.stack(pixels + pixels[-1:] * (batch - len(pixels)))
        if isinstance(self._predictor, RoutedPredictor):
            boxes, scores = self._predictor(stacked, valid=len(images))
        else:
            boxes, scores = self._predictor(stacked)
        return [
            detections_to_photo(nms(boxes[k], scores[k], options), placement, clip=True)
            for k, (_, placement) in enumerate(resized)
        ]


def indices_of(wanted: Sequence[str | int], class_names: Sequence[str]) -> tuple[int, ...]:
    """Class indices of names or indices. Raises: UsageError for one that is not there."""
    found = []
    for one in wanted:
        text = str(one)
        if text in class_names:
            found.append(list(class_names).index(text))
        elif text.isdecimal() and int(text) < len(class_names):
            found.append(int(text))
        else:
            raise UsageError(
                f"classes: the model has no class {text!r}; wanted names or indices of its "
                f"{len(class_names)} classes: {', '.join(class_names[:20])}"
                + (" ..." if len(class_names) > 20 else "")
            )
    return tuple(sorted(set(found)))

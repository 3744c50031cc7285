"""Detect objects in images from Python.

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

from mindyolo_ext.class_names import default_names
from mindyolo_ext.contracts import RoutingPredictor
from mindyolo_ext.data.any_image import AnyImage, as_image
from mindyolo_ext.data.image_file import read_image
from mindyolo_ext.engine.augmented import AugmentedPredictor
from mindyolo_ext.engine.detections import Detections
from mindyolo_ext.engine.network import load_network
from mindyolo_ext.engine.predict_job import PredictOptions, predict_sources
from mindyolo_ext.engine.sources import VIDEO_SUFFIXES, find_sources
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
_SINGLE = (str, bytes, bytearray, memoryview)  # sequences that stand for one image


class Detector:
    """A detector with the weights of a checkpoint. Threads may share it or use one each.

    Args:
        checkpoint: ``.ckpt`` of ``train.py`` or ``mindyolo-ext convert``, or a file of
            ``mindyolo-ext export``.
        device_target: ``CPU``, ``GPU`` or ``Ascend``; None uses the device of this process, or the
            best one available.
        backend: ``mindspore`` or ``torch``, to require it; ``MINDYOLO_EXT_BACKEND`` chooses it
            before the first import.
        runtime: runs the network, one of ``runtimes.names.RUNTIMES``; None uses the default of the
            file, for a checkpoint the backend.
        conf_thres, iou_thres: score below which boxes are dropped, overlap above which they are
            merged.
        size: (height, width) of the network input, by default that of the training.
        max_detections: most boxes per image.
        class_agnostic: whether boxes of different classes are merged too.
        classes: names or indices of the classes to keep; None keeps all.
        batch: images per run of the network if ``predict`` gets several.
        tile: also process images larger than this side, in pixels, in tiles; None processes whole
            images only.
        overlap: share of a tile that overlaps its neighbor, in 0..0.9.
        dy_thres: for a routed model: images with an easiness below it take the second exit.
        easy: for a routed model: target share of easy images, instead of ``dy_thres``; the
            checkpoint's thresholds map it to a threshold.
        augment: predict three views of every image, see ``AugmentedPredictor``.

    Raises: FileNotFoundError; ValueError for a file that is not such a checkpoint, a threshold or a
        class that it does not have, or a backend other than that of this process.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device_target: str | None = None,
        backend: str | None = None,
        runtime: str | None = None,
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
        augment: bool = False,
    ):
        if batch < 1:
            raise UsageError(f"Detector: batch must be at least 1, got {batch}")
        self.batch = batch
        self.tiling = None if tile is None else Tiling(tile, overlap)
        network = load_network(
            checkpoint,
            runtime=runtime,
            device_target=device_target,
            backend=backend,
            size=size,
            dy_thres=dy_thres,
            easy=easy,
        )
        self.metadata, self._predictor = network.metadata, network.predictor
        self.input_spec = self._predictor.input_spec
        self.class_names = self.metadata.class_names or default_names(self.metadata.num_classes)
        self.options = NMSOptions(
            conf_thres=conf_thres,
            iou_thres=iou_thres,
            max_detections=max_detections,
            class_agnostic=class_agnostic,
            classes=None if classes is None else indices_of(classes, self.class_names),
        )
        if augment:
            self._predictor = AugmentedPredictor(self._predictor)

    # A str is also a sequence of str to a type checker; the first matching signature is used
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
        """Detect objects in an image or in several.

        Args:
            image: a file name, an array, a Pillow image or the bytes of an image file, see
                ``as_image``; a sequence of them; or an iterator over them, which is consumed
                ``batch`` by ``batch`` as results are taken.
            conf_thres: overrides the detector's for this call.

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
        """Detect objects in every readable frame of a video; the others are counted in the log.

        Args:
            path: the file, or the address of a stream.
            track: ``bytetrack``, ``ocsort`` or ``sort`` follows objects from frame to frame and
                sets ``Detections.track_ids``.

        Raises: FileNotFoundError; ValueError if it cannot be read at all; MissingPackageError if
            the package for ``track`` is missing.
        """
        lowest = self.options.conf_thres
        with VideoReader(path) as video:
            follow = new_tracker(track, video.rate, lowest) if track else lambda found: found
            for _, frame in video:
                yield follow(self.predict(frame, conf_thres=weakest(track, lowest)))
            if video.shortfall():
                logger.warning("%s", video.shortfall())

    def routing(self) -> str:
        """Describe how many images took which exit so far; empty for a model that is not routed."""
        if not isinstance(self._predictor, RoutingPredictor):
            return ""
        first, second = (self._predictor.meters[part].images for part in ("first", "second"))
        return f"{first} easy, {second} hard at threshold {self._predictor.dy_thres:.6f}"

    def _in_batches(self, images: Iterable[AnyImage], options: NMSOptions) -> Iterator[Detections]:
        waiting = iter(images)
        while several := [as_image(image) for image in islice(waiting, self.batch)]:
            yield from self._found(several, self.batch, options)

    def _found(self, images: list[np.ndarray], batch: int, options: NMSOptions) -> list[Detections]:
        """Detections of uint8 BGR images; the network always gets a batch of ``batch`` images."""
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
        """(N, 6) of an image that is processed in tiles."""
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
        the batch is filled up with the last one.
        """
        resized = [self.input_spec.resize_image(image) for image in images]
        pixels = [network_pixels for network_pixels, _ in resized]
        stacked = np.stack(pixels + pixels[-1:] * (batch - len(pixels)))
        if isinstance(self._predictor, RoutingPredictor):
            boxes, scores = self._predictor(stacked, valid=len(images))
        else:
            boxes, scores = self._predictor(stacked)
        return [
            detections_to_photo(nms(boxes[k], scores[k], options), placement, clip=True)
            for k, (_, placement) in enumerate(resized)
        ]


def indices_of(wanted: Sequence[str | int], class_names: Sequence[str]) -> tuple[int, ...]:
    """Convert class names or indices to indices. Raises: UsageError for an unknown one."""
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

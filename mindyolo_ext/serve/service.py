"""Queue between requests and the network: bounded, with images decoded outside the thread that runs
the network.
"""

import asyncio
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np

from mindyolo_ext.data.image_file import decode_image
from mindyolo_ext.data.image_header import read_header
from mindyolo_ext.engine.predict import Detections, Detector
from mindyolo_ext.errors import DataError, closest, shown
from mindyolo_ext.evaluation.nms import NMSOptions
from mindyolo_ext.serve.limits import Limits
from mindyolo_ext.serve.metrics import Metrics
from mindyolo_ext.serve.network import Network
from mindyolo_ext.serve.refusal import Refusal

Made = TypeVar("Made")
PATHS = ("/", "/predict", "/health", "/metrics", "/model", "/openapi.json")
_SUFFIXES = {"jpg": ".jpg", "png": ".png"}


class Wishes(Protocol):
    """Options of a request: thresholds (None for the server's), and names or numbers of classes
    (empty for all).
    """

    conf: float | None
    iou: float | None
    classes: list[str]


@dataclass(frozen=True)
class Answer:
    """Result for an image.

    Args:
        found: the requested boxes.
        picture: the encoded image with its boxes; empty if not requested.
        seconds: duration of each part.
    """

    found: Detections
    picture: bytes
    seconds: dict[str, float]


class Service:
    """A detector for several concurrent clients.

    At most ``limits.open_images`` images are decoded, waiting for the network or being drawn at a
    time. They and the request bodies in the queue bound the memory.

    Args:
        detector: a ``Detector``, or an object with its ``predict``, ``options``, ``batch``,
            ``class_names``, ``input_spec`` and ``metadata``.
        limits: limits of the server.
    """

    def __init__(self, detector: Detector, limits: Limits):
        self.detector = detector
        self.limits = limits
        self.waiting = 0
        self.metrics = Metrics(PATHS, lambda: self.waiting)
        self.network = Network(detector)
        self._images = ThreadPoolExecutor(limits.open_images, "images")
        self._open = asyncio.Semaphore(limits.open_images)

    def close(self) -> None:
        """End the threads and drop waiting images."""
        self.network.close()
        self._images.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Take a place in the queue. Raises: Refusal if it is full."""
        if self.waiting >= self.limits.queue:
            seconds = self._expected_seconds()
            raise Refusal(
                503,
                f"the queue of {self.limits.queue} images is full; try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    def stuck_seconds(self) -> float:
        """Seconds that the network has spent on the current image if they exceed the time limit of
        a request, else 0.
        """
        seconds = self.network.busy_seconds()
        return seconds if seconds > self.limits.answer_seconds else 0.0

    def _expected_seconds(self) -> int:
        """Estimate the seconds until the queue is empty."""
        return max(1, math.ceil(self.waiting * self.network.usual_seconds))

    def class_indices(self, wanted: Sequence[str]) -> tuple[int, ...]:
        """Return the indices of class names or numbers, possibly comma-separated; empty means all.

        Raises: Refusal for a class that the model does not have.
        """
        names = list(self.detector.class_names)
        words = [
            word.strip()
            for text in wanted
            for word in ([text] if text in names else text.split(","))
        ]
        return tuple(sorted({_class_index(word, names) for word in words if word}))

    async def answer(self, data: bytes, wishes: Wishes, format: str = "json") -> Answer:
        """Detect objects in an encoded image.

        Args:
            data: bytes of an image file.
            wishes: thresholds and classes.
            format: ``json``; ``jpg`` or ``png`` also draws the boxes on the image.

        Raises: Refusal if the image cannot be used, or if it takes too long.
        """
        options = self._options(wishes)
        try:
            work = self._work(data, options, format)
            return await asyncio.wait_for(work, self.limits.answer_seconds)
        except asyncio.TimeoutError as error:
            raise Refusal(
                503,
                f"no result within {self.limits.answer_seconds:g} s; try again later",
                {"Retry-After": str(self._expected_seconds())},
            ) from error
        except MemoryError as error:
            raise Refusal(503, "out of memory for this image; send a smaller one") from error

    def _options(self, wishes: Wishes) -> NMSOptions:
        """Return the detector's options, overridden by a request."""
        own, classes = self.detector.options, self.class_indices(wishes.classes)
        return replace(
            own,
            conf_thres=own.conf_thres if wishes.conf is None else wishes.conf,
            iou_thres=own.iou_thres if wishes.iou is None else wishes.iou,
            classes=classes or own.classes,
        )

    async def _work(self, data: bytes, options: NMSOptions, format: str) -> Answer:
        clock = _Clock()
        async with self._open:
            clock.lap("waiting")
            image = await self._in_threads(decode, data, self.limits)
            clock.lap("decoding")
            found = await self.network.find(image, options, lambda: clock.lap("waiting"))
            clock.lap("network")
            picture = b""
            if format in _SUFFIXES:
                picture = await self._in_threads(draw, found, _SUFFIXES[format])
                clock.lap("drawing")
        self.metrics.count_image(found.names, clock.laps)
        return Answer(found, picture, clock.laps)

    async def _in_threads(self, call: Callable[..., Made], *arguments: Any) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._images, call, *arguments)


class _Clock:
    """Measure the seconds of consecutive parts."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, part: str) -> None:
        """Mark the end of ``part``; times of repeated parts are added."""
        before, self._last = self._last, time.monotonic()
        self.laps[part] = self.laps.get(part, 0.0) + self._last - before


def decode(data: bytes, limits: Limits) -> np.ndarray:
    """Decode an image file into uint8 BGR (h, w, 3).

    Raises: Refusal if it has too many pixels, or cannot be read.
    """
    header = read_header(io.BytesIO(data))
    if (
        header is not None
        and max(header.height * header.width, header.largest_part) > limits.pixels
    ):
        raise Refusal(
            413,
            f"wanted at most {limits.pixels} pixels, got {header.width}x{header.height}; send a "
            "smaller image, or start the server with a larger --max_pixels",
        )
    try:
        return decode_image(data, "image")
    except DataError as error:
        raise Refusal(422, str(error)) from error


def draw(found: Detections, suffix: str) -> bytes:
    """Draw the boxes on the image and encode it."""
    done, picture = cv2.imencode(suffix, found.plot())
    if not done:
        height, width = found.image.shape[:2]
        raise Refusal(422, f"cannot draw {width}x{height} pixels as {suffix}; ask for format=json")
    return picture.tobytes()


def _class_index(word: str, names: list[str]) -> int:
    if word in names:
        return names.index(word)
    if word.isascii() and word.isdecimal() and int(word) < len(names):
        return int(word)
    near = closest(word, names)
    hint = f", did you mean {near}?" if near else "; GET /model lists them"
    raise Refusal(
        422,
        f"classes: wanted names or numbers of the model's {len(names)} classes, got {shown(word)}"
        f"{hint}",
    )

"""Read videos and streams frame by frame; unreadable frames are skipped but keep their numbers."""

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from mindyolo_ext.data.image_file import MAX_PIXELS
from mindyolo_ext.engine.remote import without_login
from mindyolo_ext.engine.sources import VIDEO_SUFFIXES
from mindyolo_ext.errors import DataError, MissingFileError, shown

MOST_BAD_FRAMES = 1000  # in a row: then the video is considered finished, despite its header
MOST_BAD_LIVE_FRAMES = 3  # of a stream, each after its time-out
_TIMEOUT = 10_000  # milliseconds for a stream to answer
_USUAL_RATE = 25.0  # frames per second of a file without a plausible number
_HIGHEST_RATE = 1000.0
_TEXT_BYTES = 64  # a video container has other characters among its first ones
_TEXT = frozenset((*b"\t\n\r", *range(0x20, 0x7F), 0xEF, 0xBB, 0xBF))  # with the mark of UTF-8


class VideoReader:
    """Frames of a video with their numbers. A frame that cannot be read is skipped.

    Args:
        path: the file, the address of a stream (``rtsp://``, ``http://`` ...), or the number of a
            camera as text.
        stride: return only every ``stride``-th frame; the others are not decoded into pixels.

    Attributes: ``announced`` frames to be returned according to the header, 0 if unknown; ``rate``
        of the returned frames per second; ``read`` frames so far; ``is_live`` for streams and
        cameras.
    Raises: MissingFileError; DataError for a file that OpenCV cannot read or one with frames larger
        than ``MAX_PIXELS``.
    """

    def __init__(self, path: str | Path, *, stride: int = 1):
        self.name, self.stride = shown(without_login(str(path)), 300), stride
        self.is_live = not os.path.isfile(path) and _is_live(path)
        self.read = 0
        self._capture = _live(str(path)) if self.is_live else _opened(path, self.name)
        if not self._capture.isOpened():
            raise DataError(
                f"{self._kind} {self.name}: does not answer, or OpenCV cannot read it"
                if self.is_live
                else f"{self._kind} {self.name}: OpenCV cannot read it; wanted one of "
                f"{', '.join(VIDEO_SUFFIXES)}, whole"
            )
        announced = 0 if self.is_live else int(max(self._number(cv2.CAP_PROP_FRAME_COUNT), 0))
        self.announced = -(-announced // stride)
        rate = self._number(cv2.CAP_PROP_FPS)
        self.rate = (rate if 0 < rate <= _HIGHEST_RATE else _USUAL_RATE) / stride
        width, height = (
            self._number(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > MAX_PIXELS:
            self._capture.release()
            raise DataError(
                f"{self._kind} {self.name}: wanted frames of at most {MAX_PIXELS} pixels, got "
                f"{width:.0f}x{height:.0f}"
            )

    @property
    def _kind(self) -> str:
        """Name of the kind in messages."""
        if not self.is_live:
            return "video"
        return "camera" if self.name.isdecimal() else "stream"

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number counted from 0, uint8 BGR frame). An unreadable frame is skipped, but
        counted.
        """
        number = bad = 0
        limit = MOST_BAD_LIVE_FRAMES if self.is_live else MOST_BAD_FRAMES
        while bad <= limit:
            frame = self._next()
            if frame is None:
                bad += 1
            else:
                bad = 0
                self.read += 1
                yield number, frame
            number += 1
            for _ in range(self.stride - 1):
                self._capture.grab()

    def shortfall(self) -> str:
        """Describe how many frames are missing, at the end; empty if none is."""
        if self.read >= self.announced:
            return ""
        return (
            f"video {self.name}: {self.read} of {self.announced} announced frames could be read; "
            "the others are damaged or missing"
        )

    def _next(self) -> np.ndarray | None:
        """The next frame, None for a damaged one and at the end."""
        try:
            good, frame = self._capture.read()
        except (cv2.error, MemoryError):
            return None
        return frame if good and frame is not None and frame.size else None

    def _number(self, what: int) -> float:
        value = self._capture.get(what)
        return value if math.isfinite(value) else 0.0


def _is_live(path: str | Path) -> bool:
    """Whether ``path`` is a stream or a camera, not a file."""
    return isinstance(path, str) and (path.isdecimal() or "://" in path)


def _live(address: str) -> cv2.VideoCapture:
    if address.isdecimal():
        return cv2.VideoCapture(int(address))
    patience = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT]
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, patience)


def _opened(path: str | Path, name: str) -> cv2.VideoCapture:
    if not os.path.isfile(path):
        raise MissingFileError(f"video {name}: no such file")
    try:
        with open(path, "rb") as file:
            begin = file.read(_TEXT_BYTES)
    except OSError as error:
        raise DataError(f"video {name}: cannot be read ({error.strerror})") from error
    if begin and all(byte in _TEXT for byte in begin):
        raise DataError(
            f"video {name}: wanted one of {', '.join(VIDEO_SUFFIXES)}, got text; a playlist is not "
            "followed, as it may name any file of this machine"
        )
    with plain_name(Path(path)) as plain:
        return cv2.VideoCapture(plain)


@contextmanager
def plain_name(path: Path) -> Iterator[str]:
    """A name of the file ``path`` that OpenCV accepts: it must be UTF-8."""
    if all(not "\ud800" <= letter <= "\udfff" for letter in str(path)):
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, f"video{path.suffix if path.suffix.isascii() else ''}")
        link.symlink_to(path.absolute())
        yield str(link)

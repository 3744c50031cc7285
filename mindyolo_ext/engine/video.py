"""Videos: every frame that can be read with its number, and annotated copies."""

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from mindyolo_ext import atomic
from mindyolo_ext.data.image_file import MAX_PIXELS
from mindyolo_ext.engine.sources import VIDEO_SUFFIXES
from mindyolo_ext.errors import DataError, MissingFileError, WriteError, shown

MOST_BAD_FRAMES = 1000  # in a row: then the video is over, whatever its header announces
_USUAL_RATE = 25.0  # frames per second of a file that does not say a sensible number
_HIGHEST_RATE = 1000.0


class VideoReader:
    """Frames of a video file with their numbers. A frame that cannot be read is passed over.

    Args:
        path: the file.

    Attributes: ``announced`` frames by the header, 0 if it does not say; ``rate`` per second;
        ``read`` frames so far.
    Raises: MissingFileError; DataError for a file that OpenCV cannot read or one of larger frames
        than ``MAX_PIXELS``.
    """

    def __init__(self, path: str | Path):
        self.name = shown(str(path), 300)
        if not os.path.isfile(path):
            raise MissingFileError(f"video {self.name}: no such file")
        self.read = 0
        with _plain(Path(path)) as name:
            self._capture = cv2.VideoCapture(name)
        if not self._capture.isOpened():
            raise DataError(
                f"video {self.name}: OpenCV cannot read it; wanted one of "
                f"{', '.join(VIDEO_SUFFIXES)}, whole"
            )
        self.announced = int(max(self._number(cv2.CAP_PROP_FRAME_COUNT), 0))
        rate = self._number(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate <= _HIGHEST_RATE else _USUAL_RATE
        width, height = (
            self._number(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > MAX_PIXELS:
            self._capture.release()
            raise DataError(
                f"video {self.name}: wanted frames of at most {MAX_PIXELS} pixels, got "
                f"{width:.0f}x{height:.0f}"
            )

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """(number from 0, uint8 BGR frame). Each frame that cannot be read counts as one."""
        number = bad = 0
        while bad <= MOST_BAD_FRAMES:
            frame = self._next()
            if frame is None:
                bad += 1
            else:
                bad = 0
                self.read += 1
                yield number, frame
            number += 1

    def shortfall(self) -> str:
        """How many frames are missing, a sentence; empty if none is. To be asked at the end."""
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


class VideoCopy:
    """An MP4 file in the making, see ``copying``. Once something went wrong it takes frames without
    writing them, so that whoever makes them can go on.

    Args:
        path: the file.
        rate: frames per second.

    Attributes: ``frames`` so far; ``problem`` that keeps the file from being whole, or empty.
    """

    def __init__(self, path: Path, rate: float):
        self.path, self.rate = path, rate
        self.frames, self.problem = 0, ""
        self._writer: cv2.VideoWriter | None = None
        self._size = 0, 0

    def add(self, frame: np.ndarray, times: int = 1) -> None:
        """Write uint8 BGR (h, w, 3), in the size of the first frame; several ``times`` if it
        stands for frames that could not be read.
        """
        if self._writer is None:
            self._start(frame.shape[1], frame.shape[0])
        if self.problem:
            return
        if frame.shape[1::-1] != self._size:
            frame = cv2.resize(frame, self._size)
        for _ in range(times):
            self._writer.write(frame)
        self.frames += times

    def close(self) -> None:
        """Finish the file, and read it again: OpenCV does not tell of a full disk."""
        if self._writer is None:
            return
        self._writer.release()
        if not self.problem:
            written = _count_frames(self.path)
            if written != self.frames:
                self.problem = f"{written} of {self.frames} frames arrived; is the disk full?"

    def _start(self, width: int, height: int) -> None:
        self._size = width, height
        with _plain(self.path) as name:
            self._writer = cv2.VideoWriter(
                name, cv2.VideoWriter_fourcc(*"mp4v"), self.rate, self._size
            )
        if not self._writer.isOpened():
            self.problem = f"OpenCV writes no MP4 of {width}x{height} pixels here"


@contextmanager
def copying(target: Path, rate: float) -> Iterator[VideoCopy]:
    """A video to write; at the end it takes the place of ``target``, whole or not at all.

    Raises: WriteError at the end if OpenCV or the disk refused.
    """
    with atomic.replacing(target) as unfinished:
        copy = VideoCopy(unfinished, rate)
        try:
            yield copy
        finally:
            copy.close()
        if copy.problem:
            raise WriteError(f"video {shown(str(target), 300)}: cannot be written, {copy.problem}")


def _count_frames(path: Path) -> int:
    with _plain(path) as name:
        capture = cv2.VideoCapture(name)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()


@contextmanager
def _plain(path: Path) -> Iterator[str]:
    """A name of the file ``path`` that OpenCV takes: it wants UTF-8."""
    if all(not "\ud800" <= letter <= "\udfff" for letter in str(path)):
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, f"video{path.suffix if path.suffix.isascii() else ''}")
        link.symlink_to(path.absolute())
        yield str(link)

"""Write annotated copies of videos as MP4, completely or not at all: H.264 with the package av, or
MPEG-4 with OpenCV.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from mindyolo_ext import atomic
from mindyolo_ext.engine.video import plain_name
from mindyolo_ext.errors import WriteError, shown


class VideoCopy:
    """An MP4 file being written, see ``copying``. After an error it accepts frames without writing
    them, so that the caller can continue.

    Args:
        path: the file.
        rate: frames per second.

    Attributes: ``frames`` so far; ``problem`` that makes the file incomplete, or empty.
    """

    def __init__(self, path: Path, rate: float):
        self.path, self.rate = path, rate
        self.frames, self.problem = 0, ""
        self._writer: _Writer | None = None
        self._size = 0, 0

    def add(self, frame: np.ndarray, times: int = 1) -> None:
        """Write a frame uint8 BGR (h, w, 3), in the size of the first one; several ``times`` if it
        replaces frames that could not be read.
        """
        if not self.problem and self._writer is None:
            self._start(frame.shape[1], frame.shape[0])
        if self.problem or self._writer is None:
            return
        if frame.shape[1::-1] != self._size:
            frame = cv2.resize(frame, self._size)
        try:
            for _ in range(times):
                self._writer.write(frame)
        except OSError as error:
            self.problem = str(error)
        self.frames += times

    def close(self) -> None:
        """Finish the file and count its frames, because OpenCV does not report a full disk."""
        if self._writer is None:
            return
        try:
            self._writer.release()
        except OSError as error:
            self.problem = self.problem or str(error)
        if not self.problem:
            written = _count_frames(self.path)
            if written != self.frames:
                self.problem = f"{written} of {self.frames} frames were written; is the disk full?"

    def _start(self, width: int, height: int) -> None:
        self._size = width, height
        if _has_h264() and min(width, height) > 1:
            self._writer = _H264Writer(self.path, self.rate, self._size)
            return
        with plain_name(self.path) as name:
            self._writer = cv2.VideoWriter(
                name, cv2.VideoWriter.fourcc(*"mp4v"), self.rate, self._size
            )
        if not self._writer.isOpened():
            self.problem = f"OpenCV cannot write MP4 of {width}x{height} pixels here"


class _Writer(Protocol):
    """The methods of OpenCV's writer that ``VideoCopy`` uses."""

    def write(self, frame: np.ndarray) -> None: ...
    def release(self) -> None: ...


class _H264Writer:
    """H.264, which browsers and phones can play, with the package av. If a side is odd, its last
    pixel is dropped. Raises: OSError if FFmpeg or writing fails.
    """

    def __init__(self, path: Path, rate: float, size: tuple[int, int]):
        import av

        self._av = av
        self._width, self._height = (side // 2 * 2 for side in size)
        self._file = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._stream: Any = self._file.add_stream(
            "libx264", rate=Fraction(rate).limit_denominator(1000)
        )
        self._stream.width, self._stream.height = self._width, self._height
        self._stream.pix_fmt = "yuv420p"

    def write(self, frame: np.ndarray) -> None:
        """Add uint8 BGR (h, w, 3)."""
        even = np.ascontiguousarray(frame[: self._height, : self._width])
        picture = self._av.VideoFrame.from_ndarray(even, format="bgr24")
        self._mux(picture)

    def release(self) -> None:
        """Finish the file."""
        try:
            self._mux(None)
        finally:
            self._file.close()

    def _mux(self, picture: Any) -> None:
        try:
            self._file.mux(self._stream.encode(picture))
        except self._av.FFmpegError as error:
            raise OSError(str(error)) from error


@lru_cache(maxsize=1)
def _has_h264() -> bool:
    """Whether the package av is installed with an encoder for H.264."""
    try:
        import av
    except ImportError:
        return False
    return "libx264" in av.codecs_available


@contextmanager
def copying(target: Path, rate: float, wanted: bool = True) -> Iterator[VideoCopy]:
    """Open a video to write; at the end it replaces ``target``, completely or not at all. If it is
    not ``wanted``, frames are accepted and nothing is written.

    Raises: WriteError at the end if OpenCV or writing failed.
    """
    if not wanted:
        copy = VideoCopy(target, rate)
        copy.problem = "not wanted"
        yield copy
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(target) as unfinished:
        copy = VideoCopy(unfinished, rate)
        try:
            yield copy
        finally:
            copy.close()
        if copy.problem:
            raise WriteError(f"video {shown(str(target), 300)}: cannot be written, {copy.problem}")


def _count_frames(path: Path) -> int:
    with plain_name(path) as name:
        capture = cv2.VideoCapture(name)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()

"""Annotated copies of videos as MP4, whole or not at all: H.264 with the package av, else MPEG-4 by
OpenCV.
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
        self._writer: _Writer | None = None
        self._size = 0, 0

    def add(self, frame: np.ndarray, times: int = 1) -> None:
        """Write uint8 BGR (h, w, 3), in the size of the first frame; several ``times`` if it
        stands for frames that could not be read.
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
        """Finish the file, and read it again: OpenCV does not tell of a full disk."""
        if self._writer is None:
            return
        try:
            self._writer.release()
        except OSError as error:
            self.problem = self.problem or str(error)
        if not self.problem:
            written = _count_frames(self.path)
            if written != self.frames:
                self.problem = f"{written} of {self.frames} frames arrived; is the disk full?"

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
            self.problem = f"OpenCV writes no MP4 of {width}x{height} pixels here"


class _Writer(Protocol):
    """What ``VideoCopy`` uses of OpenCV's writer."""

    def write(self, frame: np.ndarray) -> None: ...
    def release(self) -> None: ...


class _H264Writer:
    """H.264, which browsers and telephones play, by the package av; of an odd side the last pixel
    is left out. Raises: OSError if FFmpeg or the disk refuses.
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
    """Whether the package av is here with an encoder for H.264."""
    try:
        import av
    except ImportError:
        return False
    return "libx264" in av.codecs_available


@contextmanager
def copying(target: Path, rate: float, wanted: bool = True) -> Iterator[VideoCopy]:
    """A video to write; at the end it takes the place of ``target``, whole or not at all. If it is
    not ``wanted``, frames are taken and nothing is written.

    Raises: WriteError at the end if OpenCV or the disk refused.
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

"""Videos and streams: every frame that can be read with its number, and annotated copies."""

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from mindyolo_ext import atomic
from mindyolo_ext.data.image_file import MAX_PIXELS
from mindyolo_ext.engine.remote import without_login
from mindyolo_ext.engine.sources import VIDEO_SUFFIXES
from mindyolo_ext.errors import DataError, MissingFileError, WriteError, shown

MOST_BAD_FRAMES = 1000  # in a row: then the video is over, whatever its header announces
MOST_BAD_LIVE_FRAMES = 3  # of a stream, each after its time-out
_TIMEOUT = 10_000  # milliseconds for a stream to answer
_USUAL_RATE = 25.0  # frames per second of a file that does not say a sensible number
_HIGHEST_RATE = 1000.0
_TEXT_BYTES = 64  # a container of video has others among its first ones
_TEXT = frozenset((*b"\t\n\r", *range(0x20, 0x7F), 0xEF, 0xBB, 0xBF))  # and the mark of UTF-8


class VideoReader:
    """Frames of a video with their numbers. A frame that cannot be read is passed over.

    Args:
        path: the file, the address of a stream (``rtsp://``, ``http://`` ...), or the number of a
            camera as text.
        stride: give only every so many-th frame; the others are not decoded into pixels.

    Attributes: ``announced`` frames by the header that will be given, 0 if it does not say;
        ``rate`` of the given frames per second; ``read`` frames so far; ``is_live`` for streams
        and cameras.
    Raises: MissingFileError; DataError for a file that OpenCV cannot read or one of larger frames
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
        """What messages call it."""
        if not self.is_live:
            return "video"
        return "camera" if self.name.isdecimal() else "stream"

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """(number from 0 of the given frames, uint8 BGR frame). Each frame that cannot be read
        counts as one.
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
        with _plain(self.path) as name:
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


def _is_live(path: str | Path) -> bool:
    """Whether it names a stream or a camera, not a file."""
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
    with _plain(Path(path)) as plain:
        return cv2.VideoCapture(plain)


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

"""The job of ``mindyolo-ext predict``: process all sources even if some fail."""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TextIO

import cv2
import numpy as np

from mindyolo_ext import progress
from mindyolo_ext.data.image_file import read_image
from mindyolo_ext.engine.detections import Detections
from mindyolo_ext.engine.predict_files import ResultFiles, WantedFiles, with_name
from mindyolo_ext.engine.remote import Remote
from mindyolo_ext.engine.sources import (
    VIDEO_SUFFIXES,
    Output,
    Sources,
    claim_folder,
    name_outputs,
    survey,
)
from mindyolo_ext.engine.tracking import new_tracker, weakest
from mindyolo_ext.engine.video import VideoReader
from mindyolo_ext.engine.video_copy import VideoCopy, copying
from mindyolo_ext.engine.window import Window, check_display
from mindyolo_ext.errors import DataError, UsageError, WriteError, shown

logger = logging.getLogger(__name__)
DEFAULT_FOLDER = Path("runs/predict")
# Errors of one image or video. A DeviceError is not among them: it ends the job.
_ITEM_ERRORS = (ValueError, OSError, MemoryError, cv2.error)
Numbered = tuple[int, Detections]  # a frame's number and its detections


class Finder(Protocol):
    """The methods of a ``Detector`` that the job uses."""

    def predict(self, image: Any, *, conf_thres: float | None = None) -> Any:
        """Detections of an image, or a list of them for a list; only a tracker overrides the
        threshold.
        """

    def routing(self) -> str:
        """Describe the exits taken in a sentence, or return an empty text."""


@dataclass(frozen=True)
class PredictOptions:
    """What to write, and how to read sources.

    Args:
        save_images, save_txt, save_crop, save_json: see ``WantedFiles``.
        recursive: include subfolders.
        vid_stride: process every ``vid_stride``-th frame of a video.
        track: follow objects through videos, see ``new_tracker``.
        track_conf: score from which an object is followed.
        batch: images or frames per call of the detector; always one for streams.
        show: open a window with the annotated images.

    Raises: UsageError for a number below 1.
    """

    save_images: bool = True
    save_txt: bool = False
    save_crop: bool = False
    save_json: bool = False
    recursive: bool = False
    vid_stride: int = 1
    track: str = ""
    track_conf: float = 0.3
    batch: int = 1
    show: bool = False

    def __post_init__(self) -> None:
        for name, value in (("vid_stride", self.vid_stride), ("batch", self.batch)):
            if value < 1:
                raise UsageError(f"--{name}: wanted at least 1, got {value}")

    @property
    def files(self) -> WantedFiles:
        """The files to write."""
        return WantedFiles(self.save_images, self.save_txt, self.save_crop, self.save_json)


def predict_sources(
    detector: Finder,
    source: str | Path | Sequence[str | Path],
    save_dir: str | Path | None = None,
    options: PredictOptions | None = None,
) -> dict[str, list]:
    """Annotate all images and videos of ``source`` and write ``predictions.json`` beside them.

    A file that cannot be read is reported and skipped. If the job is interrupted, the results so
    far are written.

    Args:
        detector: a ``Detector``, or an object with its ``predict`` and ``routing``.
        source: as in ``survey``.
        save_dir: folder for the results. If it already holds results (or, for the default
            ``runs/predict``, if it exists), the first new one of save_dir2, save_dir3 ... is used.

    Returns: rows by file name, or by path below the common folder if names repeat. For a video the
        value is a list with the rows of each frame, None for an unreadable frame; for a stream it
        is an empty list, because its rows are lines of a file.
    Raises: MissingFileError or UsageError for a source that is not recognized; DataError if no file
        could be read; UsageError if ``save_dir`` is the folder of the sources, or ``track`` is
        given images only; DeviceError for ``show`` without a display; MissingPackageError if the
        package for ``track`` is missing; WriteError.
    """
    options = options or PredictOptions()
    sources = checked_sources(source, options)
    outputs = name_outputs(sources.paths, sources.remotes)
    window = Window() if options.show else None
    wanted = DEFAULT_FOLDER if save_dir is None else Path(save_dir)
    folder = claim_folder(wanted, outputs, must_be_new=save_dir is None)
    if folder != wanted:
        logger.info("%s exists and is not changed; these results go to %s", wanted, folder)
    files = ResultFiles(folder, options.files)
    for problem in sources.problems:
        files.leave_out(problem)
    try:
        _Job(detector, options, files, window).run(outputs)
    finally:
        if window is not None:
            window.close()
        files.close(len(outputs) + len(sources.problems))
    if not files.rows:
        raise DataError(
            f"predict: none of {len(outputs)} files could be read; the first: {files.left_out[0]}"
        )
    if detector.routing():
        logger.info("%s", detector.routing())
    if sources.not_looked_at():
        logger.info("ignored: %s", sources.not_looked_at())
    logger.info("%s", files.summary())
    return files.rows


def checked_sources(source: str | Path | Sequence[str | Path], options: PredictOptions) -> Sources:
    """Survey the sources and check that the options fit them, quickly and without a network.

    Raises: as ``survey`` and ``check_display``; UsageError if ``track`` is given images only or is
        not a tracker; MissingPackageError if the package for ``track`` is missing.
    """
    found = survey(source, recursive=options.recursive)
    if options.track:
        videos = any(path.suffix.lower() in VIDEO_SUFFIXES for path in found.paths)
        if not videos and not found.remotes:
            raise UsageError("--track: follows objects through videos and streams, got images only")
        new_tracker(options.track, 25.0, options.track_conf)
    if options.show:
        check_display()
    return found


@dataclass
class _Job:
    """One run of ``predict_sources``.

    Args:
        detector: finds the boxes.
        options: how sources are read.
        files: where results are written.
        window: where they are shown.
    """

    detector: Finder
    options: PredictOptions
    files: ResultFiles
    window: Window | None = None

    def run(self, outputs: Sequence[Output]) -> None:
        """Process all sources; those that cannot be read are skipped."""
        unit = "file" if any(output.is_video for output in outputs) else "image"
        with progress.bar(total=len(outputs), title="predict", unit=unit) as bar:
            for group in _groups(outputs, self.options.batch):
                if len(group) > 1:
                    self._take_images(group)
                else:
                    self._take(group[0])
                self.files.lap()
                bar.update(len(group))

    def _take(self, output: Output) -> None:
        """Process one source, or report why it cannot be read."""
        try:
            if isinstance(output.path, Remote):
                self._take_remote(output, output.path)
            elif output.is_video:
                with VideoReader(output.path, stride=self.options.vid_stride) as video:
                    self._take_video(output, video)
            else:
                self._keep(output, self.detector.predict(output.path))
        except _ITEM_ERRORS as error:
            self._leave_out(output, error)

    def _take_images(self, outputs: Sequence[Output]) -> None:
        """Process several images in one batch; if that fails, one after the other."""
        images, readable = [], []
        for output in outputs:
            try:
                images.append(read_image(str(output.path)))
                readable.append(output)
            except _ITEM_ERRORS as error:
                self._leave_out(output, error)
        try:
            found = self.detector.predict(images) if images else []
        except _ITEM_ERRORS:
            for output in readable:
                self._take(output)
            return
        for output, one in zip(readable, found, strict=True):
            try:
                self._keep(output, one)
            except _ITEM_ERRORS as error:
                self._leave_out(output, error)

    def _leave_out(self, output: Output, error: BaseException) -> None:
        self.files.rows.pop(output.name, None)
        self.files.leave_out(with_name(error, output.path))

    def _keep(self, output: Output, found: Detections) -> None:
        self.files.keep_image(output, found)
        self._show(output, found, waits=True)

    def _show(self, output: Output, found: Detections, *, waits: bool) -> None:
        if self.window is not None:
            self.window.show(shown(output.name, 100), found.plot(), waits=waits)

    # ---- videos and streams ----------------------------------------------------------------------

    def _take_remote(self, output: Output, remote: Remote) -> None:
        """Process an image or a stream that is not a local file."""
        from mindyolo_ext.engine.streams import open_remote  # imports the HTTP modules

        opened = open_remote(remote, stride=self.options.vid_stride)
        if isinstance(opened, np.ndarray):
            self._keep(output, self.detector.predict(opened))
            return
        lines = self.files.folder / output.lines_target
        logger.info("%s: press Ctrl-C to end it; rows go to %s", remote, lines)
        try:
            with opened, open(lines, "x", encoding="utf-8") as file:
                self._take_stream(output, opened, file)
        finally:
            if not opened.read:
                lines.unlink(missing_ok=True)
        if not opened.read:
            raise DataError(f"{remote}: gave no frame")
        self.files.rows[output.name] = []
        logger.info("%s: %d frames", remote, opened.read)

    def _take_stream(self, output: Output, video: VideoReader, file: TextIO) -> None:
        """Write a line to ``file`` for each frame, until the stream ends or Ctrl-C."""
        target = self.files.folder / output.video_target
        try:
            with copying(target, video.rate, self.options.save_images) as copy:
                try:
                    for number, found in self._frames(video, output):
                        row = {"frame": number, "found": self.files.rows_of(found)}
                        file.write(json.dumps(row, allow_nan=False) + "\n")
                        file.flush()
                        _add(copy, found)
                except KeyboardInterrupt:
                    if not video.read:
                        raise
        except WriteError as error:
            self.files.keep_unwritten(error, target)

    def _take_video(self, output: Output, video: VideoReader) -> None:
        """Rows of each frame; in the copy, the next frame replaces an unreadable one.

        Raises: KeyboardInterrupt after the results so far have been kept.
        """
        rows: list[list[dict] | None] = []
        target, begin, stopped = self.files.folder / output.target, time.perf_counter(), False
        try:
            with copying(target, video.rate, self.options.save_images) as copy:
                try:
                    for number, found in self._frames(video, output):
                        _add(copy, found, times=number + 1 - len(rows))
                        rows += [None] * (number - len(rows))
                        rows.append(self.files.rows_of(found))
                except KeyboardInterrupt:
                    stopped = True
                if not rows and not stopped:
                    raise DataError(f"video {video.name}: holds no frame that OpenCV can read")
        except WriteError as error:
            if not rows:
                raise
            self.files.keep_unwritten(error, target)
        if rows:
            self.files.rows[output.name] = rows
        if stopped:
            logger.warning("video %s: stopped after %d frames", video.name, len(rows))
            raise KeyboardInterrupt
        if video.shortfall():
            logger.warning("%s", video.shortfall())
        rate = video.read / (time.perf_counter() - begin)
        logger.info("%s: %d frames, %.1f frames/s", shown(output.name, 100), video.read, rate)

    def _frames(self, video: VideoReader, output: Output) -> Iterator[Numbered]:
        """Process each frame: number and detections, after showing it and writing its files."""
        track, lowest = self.options.track, self.options.track_conf
        follow = new_tracker(track, video.rate, lowest) if track else lambda found: found
        title, total = shown(output.name, 40), video.announced or None
        frames = progress.bar(iter(video), total=total, title=title, unit="frame")
        batch = 1 if video.is_live else self.options.batch
        for number, seen in _found(self.detector, frames, batch, weakest(track, lowest)):
            found = follow(seen)
            self.files.write_parts(found, f"{output.video_target}/{number}")
            self._show(output, found, waits=False)
            yield number, found


def _groups(outputs: Sequence[Output], batch: int) -> Iterator[list[Output]]:
    """Group image files, up to ``batch`` together; other sources stay alone."""
    waiting: list[Output] = []
    for output in outputs:
        alone = output.is_video or not isinstance(output.path, Path)
        if waiting and (alone or len(waiting) == batch):
            yield waiting
            waiting = []
        if alone:
            yield [output]
        else:
            waiting.append(output)
    if waiting:
        yield waiting


def _found(
    detector: Finder,
    frames: Iterable[tuple[int, np.ndarray]],
    batch: int,
    conf_thres: float | None,
) -> Iterator[Numbered]:
    """Number and detections of each frame; ``batch`` of them are processed at a time."""
    waiting, options = iter(frames), {} if conf_thres is None else {"conf_thres": conf_thres}
    while group := list(islice(waiting, batch)):
        numbers, images = zip(*group)
        if batch > 1:
            several = detector.predict(list(images), **options)
        else:
            several = [detector.predict(images[0], **options)]
        yield from zip(numbers, several, strict=True)


def _add(copy: VideoCopy, found: Detections, *, times: int = 1) -> None:
    """Draw a frame into the copy, unless writing the copy has failed."""
    if not copy.problem:
        copy.add(found.plot(), times=times)

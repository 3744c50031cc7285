"""The work of ``mindyolo-ext predict``: sources in; annotated copies, boxes and crops out."""

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from mindyolo_ext import atomic, progress
from mindyolo_ext.data.image_file import read_image, write_image
from mindyolo_ext.engine.detections import Detections
from mindyolo_ext.engine.sources import (
    PREDICTIONS,
    Output,
    claim_folder,
    counted,
    name_outputs,
    survey,
)
from mindyolo_ext.engine.streams import open_remote
from mindyolo_ext.engine.tracking import new_tracker
from mindyolo_ext.engine.video import VideoReader, copying
from mindyolo_ext.engine.window import Window
from mindyolo_ext.errors import DataError, UsageError, WriteError, shown

logger = logging.getLogger(__name__)
DEFAULT_FOLDER = Path("runs/predict")
COCO_FILE = "coco.json"
# What is wrong with one image or video. A DeviceError is not: it ends the job.
_ITEM_ERRORS = (ValueError, OSError, MemoryError, cv2.error)


class Finder(Protocol):
    """What the job uses of a ``Detector``."""

    def predict(self, image: Any) -> Any:
        """Detections of an image, or a list of them for a list."""

    def routing(self) -> str:
        """A sentence about exits, or nothing."""


@dataclass(frozen=True)
class PredictOptions:
    """What is written, and how sources are read.

    Args:
        save_images: annotated copies of images and videos.
        save_txt: labels/NAME.txt as YOLO reads them, with scores.
        save_crop: crops/CLASS/NAME_K.jpg, the part of the image in each box.
        save_json: a COCO data set of the boxes found in images, ``coco.json``.
        recursive: look into folders below folders.
        vid_stride: look at every so many-th frame of a video.
        track: follow objects through videos, see ``new_tracker``.
        batch: images that are given to the detector at once.
        show: open a window with the annotated images.
    """

    save_images: bool = True
    save_txt: bool = False
    save_crop: bool = False
    save_json: bool = False
    recursive: bool = False
    vid_stride: int = 1
    track: str = ""
    batch: int = 1
    show: bool = False

    def __post_init__(self) -> None:
        for name in ("vid_stride", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name}: wanted at least 1, got {getattr(self, name)}")


def predict_sources(
    detector: Finder,
    source: str | Path | Sequence[str | Path],
    save_dir: str | Path | None = None,
    options: PredictOptions | None = None,
) -> dict[str, list]:
    """Annotate everything ``source`` means and write ``predictions.json`` beside the copies.

    A file that cannot be read is reported and left out; the others go on. What was found until an
    interruption is written, too.

    Args:
        detector: a ``Detector``, or whatever has its ``predict`` and ``routing``.
        source: as in ``survey``.
        save_dir: folder for the results. If it already holds results, or by default if
            ``runs/predict`` is there at all, the first of save_dir2, save_dir3 ... that is new.

    Returns: rows by file name, or by path below the common folder where names repeat; for a video a
        list with the rows of each frame, None for a frame that could not be read; for a stream an
        empty list, as its rows are lines of a file.
    Raises: MissingFileError or UsageError for a source that means nothing; DataError if none of the
        files could be read; UsageError if ``save_dir`` is the folder they come from; WriteError.
    """
    options = options or PredictOptions()
    sources = survey(source, recursive=options.recursive)
    outputs = name_outputs(sources.paths, sources.remotes)
    if options.track and not sources.remotes and not any(output.is_video for output in outputs):
        raise UsageError("--track: follows objects through videos and streams, got images only")
    window = Window() if options.show else None
    wanted = DEFAULT_FOLDER if save_dir is None else Path(save_dir)
    folder = claim_folder(wanted, outputs, must_be_new=save_dir is None)
    if folder != wanted:
        logger.info("%s is left as it is; these results go to %s", wanted, folder)
    results = _Results(folder, options, window)
    for problem in sources.problems:
        results.leave_out(problem)
    try:
        with progress.bar(total=len(outputs), title="predict") as shown_bar:
            for group in _groups(outputs, options.batch):
                results.add(detector, group)
                shown_bar.update(len(group))
    finally:
        results.write(len(outputs) + len(sources.problems))
    if not results.rows:
        raise DataError(
            f"predict: none of {len(outputs)} files could be read; the first: {results.left_out[0]}"
        )
    if detector.routing():
        logger.info("%s", detector.routing())
    if sources.not_looked_at():
        logger.info("not looked at: %s", sources.not_looked_at())
    logger.info("%s", results.summary())
    return results.rows


def _groups(outputs: Sequence[Output], batch: int) -> Iterator[list[Output]]:
    """Files of images, up to ``batch`` together; everything else alone."""
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


@dataclass
class _Results:
    """What became of each file.

    Args:
        folder: where everything is written.
        options: what is written.
        window: where results are shown.
        rows: by name.
        left_out: why, of each file that could not be read.
        not_drawn: why, of each file whose boxes are in ``rows`` but whose copy could not be
            written.
    """

    folder: Path
    options: PredictOptions = field(default_factory=PredictOptions)
    window: Window | None = None
    rows: dict[str, list] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    not_drawn: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._coco = _CocoFile()
        self._images, self._since = 0, 0.0  # looked at, since the first was done

    def add(self, detector: Finder, outputs: list[Output]) -> None:
        """Predict one image or video, or several images, or report why not."""
        if len(outputs) > 1:
            self._add_batch(detector, outputs)
            return
        output = outputs[0]
        try:
            if output.is_video:
                rows = self._annotate_video(detector, output)
            elif isinstance(output.path, Path):
                rows = self._keep(output, detector.predict(output.path))
            else:
                rows = self._annotate_remote(detector, output)
        except _ITEM_ERRORS as error:
            self.leave_out(_named(error, output.path))
        else:
            self.rows[output.name] = rows

    def _add_batch(self, detector: Finder, outputs: list[Output]) -> None:
        """Predict several images; if that fails, one after the other."""
        images, readable = [], []
        for output in outputs:
            try:
                images.append(read_image(str(output.path)))
                readable.append(output)
            except _ITEM_ERRORS as error:
                self.leave_out(_named(error, output.path))
        try:
            found = detector.predict(images)
        except _ITEM_ERRORS:
            for output in readable:
                self.add(detector, [output])
            return
        for output, one in zip(readable, found, strict=True):
            try:
                self.rows[output.name] = self._keep(output, one)
            except _ITEM_ERRORS as error:
                self.leave_out(_named(error, output.path))

    def leave_out(self, why: str) -> None:
        """Report and count a file or source that could not be read."""
        self.left_out.append(why)
        logger.error("left out: %s", why)

    def write(self, wanted: int) -> None:
        """Write the rows; without any, take the empty folder away. ``wanted``: files to look at."""
        if self.window is not None:
            self.window.close()
        if self.rows:
            atomic.write_json(self.folder / PREDICTIONS, self.rows, indent=1)
            if self.options.save_json:
                atomic.write_json(self.folder / COCO_FILE, self._coco.content())
        elif not any(self.folder.iterdir()):
            self.folder.rmdir()
        done = len(self.rows) + len(self.left_out)
        if done < wanted:
            logger.warning("stopped after %d of %d files: %s", done, wanted, self.summary())

    def summary(self) -> str:
        """One line for the end."""
        not_drawn = f", {len(self.not_drawn)} without a copy" if self.not_drawn else ""
        seconds = time.perf_counter() - self._since
        rate = f", {(self._images - 1) / seconds:.1f} images/s" if self._images > 1 else ""
        return (
            f"{counted(self.rows, 'file')}, "
            f"{counted([row for rows in self.rows.values() for row in rows], 'row')}, "
            f"{len(self.left_out)} left out{not_drawn}{rate}. Results and "
            f"{PREDICTIONS}: {self.folder}"
        )

    # ---- what is written of one image ------------------------------------------------------------

    def _keep(self, output: Output, found: Detections) -> list[dict]:
        """Write what the options want of an image; returns its rows."""
        rows = self._rows_of(found)
        target = self.folder / output.target
        try:
            if self.options.save_images:
                target.parent.mkdir(parents=True, exist_ok=True)
                found.save(target)
            self._write_parts(found, output.stem)
            self._show(output, found, waits=True)
        except (OSError, UsageError) as error:
            self._keep_undrawn(error, target)
        self._coco.add(output.name, found)
        return rows

    def _rows_of(self, found: Detections) -> list[dict]:
        """JSON-ready rows. Raises: ValueError for a number that is not finite: one such box must
        not spoil the file of all.
        """
        rows = found.to_list()
        json.dumps(rows, allow_nan=False)
        self._images += 1
        if self._images == 1:
            self._since = time.perf_counter()  # without the compilation
        return rows

    def _write_parts(self, found: Detections, stem: str) -> None:
        """Labels and crops, as the options want."""
        if self.options.save_txt:
            path = self.folder / "labels" / f"{stem}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_text(path, found.to_yolo())
        if self.options.save_crop:
            for number, (name, crop) in enumerate(zip(found.names, found.crops(), strict=True)):
                path = self.folder / "crops" / _as_folder(name) / f"{stem}_{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_image(path, crop)

    def _show(self, output: Output, found: Detections, *, waits: bool) -> None:
        if self.window is not None:
            self.window.show(shown(output.name, 100), found.plot(), waits=waits)

    # ---- videos and streams ----------------------------------------------------------------------

    def _annotate_remote(self, detector: Finder, output: Output) -> list:
        """An image or a stream that is no file here."""
        opened = open_remote(output.path)
        if isinstance(opened, np.ndarray):
            return self._keep(output, detector.predict(opened))
        target = f"{output.stem}.mp4"
        lines = self.folder / f"{output.stem}.jsonl"
        logger.info("%s: Ctrl-C ends it; rows go to %s", output.path, lines)
        with opened, open(lines, "w", encoding="utf-8") as file:
            number = -1
            try:
                with copying(self.folder / target, opened.rate, self.options.save_images) as copy:
                    for number, found in self._frames(detector, opened, output):
                        row = {"frame": number, "found": self._rows_of(found)}
                        file.write(json.dumps(row, allow_nan=False) + "\n")
                        file.flush()
                        if not copy.problem:
                            copy.add(found.plot())
            except WriteError as error:
                self._keep_undrawn(error, self.folder / target)
        if not opened.read:
            lines.unlink()
            raise DataError(f"stream {opened.name}: gave no frame")
        logger.info("%s: %d frames", output.path, opened.read)
        return []

    def _annotate_video(self, detector: Finder, output: Output) -> list:
        """Rows of each frame; the copy shows the next frame in place of one that is unreadable."""
        rows: list[list[dict] | None] = []
        target, begin = self.folder / output.target, time.perf_counter()
        with VideoReader(output.path, stride=self.options.vid_stride) as video:
            try:
                with copying(target, video.rate, self.options.save_images) as copy:
                    for number, found in self._frames(detector, video, output):
                        if not copy.problem:
                            copy.add(found.plot(), times=number + 1 - len(rows))
                        rows += [None] * (number - len(rows))
                        rows.append(self._rows_of(found))
                    if not rows:
                        raise DataError(f"video {video.name}: holds no frame that OpenCV can read")
            except WriteError as error:
                if not rows:
                    raise
                self._keep_undrawn(error, target)
        if video.shortfall():
            logger.warning("%s", video.shortfall())
        rate = video.read / (time.perf_counter() - begin)
        logger.info("%s: %d frames, %.1f frames/s", shown(output.name, 100), video.read, rate)
        return rows

    def _frames(
        self, detector: Finder, video: VideoReader, output: Output
    ) -> Iterator[tuple[int, Detections]]:
        """Number and detections of each frame; of a stream until Ctrl-C."""
        track = self.options.track
        follow = new_tracker(track, video.rate) if track else lambda found: found
        title, total = shown(output.name, 40), video.announced or None
        try:
            for number, frame in progress.bar(iter(video), total=total, title=title):
                found = follow(detector.predict(frame))
                self._write_parts(found, f"{output.stem}_{number}")
                self._show(output, found, waits=False)
                yield number, found
        except KeyboardInterrupt:
            if not video.is_live:
                raise

    def _keep_undrawn(self, error: BaseException, target: Path) -> None:
        self.not_drawn.append(_named(error, target))
        logger.error("boxes kept, but no annotated copy: %s", self.not_drawn[-1])


class _CocoFile:
    """The boxes found in images as a COCO data set."""

    def __init__(self) -> None:
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        self._names: Sequence[str] = ()

    def add(self, name: str, found: Detections) -> None:
        """The next image, known by its number from 1 and ``name``."""
        number, self._names = len(self._images) + 1, found.class_names
        height, width = found.image.shape[:2]
        self._images.append({"id": number, "file_name": name, "width": width, "height": height})
        for record in found.to_coco(number):
            area = record["bbox"][2] * record["bbox"][3]
            more = {"id": len(self._annotations) + 1, "area": area, "iscrowd": 0}
            self._annotations.append({**record, **more})

    def content(self) -> dict:
        """The whole data set; a category's id is the class index."""
        categories = [{"id": k, "name": name} for k, name in enumerate(self._names)]
        return {
            "images": self._images,
            "annotations": self._annotations,
            "categories": categories,
        }


def _as_folder(class_name: str) -> str:
    """A class's name as that of a folder."""
    plain = re.sub(r"[\x00-\x1f/\\:*?\"<>|]+", "_", class_name).strip(" .")
    return plain[:100] or "class"


def _named(error: BaseException, path: object) -> str:
    """The message of an error, with the file in it."""
    text = str(error) or type(error).__name__
    name = shown(os.fspath(path) if isinstance(path, Path) else str(path), 300)
    return text if name in text else f"{name}: {shown(text, 500)}"

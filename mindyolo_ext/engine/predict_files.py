"""Write the results of a prediction: annotated copies, rows, labels, crops, a COCO data set."""

import json
import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mindyolo_ext import atomic
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.engine.detections import Detections
from mindyolo_ext.engine.sources import (
    COCO_FILE,
    CROPS,
    LABELS,
    PREDICTIONS,
    Output,
    counted,
)
from mindyolo_ext.errors import UsageError, shown

logger = logging.getLogger(__name__)
_MOST_TOLD = 20  # messages about files that could not be written; a full disk fails on every frame
_UNFIT = re.compile(r"[\x00-\x1f/\\:*?\"<>|]+")  # not allowed in folder names on some system


@dataclass(frozen=True)
class WantedFiles:
    """The files to write beside ``predictions.json``.

    Args:
        images: annotated copies of images and videos.
        txt: ``labels/NAME.txt`` as YOLO reads them, with scores.
        crop: ``crops/CLASS/NAME_K.jpg``, the part of the image in each box.
        json: ``coco.json``, the boxes of images as a COCO data set.
    """

    images: bool = True
    txt: bool = False
    crop: bool = False
    json: bool = False


@dataclass
class ResultFiles:
    """The folder of the results, and the outcome of each source.

    Args:
        folder: where everything is written.
        wanted: the files to write.
        rows: by name.
        left_out: the reason for each source that could not be read.
        unwritten: the reason for each source whose boxes are in ``rows`` but whose files could not
            all be written.
    """

    folder: Path
    wanted: WantedFiles = field(default_factory=WantedFiles)
    rows: dict[str, list] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._coco, self._pace = _CocoFile(), _Pace()

    def keep_image(self, output: Output, found: Detections) -> None:
        """Write the files of an image.

        Raises: ValueError for a number that is not finite.
        """
        self.rows[output.name] = self.rows_of(found)
        target = self.folder / output.target
        if self.wanted.images:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                found.save(target)
            except (OSError, UsageError) as error:
                self.keep_unwritten(error, target)
        self.write_parts(found, output.stem)
        if self.wanted.json:
            self._coco.add(output.name, found)

    def rows_of(self, found: Detections) -> list[dict]:
        """JSON-ready rows of an image or frame.

        Raises: ValueError for a number that is not finite, which would make the JSON file invalid.
        """
        rows = found.to_list()
        json.dumps(rows, allow_nan=False)
        self._pace.images += 1
        return rows

    def write_parts(self, found: Detections, stem: str) -> None:
        """Write labels and crops of an image or frame as requested, under the unique ``stem``."""
        try:
            if self.wanted.txt:
                path = self.folder / LABELS / f"{stem}.txt"
                atomic.write_bytes(path, found.to_yolo().encode(), flush=False)
            if self.wanted.crop:
                for number, (name, crop) in enumerate(zip(found.names, found.crops())):
                    write_image(
                        self.folder / CROPS / as_folder(name) / f"{stem}_{number}.jpg", crop
                    )
        except (OSError, UsageError) as error:
            self.keep_unwritten(error, self.folder / stem)

    def keep_unwritten(self, error: BaseException, target: Path) -> None:
        """Report and count a file that could not be written."""
        self.unwritten.append(with_name(error, target))
        if len(self.unwritten) <= _MOST_TOLD:
            logger.error("boxes kept, but not written: %s", self.unwritten[-1])

    def leave_out(self, why: str) -> None:
        """Report and count a source that could not be read."""
        self.left_out.append(why)
        logger.error("left out: %s", why)

    def lap(self) -> None:
        """Count processed images for the speed; the first lap is left out as it compiles."""
        self._pace.lap()

    def close(self, wanted: int) -> None:
        """Write the rows, or remove the folder if there are none. ``wanted`` is the number of
        sources.
        """
        if self.rows:
            atomic.write_json(self.folder / PREDICTIONS, self.rows, indent=1)
            if self.wanted.json:
                atomic.write_json(self.folder / COCO_FILE, self._coco.content())
        elif not any(self.folder.iterdir()):
            self.folder.rmdir()
        done = len(self.rows) + len(self.left_out)
        if done < wanted:
            logger.warning("stopped after %d of %d files: %s", done, wanted, self.summary())

    def summary(self) -> str:
        """Summarize the run in one line."""
        rows = [row for rows in self.rows.values() for row in rows]
        unwritten = f", {counted(self.unwritten, 'file')} not written" if self.unwritten else ""
        return (
            f"{counted(self.rows, 'file')}, {counted(rows, 'row')}, {len(self.left_out)} left out"
            f"{unwritten}{self._pace.text()}. Results and {PREDICTIONS}: {self.folder}"
        )


class _Pace:
    """Images per second from the end of the first lap on."""

    def __init__(self) -> None:
        self.images = 0
        self._before, self._begin = 0, 0.0
        self._seconds = 0.0

    def lap(self) -> None:
        """Record the time."""
        if not self._before:
            self._before, self._begin = self.images, time.perf_counter()
        self._seconds = time.perf_counter() - self._begin

    def text(self) -> str:
        """``, 12.3 images/s``; empty before the second lap."""
        images = self.images - self._before
        return f", {images / self._seconds:.1f} images/s" if images and self._seconds else ""


class _CocoFile:
    """The boxes of images as a COCO data set."""

    def __init__(self) -> None:
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        self._names: Sequence[str] = ()

    def add(self, name: str, found: Detections) -> None:
        """Add an image with its number, counted from 1, and ``name``."""
        number, self._names = len(self._images) + 1, found.class_names
        height, width = found.image.shape[:2]
        self._images.append({"id": number, "file_name": name, "width": width, "height": height})
        for record in found.to_coco(number):
            area = record["bbox"][2] * record["bbox"][3]
            more = {"id": len(self._annotations) + 1, "area": area, "iscrowd": 0}
            self._annotations.append({**record, **more})

    def content(self) -> dict:
        """The whole data set; the ID of a category is the class index."""
        categories = [{"id": k, "name": name} for k, name in enumerate(self._names)]
        return {
            "images": self._images,
            "annotations": self._annotations,
            "categories": categories,
        }


def as_folder(class_name: str) -> str:
    """Make a class name usable as a folder name."""
    return _UNFIT.sub("_", class_name).strip(" .")[:80].strip() or "class"


def with_name(error: BaseException, path: object) -> str:
    """The message of an error, with the file name in it."""
    text = str(error) or type(error).__name__
    name = shown(os.fspath(path) if isinstance(path, Path) else str(path), 300)
    return text if name in text else f"{name}: {shown(text, 500)}"

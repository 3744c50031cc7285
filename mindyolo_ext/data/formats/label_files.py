"""Read text files of boxes, one per photo, for the formats ``yolo`` and ``darknet``."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mindyolo_ext.data.collector import Collector, raise_faults
from mindyolo_ext.data.image_file import IMAGE_SUFFIXES
from mindyolo_ext.data.text import MAX_FAULTS, MAX_INTEGER, MAX_LABEL_BYTES, read_lines
from mindyolo_ext.data.types import Problem
from mindyolo_ext.errors import DataError, MissingFileError, shown

BOX_TOLERANCE = 1e-3  # fraction of the photo; label files contain rounded numbers
_BESIDE_IMAGES = (".txt", ".xml", ".json")  # labels; any other file there is reported
_OF_MAC = "._"  # macOS adds one such file of attributes per image to its zip files


@dataclass
class ImageList:
    """The images of a folder or list, and the files that were skipped or are suspicious."""

    paths: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def find_images(source: Path, data_root: str | Path) -> ImageList:
    """Find the image files of a folder (sorted, with subfolders) or of a list file (in its order).

    A relative path in a list refers to ``data_root`` or to the list's folder, or to the latter
    without the path's first folder, as CVAT packs its lists.

    Raises: MissingFileError or DataError for a list that cannot be read.
    """
    if source.suffix.lower() in IMAGE_SUFFIXES and source.is_file():
        raise DataError(f"{source}: wanted a folder of images or a list of them, got an image")
    return _in_folder(source) if source.is_dir() else _in_list(source, data_root)


def list_images(source: Path, data_root: str | Path) -> list[str]:
    """Return only the files of ``find_images``. Raises: DataError for a line that does not name an
    image.
    """
    found = find_images(source, data_root)
    raise_faults(str(source), found.problems)
    return found.paths


def _in_folder(source: Path) -> ImageList:
    """Find the images of a folder and its subfolders; links to folders are not followed."""
    result = ImageList()
    left_out: dict[str, list[str]] = {}  # files by suffix

    def unreadable(error: OSError) -> None:
        message = f"cannot be read ({error.strerror})"
        result.problems.append(Problem("unreadable folder", str(error.filename), message))

    for folder, below, files in os.walk(source, onerror=unreadable):
        for name in files:
            path, suffix = os.path.join(folder, name), os.path.splitext(name)[1].lower()
            if suffix in IMAGE_SUFFIXES and not name.startswith(_OF_MAC):
                result.paths.append(path)
            elif suffix not in _BESIDE_IMAGES:
                kind = _OF_MAC + "*" if name.startswith(_OF_MAC) else suffix or "no suffix"
                left_out.setdefault(kind, []).append(path)
        links = [os.path.join(folder, name) for name in below]
        for link in filter(os.path.islink, links):
            message = "a link to a folder, whose images are left out; name the folder itself"
            result.problems.append(Problem("left out", link, message))
    result.paths.sort()
    for kind, paths in sorted(left_out.items()):
        message = f"{len(paths)} file(s) {kind}, such as {os.path.basename(min(paths))}"
        result.problems.append(Problem("left out", str(source), message))
    return result


def _in_list(source: Path, data_root: str | Path) -> ImageList:
    """Return the images that the lines of a file name."""
    result = ImageList()
    for number, line in read_lines(source):
        if len(result.problems) >= MAX_FAULTS:
            result.problems.append(too_many_faults(f"{source}:{number}"))
            break
        if not line.lower().endswith(IMAGE_SUFFIXES):
            message = f"wanted an image ({', '.join(IMAGE_SUFFIXES)}), got {shown(repr(line))}"
            result.problems.append(Problem("malformed line", f"{source}:{number}", message))
            continue
        beside = source.parent
        places = [os.path.join(folder, line) for folder in (data_root, beside)]
        places.append(os.path.join(beside, *Path(line).parts[1:]))
        if "\\" in line:  # written on Windows
            places += [os.path.join(root, line.replace("\\", "/")) for root in (data_root, beside)]
        places = [os.path.normpath(place) for place in places]
        result.paths.append(next((place for place in places if os.path.isfile(place)), places[0]))
    for path, count in Counter(result.paths).items():
        if count > 1:
            problem = Problem("listed twice", str(source), f"{path} is listed {count} times")
            result.problems.append(problem)
    return result


def too_many_faults(where: str) -> Problem:
    """Report that the rest of a file is not read."""
    message = f"reading stopped after {MAX_FAULTS:,} faults; is it another kind of file?"
    return Problem("malformed file", where, message)


def label_path(path: str, image_folder: Path | None, label_folder: Path | None) -> str:
    """Return the label file of an image; see ``read_yolo``."""
    stem = os.path.splitext(path)[0]
    if label_folder is not None:
        inside = (
            os.path.relpath(stem, image_folder)
            if image_folder is not None
            else os.path.basename(stem)
        )
        return os.path.join(label_folder, inside + ".txt")
    parts = stem.split(os.sep)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return os.sep.join(parts) + ".txt"


@dataclass(frozen=True)
class LabelLine:
    """One object of a label file.

    Args:
        label: class index, not yet compared with the number of classes.
        box: x1, y1, x2, y2 as fractions of the image.
        sides: width and height as written.
        outline: (points, 2) fractions, None for a plain box.
        numbers: how many numbers the line contains.
    """

    label: int
    box: tuple[float, float, float, float]
    sides: tuple[float, float]
    outline: np.ndarray | None
    numbers: int


def parse_label(line: str, key_point_numbers: int = 0) -> LabelLine:
    """Parse ``class cx cy w h``, or an outline ``class x y x y x y ...``.

    Args:
        key_point_numbers: how many numbers of a pose follow the box; outlines are then refused.

    Raises: DataError that describes the problem, without file and line number.
    """
    words = line.split()  # Unlike the original: any white space separates
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    count, wanted = len(words), 5 + key_point_numbers
    is_box = count in (5, wanted)
    outlined = not key_point_numbers and count >= 7 and count % 2 == 1
    if not values or not (is_box or outlined) or not _is_class(values[0]):
        form = "five numbers: class cx cy w h (fractions of the image)"
        form += (
            f", or {wanted} with the key points of kpt_shape"
            if key_point_numbers
            else ", or class and points x y x y x y ..."
        )
        raise DataError(f"wanted {form}, got {shown(repr(line[:80]))}{_guess(words, values)}")
    if outlined:
        outline = np.array(values[1:]).reshape(-1, 2)
        low, high = outline.min(0).tolist(), outline.max(0).tolist()
        sides = (high[0] - low[0], high[1] - low[1])
        return LabelLine(int(values[0]), (*low, *high), sides, outline, count)
    cx, cy, width, height = values[1:5]
    box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    return LabelLine(int(values[0]), box, (width, height), None, count)


def _is_class(value: float) -> bool:
    """Whether it can be a class index; the collector checks it against the classes."""
    return value.is_integer() and abs(value) <= MAX_INTEGER


def _guess(words: Sequence[str], values: Sequence[float]) -> str:
    """Guess what a malformed line is, for the message; empty if unknown."""
    if len(values) == 6:
        return "; a sixth number may be a score or an angle, which label files do not have"
    if len(values) > 7:
        return "; are these key points of a pose? Set kpt_shape: [points, 2 or 3]"
    if not values and len(words) in (9, 10):
        return "; oriented boxes of DOTA must be converted to class x y x y x y x y in fractions"
    if "," in "".join(words):
        return "; separate numbers by spaces and use decimal points"
    return ""


class LabelReader:
    """Read label files into a collector, file by file.

    Args:
        collector: receives the images, their boxes and all faults.
        missing_allowed: whether an image without a label file counts as one without boxes.
        polygons: whether to keep outlines.
        key_point_numbers: as in ``parse_label``.
    """

    def __init__(
        self,
        collector: Collector,
        *,
        missing_allowed: bool = False,
        polygons: bool = False,
        key_point_numbers: int = 0,
    ):
        self._collector = collector
        self._missing_allowed = missing_allowed
        self._polygons = polygons
        self._key_point_numbers = key_point_numbers
        self._image_of: dict[str, str] = {}  # by label file
        self._lengths: Counter[int] = Counter()  # number of lines by how many numbers they contain
        self._first_long = ""

    def add(self, path: str, image_id: int, label: str) -> None:
        """Add an image and the boxes of its label file."""
        lines: list[LabelLine] = []
        where: list[str] = []
        faults = 0
        for number, text in self._lines(path, label):
            place = f"{label}:{number}"
            try:
                line = parse_label(text, self._key_point_numbers)
            except DataError as error:
                self._collector.report("malformed label", place, str(error))
                faults += 1
                if faults == MAX_FAULTS:
                    self._collector.problems.append(too_many_faults(place))
                    break
                continue
            lines.append(line)
            where.append(place)
            self._lengths[line.numbers] += 1
            if line.outline is not None:
                self._first_long = self._first_long or place
        self._collector.add(
            path,
            image_id,
            None,
            boxes=[line.box for line in lines],
            labels=[line.label for line in lines],
            ignore=[False] * len(lines),
            where=where,
            polygons=[line.outline if self._polygons else None for line in lines],
        )

    def _lines(self, path: str, label: str) -> Iterator[tuple[int, str]]:
        """Return the lines of a label file; none, with a report, if it cannot be read."""
        try:
            lines = read_lines(label, most=MAX_LABEL_BYTES)
        except MissingFileError:
            if os.path.isfile(path):  # the collector reports a missing image
                kind = "no label file" if self._missing_allowed else "missing label"
                message = f"no such label file, wanted one for {path}"
                self._collector.report(kind, label, message)
            return iter(())
        except DataError as error:
            self._collector.report("malformed label", label, str(error).removeprefix(f"{label}: "))
            return iter(())
        other = self._image_of.setdefault(label, path)
        if other != path:
            message = f"is the label file of {other} and of {path}; rename one with a label file"
            self._collector.report("shared label file", label, message)
        return lines

    def report_doubts(self) -> None:
        """Report, after all files are read, if all of them could be interpreted differently."""
        if len(self._lengths) != 1 or not self._first_long:
            return
        numbers, count = next(iter(self._lengths.items()))
        if numbers == 9:
            message = (
                f"all {count} lines hold 9 numbers, as oriented boxes do: every box becomes the "
                "bounding box of its corners"
            )
            self._collector.report("doubtful labels", self._first_long, message)
        elif numbers > 9:
            message = (
                f"all {count} lines hold {numbers} numbers and are read as outlines; if they are "
                "box and key points of a pose, set kpt_shape: [points, 2 or 3]"
            )
            self._collector.report("doubtful labels", self._first_long, message)

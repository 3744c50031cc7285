"""Data sets in the Pascal VOC layout: ``JPEGImages``, ``Annotations/*.xml``,
``ImageSets/Main/<split>.txt``.
"""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.image_file import image_size
from mindyolo_ext.data.text import find_path, ids_from_names, read_lines, read_names
from mindyolo_ext.errors import ConfigError, DataError, MissingFileError
from mindyolo_ext.progress import bar

_BOX_TOLERANCE = 1.0  # pixels; programs disagree where counting starts
_DIFFICULT = ("ignore", "keep", "drop")


def read_voc(
    *,
    names: str | Sequence[str],
    root: str | None = None,
    split: str | None = None,
    sets: Sequence[Mapping[str, str]] | None = None,
    first_pixel: int = 1,
    difficult: str = "ignore",
    min_area: float = 0.0,
    data_root: str | Path = ".",
    cache: bool = False,
    strict: bool = True,
) -> Dataset:
    """Read one or more image sets of VOC folders as one data set.

    Objects are the direct ``object`` children of an annotation; their ``part`` boxes are none.

    Args:
        names: class names in the order of the labels, or a file with one per line.
        root: folder that holds ``JPEGImages``, ``Annotations`` and ``ImageSets``; also found below
            ``VOCdevkit``, where the official archives put it.
        split: name of the list in ``ImageSets/Main``, such as ``train``.
        sets: several pairs of ``root`` and ``split`` instead of one.
        first_pixel: coordinate of the first pixel: 1 as in Pascal VOC (a box then is xmin - 1, ymin
            - 1, xmax, ymax), 0 for programs that write plain coordinates.
        difficult: what becomes of objects that say so: ``ignore`` (neither trained on nor counted
            as missed), ``keep`` (like all others) or ``drop``.
        min_area: objects of this area or less (square pixels of the photo) are dropped; 0 keeps
            all.
        data_root: folder to which ``root`` and ``names`` refer.
        cache, strict: see ``Collector.finish``.

    Raises: MissingFileError; ConfigError that names the key; DataError that names file and object.
    """
    rules = _Rules(first_pixel, difficult, min_area)
    places = _image_sets(root, split, sets, data_root)
    class_names = read_names(names, data_root, places[0][0])
    label_of = {name: label for label, name in enumerate(class_names)}
    listed = [_listed(folder, list_file) for folder, list_file in places]
    twice = [
        path
        for path, count in Counter(path for found in listed for path in dict(found)).items()
        if count > 1
    ]
    if twice:
        raise DataError(
            f"data (format voc): wanted every image in one of the sets, got {twice[0]} in "
            f"several ({len(twice)} such images)"
        )
    paths = [path for found in listed for path, _ in found]
    files = [file for found in listed for _, file in found]

    collector = Collector(
        " + ".join(str(list_file) for _, list_file in places),
        class_names,
        relative=False,
        tolerance=_BOX_TOLERANCE,
    )
    shown = bar(files, title="reading labels", show=sys.stderr.isatty())
    for file, path, image_id in zip(shown, paths, ids_from_names(paths), strict=True):
        rows: list[_Object] = []
        size = None
        if not file.is_file():
            collector.report(
                "missing label", str(file), f"no such annotation file, wanted one for {path}"
            )
        else:
            rows, written_size = _read_objects(collector, file, label_of, rules)
            size = _checked_size(collector, path, file, written_size)
        collector.add(
            path,
            image_id,
            size,
            boxes=[row.box for row in rows],
            labels=[row.label for row in rows],
            ignore=[row.ignored for row in rows],
            where=[row.where for row in rows],
        )
    return collector.finish(cache=cache, strict=strict)


@dataclass(frozen=True)
class _Object:
    """One box, xyxy in photo pixels, and where it was read."""

    box: tuple[float, float, float, float]
    label: int
    ignored: bool
    where: str


@dataclass(frozen=True)
class _Rules:
    """How objects are read: the arguments of ``read_voc``, checked."""

    first_pixel: int
    difficult: str
    min_area: float

    def __post_init__(self) -> None:
        if self.first_pixel not in (0, 1):
            raise ConfigError(
                f"data (format voc): first_pixel must be 0 or 1, got {self.first_pixel!r}"
            )
        if self.difficult not in _DIFFICULT:
            raise ConfigError(
                f"data (format voc): difficult must be one of {', '.join(_DIFFICULT)}, "
                f"got {self.difficult!r}"
            )
        if (
            isinstance(self.min_area, bool)
            or not isinstance(self.min_area, (int, float))
            or not self.min_area >= 0
        ):
            raise ConfigError(
                f"data (format voc): min_area must be a number of square pixels, 0 or more, "
                f"got {self.min_area!r}"
            )


def _image_sets(
    root: str | None,
    split: str | None,
    sets: Sequence[Mapping[str, str]] | None,
    data_root: str | Path,
) -> list[tuple[Path, Path]]:
    """(folder, list file) of every image set."""
    if (root is None or split is None) if sets is None else (root is not None or split is not None):
        raise ConfigError(
            f"data (format voc): wanted the keys root and split, or sets alone, got root {root!r}, "
            f"split {split!r}, sets {sets!r}"
        )
    if sets is None:
        sets = [{"root": str(root), "split": str(split)}]
    if (
        isinstance(sets, (str, Mapping))
        or not sets
        or any(not isinstance(one, Mapping) or set(one) != {"root", "split"} for one in sets)
    ):
        raise ConfigError(
            "data (format voc): sets must be a list such as [{root: VOC2007, split: trainval}, "
            f"{{root: VOC2012, split: trainval}}], got {sets!r}"
        )
    found = []
    for one in sets:
        folder = Path(str(one["root"]))
        folder = find_path([str(folder), str(folder.parent / "VOCdevkit" / folder.name)], data_root)
        found.append((folder, find_path(f"ImageSets/Main/{one['split']}.txt", folder)))
    return found


def _listed(folder: Path, list_file: Path) -> list[tuple[str, Path]]:
    """(image file, annotation file) of every line of an image set's list."""
    images = {path.stem: str(path) for path in sorted(find_path("JPEGImages", folder).iterdir())}
    stems = [line.split()[0] for _, line in read_lines(list_file)]
    return [
        (
            images.get(stem, str(folder / "JPEGImages" / f"{stem}.jpg")),
            folder / "Annotations" / f"{stem}.xml",
        )
        for stem in stems
    ]


def _read_objects(
    collector: Collector, file: Path, label_of: Mapping[str, int], rules: _Rules
) -> tuple[list[_Object], tuple[int, int] | None]:
    """Every object, and (height, width) as the file says, if it does."""
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        collector.report("malformed label", str(file), f"wanted xml, got a damaged file: {error}")
        return [], None
    rows: list[_Object] = []
    for number, item in enumerate(root.findall("object"), 1):
        where = f"{file}: object {number}"
        name = (item.findtext("name") or "").strip()
        texts = [item.findtext(f"bndbox/{key}") or "" for key in ("xmin", "ymin", "xmax", "ymax")]
        try:
            x1, y1, x2, y2 = (float(text) for text in texts)
        except ValueError:
            collector.report(
                "malformed label", where, f"wanted bndbox with xmin, ymin, xmax, ymax, got {texts}"
            )
            continue
        if name not in label_of:
            collector.report(
                "class out of range", where, f"wanted one of {', '.join(label_of)}, got {name!r}"
            )
            continue
        x1, y1 = x1 - rules.first_pixel, y1 - rules.first_pixel
        difficult = (item.findtext("difficult") or "0").strip() == "1"
        if difficult and rules.difficult == "drop":
            collector.report(
                "dropped box", where, f"difficult ({name}), and the data set says difficult: drop"
            )
        elif x2 > x1 and y2 > y1 and (x2 - x1) * (y2 - y1) <= rules.min_area:
            collector.report(
                "dropped box",
                where,
                f"{name} of {x2 - x1:g} x {y2 - y1:g} pixels, wanted an area above "
                f"min_area, {rules.min_area:g}",
            )
        else:
            ignored = difficult and rules.difficult == "ignore"
            rows.append(_Object((x1, y1, x2, y2), label_of[name], ignored, where))
    sides = [(root.findtext(f"size/{key}") or "").strip() for key in ("height", "width")]
    if all(side.isdigit() and int(side) for side in sides):
        return rows, (int(sides[0]), int(sides[1]))
    return rows, None


def _checked_size(
    collector: Collector, path: str, file: Path, written: tuple[int, int] | None
) -> tuple[int, int] | None:
    """(height, width) from the image, with a note if the xml file says otherwise; None without
    the image.
    """
    try:
        size = image_size(path)
    except MissingFileError:
        return None  # ``Collector.add`` notes it
    except DataError as error:
        collector.report("broken image", path, str(error))
        return None
    if written is not None and written != size:
        collector.report(
            "odd size",
            str(file),
            f"says {written[1]}x{written[0]} (width x height), the image is {size[1]}x{size[0]}",
        )
    return size

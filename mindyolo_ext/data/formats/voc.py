"""Read data sets in the Pascal VOC layout: ``JPEGImages``, ``Annotations/*.xml``,
``ImageSets/Main/<split>.txt``.
"""

import codecs
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.formats.label_files import too_many_faults
from mindyolo_ext.data.image_file import IMAGE_SUFFIXES
from mindyolo_ext.data.text import (
    MAX_FAULTS,
    find_path,
    ids_from_names,
    read_bytes,
    read_lines,
    read_names,
    whole,
)
from mindyolo_ext.errors import ConfigError, DataError, MissingFileError, shown
from mindyolo_ext.progress import bar

_BOX_TOLERANCE = 1.0  # pixels; programs number the first pixel 0 or 1
_DIFFICULT = ("ignore", "keep", "drop")
_YES = ("1", "true", "yes")
_NO = ("", "0", "false", "no", "unspecified")
_MAX_XML_BYTES = 4 * 2**20  # an annotation of a thousand objects has 0.3 MB
_DECLARED = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
# Programs that declare the smaller encoding write characters of the larger one, which contains it
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030"}
_OF_TEXT = re.compile("(ascii|big5|cp|euc|gb|hz|iso|johab|koi8|mac|shift|utf)[a-z0-9_-]*")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CLASS_LIST = re.compile(r"(.*\S)\s+(-1|0|1)")  # a line of VOC's lists of one class


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
    cache: bool | str = False,
    strict: bool = True,
) -> Dataset:
    """Read one or more image sets of VOC folders as one data set.

    Objects are the direct ``object`` children of an annotation; boxes of their ``part`` children
    are ignored.

    Args:
        names: class names in the order of the labels, or a file with one per line.
        root: folder that holds ``JPEGImages``, ``Annotations`` and ``ImageSets``; also found below
            ``VOCdevkit``, where the official archives put it.
        split: name of the list in ``ImageSets/Main``, such as ``train``.
        sets: several pairs of ``root`` and ``split`` instead of one.
        first_pixel: coordinate of the first pixel: 1 as in Pascal VOC (a box then is xmin - 1, ymin
            - 1, xmax, ymax), 0 for programs that write plain coordinates.
        difficult: what to do with difficult objects: ``ignore`` (neither train on them nor count
            them as missed), ``keep`` (like others) or ``drop``.
        min_area: objects of this area or less (square pixels of the photo) are dropped; 0 keeps
            all.
        data_root: folder that ``root`` and ``names`` refer to.
        cache, strict: see ``Collector.finish``.

    Raises: MissingFileError; ConfigError that names the key; DataError that names file and object.
    """
    rules = _Rules(first_pixel, difficult, min_area)
    places = _image_sets(root, split, sets, data_root)
    class_names = read_names(names, data_root, places[0][0])
    label_of = {name: label for label, name in enumerate(class_names)}
    collector = Collector(
        " + ".join(str(list_file) for _, list_file in places),
        class_names,
        relative=False,
        tolerance=_BOX_TOLERANCE,
    )
    listed = [_listed(collector, folder, list_file) for folder, list_file in places]
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

    progress = bar(files, title="reading labels", show=sys.stderr.isatty())
    for file, path, image_id in zip(progress, paths, ids_from_names(paths), strict=True):
        rows: list[_Object] = []
        size = None
        if not os.path.isfile(file):
            collector.report(
                "missing label", str(file), f"no such annotation file, wanted one for {path}"
            )
        else:
            rows, written_size = _read_objects(collector, file, label_of, rules)
            size = collector.checked_size(path, written_size, str(file), must_fit=False)
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
    """One box, xyxy in photo pixels, and the place where it was read."""

    box: tuple[float, float, float, float]
    label: int
    ignored: bool
    where: str


@dataclass(frozen=True)
class _Rules:
    """The checked arguments of ``read_voc`` that define how objects are read."""

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
    """Return (folder, list file) of every image set."""
    if (root is None or split is None) if sets is None else (root is not None or split is not None):
        raise ConfigError(
            f"data (format voc): wanted the keys root and split, or only sets, got root {root!r}, "
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
        places = [str(folder), str(folder.parent / "VOCdevkit" / folder.name)]
        folder = find_path(places, data_root, key="root")
        try:
            list_file = find_path(f"ImageSets/Main/{one['split']}.txt", folder, key="split")
        except MissingFileError as error:
            raise MissingFileError(
                f"{error}. It holds one image name without suffix a line; for all images: mkdir -p "
                f"{folder}/ImageSets/Main; (cd {folder}/Annotations && ls *.xml | sed 's/.xml$//') "
                f"> {folder}/ImageSets/Main/{one['split']}.txt"
            ) from None
        found.append((folder, list_file))
    return found


def _listed(collector: Collector, folder: Path, list_file: Path) -> list[tuple[str, Path]]:
    """Yield (image file, annotation file) of every line of an image set's list.

    A line is the image's name without suffix, which may contain spaces; in VOC's lists of one
    class, -1, 0 or 1 follows.
    """
    home = find_path("JPEGImages", folder, key="root")
    images: dict[str, list[str]] = {}  # by name without suffix
    for path in sorted(home.rglob("*"), key=lambda path: (path.suffix.lower() != ".jpg", path)):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            stem = path.relative_to(home).with_suffix("").as_posix()
            images.setdefault(stem, []).append(str(path))
    found = []
    for _, line in read_lines(list_file):
        stem = _stem(line, images)
        files = images.get(stem, [str(home / f"{stem}.jpg")])
        if len(files) > 1:
            message = f"{', '.join(files[1:])} has the same name and is skipped"
            collector.report("two images", files[0], message)
        found.append((files[0], folder / "Annotations" / f"{stem}.xml"))
    return found


def _stem(line: str, known: Mapping[str, object]) -> str:
    """Return the image name in a line of a list; ``known`` are the existing names."""
    of_class = _CLASS_LIST.fullmatch(line)
    stems = [line] + ([of_class[1]] if of_class else [])
    stems += [os.path.splitext(stem)[0] for stem in stems if stem.lower().endswith(IMAGE_SUFFIXES)]
    return next((stem for stem in stems if stem in known), stems[-1])


def _parsed(file: Path) -> ElementTree.Element:
    """Parse the annotation in an XML file, with tags without namespaces.

    Raises: DataError if it is not valid XML or not an annotation.
    """
    text = _decoded(read_bytes(file, most=_MAX_XML_BYTES))
    if "<!ENTITY" in text:
        raise DataError("wanted xml without custom entities, got <!ENTITY")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"wanted xml, got a damaged file: {error}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    if root.tag != "annotation":
        raise DataError(f"wanted xml of Pascal VOC, <annotation>, got <{shown(root.tag)}>")
    return root


def _decoded(content: bytes) -> str:
    """Decode XML with the encoding that it declares, or UTF-8."""
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    declared = _DECLARED.match(content.removeprefix(codecs.BOM_UTF8).lstrip())
    name = marked or (declared[1].decode("ascii") if declared else "utf-8")
    try:
        encoding = codecs.lookup(name).name
        if not _OF_TEXT.fullmatch(
            encoding
        ):  # Python has other codecs, for example for domain names
            raise LookupError(f"no text encoding {name}")
        text = content.decode(_WIDER.get(encoding, encoding))
    except (LookupError, UnicodeError) as error:
        raise DataError(
            f"wanted xml in {shown(name)}, got something else ({error}); declare the encoding that "
            'it has in its first line: <?xml version="1.0" encoding="GBK"?>'
        ) from error
    return text.lstrip()


def _read_objects(
    collector: Collector, file: Path, label_of: Mapping[str, int], rules: _Rules
) -> tuple[list[_Object], tuple[int, int] | None]:
    """Read every object, and (height, width) if the file states it."""
    try:
        root = _parsed(file)
    except DataError as error:
        collector.report("malformed label", str(file), str(error).removeprefix(f"{file}: "))
        return [], None
    rows: list[_Object] = []
    faults = 0
    for number, item in enumerate(root.findall("object"), 1):
        where = f"{file}: object {number}"
        try:
            row = _object(item, where, label_of, rules)
        except _Refused as refused:
            collector.report(refused.kind, where, refused.message)
            faults += 1
            if faults == MAX_FAULTS:
                collector.problems.append(too_many_faults(where))
                break
        else:
            rows.append(row)
    height, width = (whole(root.findtext(f"size/{key}")) for key in ("height", "width"))
    return rows, (height, width) if height and width and min(height, width) > 0 else None


class _Refused(Exception):
    """An object that is not used as a box; ``kind`` as in ``Problem``."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind, self.message = kind, message


def _object(
    item: ElementTree.Element, where: str, label_of: Mapping[str, int], rules: _Rules
) -> _Object:
    """Read the box of an object. Raises: _Refused with the reason if there is none."""
    name = (item.findtext("name") or "").strip()
    texts = [item.findtext(f"bndbox/{key}") or "" for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = (float(text) for text in texts)
    except ValueError:
        other = ", ".join(part.tag for part in item if len(part) and part.tag != "part")
        raise _Refused(
            "malformed label",
            f"wanted bndbox with xmin, ymin, xmax, ymax, got {shown(texts)}"
            + (f" (there is {shown(other)})" if other not in ("", "bndbox") else ""),
        ) from None
    if name not in label_of:
        known = shown(", ".join(label_of), 200)
        raise _Refused("class out of range", f"wanted one of {known}, got {shown(repr(name))}")
    x1, y1 = x1 - rules.first_pixel, y1 - rules.first_pixel
    difficult = _truth(item.findtext("difficult"))
    if difficult and rules.difficult == "drop":
        raise _Refused("dropped box", f"difficult ({name}), and the recipe has difficult: drop")
    if x2 > x1 and y2 > y1 and (x2 - x1) * (y2 - y1) <= rules.min_area:
        raise _Refused(
            "dropped box",
            f"{name} of {x2 - x1:g} x {y2 - y1:g} pixels, wanted an area above min_area, "
            f"{rules.min_area:g}",
        )
    ignored = difficult and rules.difficult == "ignore"
    return _Object((x1, y1, x2, y2), label_of[name], ignored, where)


def _truth(text: str | None) -> bool:
    """Parse the value of ``difficult``."""
    word = (text or "").strip().lower()
    if word not in _YES + _NO:
        raise _Refused("malformed label", f"wanted difficult 0 or 1, got {shown(text)}")
    return word in _YES

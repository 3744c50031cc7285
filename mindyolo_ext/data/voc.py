"""Data sets in the Pascal VOC layout: ``JPEGImages``, ``Annotations/*.xml``, ``ImageSets/Main/<split>.txt``."""
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from mindyolo_ext.data.dataset import Collector, Dataset, find_path, ids_from_names, read_lines, read_names
from mindyolo_ext.data.image_file import image_size
from mindyolo_ext.progress import bar

_BOX_TOLERANCE = 1.0                                                # pixels; programs disagree where counting starts


def read_voc(*, root: str, split: str, names: str | Sequence[str], first_pixel: int = 1, data_root: str | Path = ".",
             cache: bool = False, strict: bool = True) -> Dataset:
    """One image set of a VOC folder. Difficult objects are kept with ``ignore``.

    Args:
        root: folder that holds ``JPEGImages``, ``Annotations`` and ``ImageSets``.
        split: name of the list in ``ImageSets/Main``, such as ``train``.
        names: class names in the order of the labels, or a file with one per line.
        first_pixel: coordinate of the first pixel: 1 as in Pascal VOC (a box then is xmin - 1, ymin - 1, xmax, ymax),
            0 for programs that write plain coordinates.
        data_root: folder to which ``root`` and ``names`` refer.
        cache, strict: see ``Collector.finish``.

    Raises: FileNotFoundError; ValueError that names file and object.
    """
    if first_pixel not in (0, 1):
        raise ValueError(f"data (format voc): first_pixel must be 0 or 1, got {first_pixel!r}")
    folder = find_path(root, data_root)
    class_names = read_names(names, data_root, folder)
    label_of = {name: label for label, name in enumerate(class_names)}
    list_file = find_path(f"ImageSets/Main/{split}.txt", folder)
    stems = [line.split()[0] for _, line in read_lines(list_file)]
    pictures = {path.stem: str(path) for path in sorted((folder / "JPEGImages").iterdir())}
    paths = [pictures.get(stem, str(folder / "JPEGImages" / f"{stem}.jpg")) for stem in stems]

    collector = Collector(str(list_file), class_names, relative=False, tolerance=_BOX_TOLERANCE)
    shown = bar(stems, title="reading labels", show=sys.stderr.isatty())
    for stem, path, image_id in zip(shown, paths, ids_from_names(paths), strict=True):
        file = folder / "Annotations" / f"{stem}.xml"
        rows, size = [], None
        if not file.is_file():
            collector.report("missing label", str(file), f"no such annotation file, wanted one for {path}")
        else:
            rows, written_size = _read_objects(collector, file, label_of, first_pixel)
            size = _checked_size(collector, path, file, written_size)
        collector.add(path, image_id, size, boxes=[row[0] for row in rows], labels=[row[1] for row in rows],
                      ignore=[row[2] for row in rows], where=[row[3] for row in rows])
    return collector.finish(cache, strict)


def _read_objects(collector: Collector, file: Path, label_of: dict[str, int],
                  first_pixel: int) -> tuple[list[tuple[tuple[float, ...], int, bool, str]], tuple[int, int] | None]:
    """(box, label, difficult, place) of every object, and (height, width) as the file says, if it does."""
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        collector.report("malformed label", str(file), f"wanted xml, got a damaged file: {error}")
        return [], None
    rows = []
    for number, item in enumerate(root.iter("object"), 1):
        where = f"{file}: object {number}"
        name = (item.findtext("name") or "").strip()
        texts = [item.findtext(f"bndbox/{key}") or "" for key in ("xmin", "ymin", "xmax", "ymax")]
        try:
            x1, y1, x2, y2 = (float(text) for text in texts)
        except ValueError:
            collector.report("malformed label", where, f"wanted bndbox with xmin, ymin, xmax, ymax, got {texts}")
            continue
        if name not in label_of:
            collector.report("class out of range", where, f"wanted one of {', '.join(label_of)}, got {name!r}")
            continue
        rows.append(((x1 - first_pixel, y1 - first_pixel, x2, y2), label_of[name],
                     (item.findtext("difficult") or "0").strip() == "1", where))
    sides = [(root.findtext(f"size/{key}") or "").strip() for key in ("height", "width")]
    return rows, (int(sides[0]), int(sides[1])) if all(side.isdigit() and int(side) for side in sides) else None


def _checked_size(collector: Collector, path: str, file: Path, written: tuple[int, int] | None
                  ) -> tuple[int, int] | None:
    """(height, width) from the picture, with a note if the xml file says otherwise; None without the picture."""
    try:
        size = image_size(path)
    except FileNotFoundError:
        return None                                                 # ``Collector.add`` notes it
    except ValueError as error:
        collector.report("broken image", path, str(error))
        return None
    if written is not None and written != size:
        collector.report("odd size", str(file), f"says {written[1]}x{written[0]} (width x height), "
                                                f"the picture is {size[1]}x{size[0]}")
    return size

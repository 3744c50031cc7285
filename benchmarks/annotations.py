"""Time and memory of reading annotations of COCO's size.

    python benchmarks/annotations.py FOLDER [--outlines] [--images 118287 --boxes 859946]

Writes a synthetic train2017 into FOLDER unless it exists: the same seed gives the same file, with
links to a few small images. Then reads it in fresh processes and prints a row for each: without an
index, the first start, which writes one, a later start, a worker process, and several processes
that start together. It measures the ``mindyolo_ext`` on PYTHONPATH; a version without an index
gives only the first row (``--case plain``).
"""

import argparse
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (375, 500), (500, 375))
CASES = ("no index", "first start", "later start", "worker")
TOGETHER = 4  # processes
_LINKS = 20_000  # to one file, far below the limit of file systems


def main() -> None:
    """Write what is missing, then read and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--boxes", type=int, default=859_946)
    parser.add_argument("--outlines", action="store_true", help="write and keep outlines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", choices=(*CASES, "plain", "together"), default=None)
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_this_process:
        print(json.dumps(measured(options.folder, options.case, options.outlines)))
        return
    file = annotation_file(options.folder, options.outlines)
    if not file.exists():
        write(file, options.images, options.boxes, options.outlines, options.seed)
    print(f"{file}: {file.stat().st_size / 2**20:.0f} MB")
    print("| process | seconds | of the processor | most memory | its own at the end |")
    print("|---|---|---|---|---|")
    for case in [options.case] if options.case else [*CASES, "together"]:
        count = TOGETHER if case == "together" else 1
        if case in ("first start", "together"):
            for old in options.folder.glob(".*.index"):
                old.unlink()
        started = [_start(options.folder, case, options.outlines) for _ in range(count)]
        for process in started:
            found = json.loads(process.communicate()[0])
            print(
                f"| {case} | {found['seconds']:.1f} | {found['work']:.1f} | "
                f"{found['most']:.0f} MB | {found['own']:.0f} MB |"
            )


def annotation_file(folder: Path, outlines: bool) -> Path:
    """The JSON file."""
    return folder / f"instances_{'outlines' if outlines else 'boxes'}.json"


def _start(folder: Path, case: str, outlines: bool) -> subprocess.Popen:
    """Start a fresh process that measures one reading."""
    command = [sys.executable, __file__, str(folder), "--case", case, "--in-this-process"]
    command += ["--outlines"] if outlines else []
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def measured(folder: Path, case: str, outlines: bool) -> dict[str, float]:
    """Seconds and MB of one reading in this process."""
    from mindyolo_ext.data.formats.coco import read_coco

    settings = {"images": "images", "data_root": folder, "polygons": outlines}
    settings["annotations"] = annotation_file(folder, outlines).name
    if case == "no index" and "index" in inspect.signature(read_coco).parameters:
        settings["index"] = False
    if case == "worker":
        return _in_worker(pickle.dumps(read_coco(**settings)))
    begin, work = time.perf_counter(), time.process_time()
    dataset = read_coco(**settings)
    found = {"seconds": time.perf_counter() - begin, "work": time.process_time() - work}
    assert dataset.max_boxes() > 0
    return {**found, **_memory()}


def _in_worker(content: bytes) -> dict[str, float]:
    """Seconds and MB of a worker process that gets the pickled data set."""
    code = (
        "import json, pickle, sys, time\n"
        "sys.path[:0] = json.loads(sys.argv[1])\n"
        "import annotations\n"
        "import mindyolo_ext.data.formats.coco\n"
        "content = sys.stdin.buffer.read()\n"
        "begin, work = time.perf_counter(), time.process_time()\n"
        "dataset = pickle.loads(content)\n"
        "found = {'seconds': time.perf_counter() - begin, 'work': time.process_time() - work}\n"
        "found |= annotations._memory()\n"
        "assert len(dataset.annotations(0).boxes) == len(dataset.labels(0))\n"
        "print(json.dumps(found))\n"
    )
    paths = json.dumps([str(Path(__file__).parent)])
    run = subprocess.run(
        [sys.executable, "-c", code, paths], input=content, stdout=subprocess.PIPE, check=True
    )
    return json.loads(run.stdout)


def _memory() -> dict[str, float]:
    """The most MB that this process used, and the MB that are not shared."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    names = {"most": "VmHWM", "own": "RssAnon"}
    return {
        key: int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024 for key, name in names.items()
    }


def write(file: Path, images: int, boxes: int, outlines: bool, seed: int) -> None:
    """Write the JSON file and the images.

    Args:
        images, boxes: how many.
        outlines: give each box a segmentation of about 25 points, or a mask for one in a hundred.
        seed: of all numbers.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array(SIZES)[rng.integers(len(SIZES), size=images)]
    ids = rng.permutation(5 * images)[:images] + 1
    weights = rng.gamma(1.0, size=images)
    counts = rng.multinomial(boxes, weights / weights.sum())
    (file.parent / "images").mkdir(parents=True, exist_ok=True)
    _link_pictures(file.parent / "images", ids, sizes)
    category_ids = [number for number in range(1, 91) if number % 9]  # with gaps, as COCO's
    unfinished = file.with_suffix(".part")
    with unfinished.open("w", encoding="utf-8") as out:
        out.write('{"info":{"description":"made up"},"licenses":[],"images":')
        _write_list(out, _image_entries(ids, sizes))
        out.write(',"annotations":')
        _write_list(out, _annotation_entries(ids, sizes, counts, category_ids, outlines, rng))
        out.write(',"categories":')
        _write_list(out, ({"id": id_, "name": f"class {id_}"} for id_ in category_ids))
        out.write("}")
    unfinished.replace(file)


def _write_list(out: object, entries: Iterator[dict]) -> None:
    """Write entries as a JSON list."""
    for number, entry in enumerate(entries):
        out.write(("," if number else "[") + json.dumps(entry, separators=(",", ":")))
    out.write("]")


def _link_pictures(folder: Path, ids: np.ndarray, sizes: np.ndarray) -> None:
    """Create the images; those of one size are one gray file under many names."""
    from mindyolo_ext.data.image_file import write_image

    for number, (id_, (height, width)) in enumerate(zip(ids, sizes.tolist(), strict=True)):
        base = folder / f"gray_{height}x{width}_{number // _LINKS}.jpg"
        if not base.exists():
            write_image(base, np.full((height, width, 3), 114, np.uint8))
        path = folder / _name(id_)
        if not path.exists():
            os.link(base, path)


def _name(id_: int) -> str:
    return f"{id_:012d}.jpg"


def _image_entries(ids: np.ndarray, sizes: np.ndarray) -> Iterator[dict]:
    """Entries like COCO's, which include the URLs of an image."""
    for id_, (height, width) in zip(ids.tolist(), sizes.tolist(), strict=True):
        yield {
            "license": 3,
            "file_name": _name(id_),
            "coco_url": f"http://images.example.org/train2017/{_name(id_)}",
            "height": height,
            "width": width,
            "date_captured": "2013-11-14 11:18:45",
            "id": id_,
        }


def _annotation_entries(
    ids: np.ndarray,
    sizes: np.ndarray,
    counts: np.ndarray,
    category_ids: list[int],
    outlines: bool,
    rng: np.random.Generator,
) -> Iterator[dict]:
    """Entries in an order that is independent of that of the images."""
    owners = rng.permutation(np.repeat(np.arange(len(ids)), counts))
    for number, owner in enumerate(owners):
        height, width = sizes[owner]
        sides = np.maximum(rng.beta(1.0, 4.0, 2) * (width, height), 2)
        begin = rng.random(2) * ((width, height) - sides)
        entry = {
            "area": round(float(sides.prod()) * 0.6, 4),
            "iscrowd": int(number % 100 == 0),
            "image_id": int(ids[owner]),
            "bbox": [round(float(value), 2) for value in (*begin, *sides)],
            "category_id": category_ids[int(rng.integers(len(category_ids)))],
            "id": number + 1,
        }
        if outlines:
            entry = {"segmentation": _outline(begin, sides, entry["iscrowd"], rng), **entry}
        yield entry


def _outline(
    begin: np.ndarray, sides: np.ndarray, is_crowd: int, rng: np.random.Generator
) -> object:
    """A mask for a crowd, otherwise one or two ellipses of about 25 points."""
    if is_crowd:
        return {"counts": rng.integers(500, size=200).tolist(), "size": [480, 640]}
    parts = []
    for _ in range(1 + (rng.random() < 0.1)):
        angles = np.linspace(0, 2 * np.pi, int(rng.integers(8, 40)), endpoint=False)
        points = begin + sides * (0.5 + 0.5 * np.stack([np.cos(angles), np.sin(angles)], axis=1))
        parts.append(np.round(points, 2).reshape(-1).tolist())
    return parts


if __name__ == "__main__":
    main()

"""The index of a COCO file: never trusted blindly, and never an obstacle."""

import errno
import json
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindyolo_ext.data import sharing
from mindyolo_ext.data.arrays import write_arrays
from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.formats import coco_index, coco_table
from mindyolo_ext.data.formats.coco import CocoDataset
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.errors import DataError

BOX = [3, 2, 12, 10]
OUTLINE = [[3, 2, 15, 2, 15, 12]]


def row(number: int, image: int, **values: object) -> dict:
    return {
        "id": number,
        "image_id": image,
        "category_id": 4 if number % 2 else 9,
        "bbox": BOX,
        "area": 60.5,
        "iscrowd": 0,
        "segmentation": OUTLINE,
        **values,
    }


def written(folder: Path, rows: list[dict] | None = None) -> dict[str, Any]:
    """Three images with boxes, one of them clipped and one dropped; returns the configuration."""
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "b.png", "ä.png"):
        write_image(folder / name, np.zeros((20, 30, 3), np.uint8))
    size = {"height": 20, "width": 30}
    content = {
        "images": [
            {"id": 31, "file_name": "b.png", **size},
            {"id": 5, "file_name": "a.png", **size},
            {"id": 8, "file_name": "ä.png", **size},
        ],
        "annotations": rows
        or [
            row(70, 5),
            row(71, 31, iscrowd=1, segmentation={"counts": [1], "size": [1, 1]}),
            row(
                72, 5, bbox=[20, 10, 30, 5], segmentation=[[1, 2, 30, 4, 5, 90], [7, 8, 9, 1, 3, 3]]
            ),
            row(73, 31, bbox=[5, 5, 0, 4]),
            row(74, 31),
        ],
        "categories": [{"id": 9, "name": "nine"}, {"id": 4, "name": "four"}],
    }
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8")
    return {"format": "coco", "images": str(folder), "annotations": str(folder / "a.json")}


def contents(dataset: CocoDataset) -> list:
    """Everything that a data set says."""
    indices = range(len(dataset))
    found = [dataset.annotations(index) for index in indices]
    return [
        repr(dataset),
        dataset.class_names,
        dataset.category_ids,
        dataset.image_ids,
        dataset.paths,
        dataset.problems,
        [dataset.size(index) for index in indices],
        [(its.boxes.tolist(), its.labels.tolist(), its.ignore.tolist()) for its in found],
        [[None if o is None else o.tolist() for o in dataset.polygons(i)] for i in indices],
        dataset.coco_ground_truth(),
    ]


def read(config: dict, **changes: object) -> CocoDataset:
    dataset = build_dataset({**config, **changes}, strict=False)
    assert isinstance(dataset, CocoDataset)
    return dataset


def indices(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.index"))


@pytest.fixture(autouse=True)
def _all_files_are_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(coco_index, "LEAST_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Record which annotation files were parsed."""
    seen: list[Path] = []

    def noted(file: Path, **keywords: Any) -> coco_table.CocoTable:
        seen.append(file)
        return coco_table.read_table(file, **keywords)

    monkeypatch.setattr(coco_index, "read_table", noted)
    return seen


@pytest.mark.parametrize("polygons", [False, True])
def test_a_later_start_reads_the_index_and_finds_the_same(
    tmp_path: Path, parsed: list[Path], caplog: pytest.LogCaptureFixture, polygons: bool
) -> None:
    config = {**written(tmp_path / "data"), "polygons": polygons}
    plain = contents(read(config, index=False))
    assert not indices(tmp_path) and len(parsed) == 1
    caplog.clear()
    first = read(config)
    assert contents(first) == plain and len(parsed) == 2 and len(indices(tmp_path / "data")) == 1
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    caplog.clear()
    later = read(config)
    assert contents(later) == plain and len(parsed) == 2
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == told
    assert len(told) == 2 and later.has_polygons == polygons
    assert [problem.kind for problem in later.problems] == ["dropped box", "clipped box"]


def test_outlines_and_boxes_have_each_their_own(tmp_path: Path, parsed: list[Path]) -> None:
    config = written(tmp_path / "data")
    read(config)
    assert read(config, polygons=True).has_polygons and not read(config).has_polygons
    assert len(indices(tmp_path)) == 2 and len(parsed) == 2


def test_other_contents_of_the_same_size_and_date(tmp_path: Path, parsed: list[Path]) -> None:
    config = written(tmp_path / "data")
    file = tmp_path / "data/a.json"
    before = read(config).annotations(1).boxes
    state, text = file.stat(), file.read_text(encoding="utf-8")
    file.write_text(text.replace("[3, 2, 12, 10]", "[4, 2, 12, 10]"), encoding="utf-8")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file.stat().st_size == state.st_size
    np.testing.assert_array_equal(read(config).annotations(1).boxes[0], before[0] + [1, 0, 1, 0])
    assert len(parsed) == 2 and len(indices(tmp_path)) == 1


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _empty(content: bytes) -> bytes:
    return content[:0]


def _longer(content: bytes) -> bytes:
    return content + b"\0"


def _other_version(content: bytes) -> bytes:
    return content.replace(b'"version": 1', b'"version": 9')


def _other_form(content: bytes) -> bytes:
    return content.replace(b"arrays 1", b"arrays 2")


def _pickle(content: bytes) -> bytes:
    return b"\x80\x04cposix\nsystem\n" + content


def _nested(content: bytes) -> bytes:
    return content[:22] + (2**16).to_bytes(4, "little") + b"[" * 2**16


def _long_header(content: bytes) -> bytes:
    return content[:22] + (2**32 - 1).to_bytes(4, "little") + content[26:]


def _huge_array(content: bytes) -> bytes:
    return content.replace(b'"boxes": ["<f4", 4, 4]', b'"boxes": ["<f4",1099511627776, 4]')


def _very_large(content: bytes) -> bytes:
    return content + bytes(2**21)


def _objects(content: bytes) -> bytes:
    return content.replace(b'"|u1"', b'"|O8"')


DAMAGES = (
    *(_cut, _empty, _longer, _other_version, _other_form, _pickle),
    *(_nested, _long_header, _huge_array, _very_large, _objects),
)


@pytest.mark.parametrize("damage", DAMAGES, ids=[its.__name__ for its in DAMAGES])
def test_a_damaged_index_is_made_again(
    tmp_path: Path, parsed: list[Path], damage: Callable[[bytes], bytes]
) -> None:
    config = {**written(tmp_path / "data"), "polygons": True}
    wanted = contents(read(config))
    (place,) = indices(tmp_path)
    sound = place.read_bytes()
    assert damage(sound) != sound
    place.write_bytes(damage(sound))
    assert contents(read(config)) == wanted and len(parsed) == 2
    assert place.read_bytes() == sound and contents(read(config)) == wanted and len(parsed) == 2


def test_no_byte_of_an_index_may_change(tmp_path: Path, parsed: list[Path]) -> None:
    config = {**written(tmp_path / "data"), "polygons": True}
    wanted = contents(read(config))
    (place,) = indices(tmp_path)
    sound = place.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.choice(len(sound), 60, replace=False):
        changed = bytearray(sound)
        changed[at] ^= 1 << int(rng.integers(8))
        place.write_bytes(changed)
        before = len(parsed)
        assert contents(read(config)) == wanted
        assert len(parsed) == before + 1, at


def assert_made_again(
    tmp_path: Path, parsed: list[Path], change: Callable[[dict[str, np.ndarray]], None]
) -> None:
    """Make sure that an index with changed columns is not trusted: the file is parsed again."""
    config = {**written(tmp_path / "data"), "polygons": True}
    dataset = read(config)
    wanted = contents(dataset)
    (place,) = indices(tmp_path)
    columns = {key: np.array(its) for key, its in dataset._columns.items()}
    change(columns)
    write_arrays(place, dataset._columns._about, columns)
    assert contents(read(config)) == wanted and len(parsed) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("row_images", 3),
        ("row_images", -1),
        ("row_labels", 2),
        ("labels", 2),
        ("labels", -1),
        ("order", 5),
        ("doubts", 5),
        ("offsets", 9),
        ("row_offsets", -1),
        ("name_ends", 99),
        ("boxes", np.nan),
        ("boxes", np.inf),
        ("row_boxes", 1e300),
        ("points", 1.5),
        ("first_points", 99),
        ("ignore", 2),
        ("sizes", -1),
        ("names", 255),
        ("category_ids", 4),
        ("image_ids", 31),
    ],
)
def test_an_index_with_impossible_numbers_is_made_again(
    tmp_path: Path, parsed: list[Path], name: str, value: float
) -> None:
    def change(columns: dict[str, np.ndarray]) -> None:
        columns[name].reshape(-1)[1] = value

    assert_made_again(tmp_path, parsed, change)


@pytest.mark.parametrize("name", ["labels", "offsets", "row_areas", "category_ids", "points"])
@pytest.mark.parametrize("is_missing", [False, True])
def test_an_index_of_impossible_lengths_is_made_again(
    tmp_path: Path, parsed: list[Path], name: str, is_missing: bool
) -> None:
    def change(columns: dict[str, np.ndarray]) -> None:
        its = columns.pop(name)
        if not is_missing:
            columns[name] = its[:-1]

    assert_made_again(tmp_path, parsed, change)


def test_a_file_with_faults_is_read_anew_every_time(tmp_path: Path, parsed: list[Path]) -> None:
    config = written(tmp_path / "data", [row(70, 5), row(71, 99)])
    for count in (1, 2):
        assert [problem.kind for problem in read(config).problems] == ["malformed label"]
        assert len(parsed) == count and not indices(tmp_path)


def test_sizes_that_the_images_tell_are_not_kept(tmp_path: Path) -> None:
    config = written(tmp_path / "data")
    file = tmp_path / "data/a.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["images"][1]["height"]
    file.write_text(json.dumps(content), encoding="utf-8")
    wanted = contents(read(config))
    assert contents(read(config)) == wanted and not indices(tmp_path)
    assert read(config).size(1) == (20, 30)


def test_images_are_looked_for_at_every_start(tmp_path: Path) -> None:
    config = written(tmp_path / "data")
    read(config)
    (tmp_path / "data/a.png").unlink()
    (tmp_path / "data/b.png").write_bytes(b"no picture")
    assert [problem.kind for problem in read(config).problems] == [
        "broken image",
        "dropped box",
        "missing image",
        "clipped box",
    ]


def test_a_folder_that_cannot_be_written_uses_the_cache(tmp_path: Path, parsed: list[Path]) -> None:
    config = written(tmp_path / "data")
    wanted = contents(read(config))
    (place,) = indices(tmp_path)
    place.unlink()
    lock = place.with_name(place.name + ".lock")
    lock.unlink()
    lock.mkdir()  # root may write everywhere else
    assert contents(read(config)) == wanted and contents(read(config)) == wanted
    assert [its.parent for its in indices(tmp_path)] == [
        tmp_path / "cache/mindyolo_ext/annotations"
    ]
    assert len(parsed) == 2


def test_no_place_at_all(tmp_path: Path, parsed: list[Path]) -> None:
    config = written(tmp_path / "data")
    (tmp_path / "file").write_text("", encoding="utf-8")
    wanted = contents(read(config, index=False))
    for count in (2, 3):
        assert contents(read(config, index=str(tmp_path / "file/folder"))) == wanted
        assert len(parsed) == count and not indices(tmp_path)


def test_a_disk_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = written(tmp_path / "data")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(coco_index, "write_arrays", full)
    assert contents(read(config)) == contents(read(config, index=False))
    assert "cannot keep an index of the annotations" in caplog.text and not indices(tmp_path)


def test_the_folder_can_be_chosen(tmp_path: Path, parsed: list[Path]) -> None:
    config = {**written(tmp_path / "data"), "format": "coco", "index": "kept"}
    for _ in range(2):
        build_dataset(config, tmp_path)
    assert [its.parent for its in indices(tmp_path)] == [tmp_path / "kept"] and len(parsed) == 1
    with pytest.raises(ValueError, match="index must be true or false or a string, got 5"):
        build_dataset({**config, "index": 5}, tmp_path)


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_a_cache_folder_that_is_not_absolute_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sharing.cache_folder("annotations") == tmp_path / ".cache/mindyolo_ext/annotations"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # a user without a home folder
    assert sharing.cache_folder("annotations") is None


def test_small_files_get_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert contents(read(written(tmp_path / "data"))) and not indices(tmp_path)


def test_processes_that_start_together_parse_once(tmp_path: Path, parsed: list[Path]) -> None:
    config = written(tmp_path / "data")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: contents(read(config)), range(4)))
    assert found[1:] == found[:-1] and len(parsed) == 1 and len(indices(tmp_path)) == 1


def test_a_file_system_without_locks(
    tmp_path: Path, parsed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(sharing.fcntl, "flock", refuse)
    config = written(tmp_path / "data")
    assert contents(read(config)) == contents(read(config)) and len(parsed) == 1


def test_who_waits_too_long_reads_the_file_itself(
    tmp_path: Path, parsed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_PATIENCE", 0.0)
    config = written(tmp_path / "data")
    monkeypatch.setattr(sharing, "_lock", lambda _: False)
    assert len(read(config)) == 3 and len(parsed) == 1


def test_workers_map_the_file_instead_of_getting_copies(tmp_path: Path) -> None:
    many = [row(number, 5) for number in range(1, 3001)]
    config = {**written(tmp_path / "data", many), "polygons": True}
    dataset = read(config)
    sent = pickle.dumps(dataset)
    assert len(sent) < 10_000 < len(pickle.dumps(read(config, index=False)))
    assert contents(pickle.loads(sent)) == contents(dataset)
    turned = pickle.loads(pickle.dumps(dataset.with_classes(["nine", "four"])))
    assert turned.class_names == ["nine", "four"] and turned.labels(1)[0] == 1
    assert turned._columns.mapped == dataset._columns.mapped - {"labels"}
    with pytest.raises(ValueError, match="read-only"):
        pickle.loads(sent)._boxes[0] = 7
    (place,) = indices(tmp_path)
    place.unlink()
    with pytest.raises(DataError, match="wanted the index of labels from the start of the program"):
        pickle.loads(sent)
    assert len(dataset.labels(1)) == 3000


@pytest.mark.parametrize("seed", range(40))
def test_reading_in_pieces_finds_what_reading_as_a_whole_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    odd = [None, True, 0, 1, -1, 0.5, 1.0, "1", "x", [], [1], {}, 1e10, 10**400, 2**60, np.nan]
    rows: list[Any] = [row(number, int(rng.choice([5, 31, 8]))) for number in range(1, 60)]
    for place in np.flatnonzero(rng.random(len(rows)) < rng.choice([0.05, 0.5])):
        rows[place] = {**rows[place], str(rng.choice(list(rows[place]))): odd[rng.integers(16)]}
    if seed % 4 == 0:
        rows[7] = odd[seed % len(odd)]
    for key in ("id", "area", "iscrowd")[seed % 5 : 3]:
        rows = [
            {k: v for k, v in its.items() if k != key}
            if its is not None and isinstance(its, dict)
            else its
            for its in rows
        ]
    config = written(tmp_path / "data", rows)
    monkeypatch.setattr(coco_table, "_CHUNK", 25)
    pieces = contents(read(config, polygons=True, index=False))

    def refuse(*_: object, **__: object) -> None:
        raise coco_table.NotStreamable

    monkeypatch.setattr(coco_table, "read_lists", refuse)
    monkeypatch.setattr(coco_table, "_plain", lambda *_: None)  # each by itself
    assert contents(read(config, polygons=True, index=False)) == pieces

"""Pascal VOC's XML format."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import DEFAULT_GOLDEN, Golden
from label_sets import HEIGHT, ITEM, WIDTH, image, put, voc

from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.formats.voc import read_voc
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.errors import DataError
from mindyolo_ext.models.simple_yolo.variants import official_input

CONFIG = {"format": "voc", "root": "voc", "split": "train", "names": ["cat", "dog"]}


def item(name: str = "dog", box: tuple = (1, 1, 10, 8), difficult: int = 0) -> str:
    sides = "".join(
        f"<{key}>{value}</{key}>"
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{sides}</bndbox></object>"
    )


def written(
    folder: Path, body: str | None, size: str = "<size><width>30</width><height>20</height></size>"
) -> dict:
    """One 20 x 30 image; returns the configuration."""
    root = folder / "voc"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True, exist_ok=True)
    write_image(root / "JPEGImages/é.png", np.zeros((20, 30, 3), np.uint8))
    (root / "ImageSets/Main/train.txt").write_text("é 1\n", encoding="utf-8")
    if body is not None:
        (root / "Annotations/é.xml").write_text(
            f"<annotation>{size}{body}</annotation>", encoding="utf-8"
        )
    return CONFIG


def test_boxes_count_from_one_and_difficult_is_ignored(tmp_path: Path) -> None:
    config = written(tmp_path, item() + item("cat", (5, 6, 30, 20), 1))
    sample = build_dataset(config, tmp_path).load(0)
    np.testing.assert_array_equal(sample.boxes, [[0, 0, 10, 8], [4, 5, 30, 20]])
    np.testing.assert_array_equal(sample.labels, [1, 0])
    np.testing.assert_array_equal(sample.ignore, [False, True])
    plain = build_dataset({**config, "first_pixel": 0}, tmp_path)
    np.testing.assert_array_equal(plain.annotations(0).boxes, [[1, 1, 10, 8], [5, 6, 30, 20]])
    assert plain.max_boxes() == 1 and plain.coco_ground_truth()["annotations"][1]["iscrowd"] == 1
    with pytest.raises(ValueError, match="first_pixel must be 0 or 1"):
        build_dataset({**config, "first_pixel": 2}, tmp_path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (item("cow"), "é.xml: object 1: wanted one of cat, dog, got 'cow'"),
        (item() + item(box=(1, 2, "x", 4)), "é.xml: object 2: wanted bndbox"),
        ("<object><name>dog</name></object>", "é.xml: object 1: wanted bndbox"),
        ("<object>", "é.xml: wanted xml, got a damaged file"),
    ],
)
def test_malformed_objects(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_dataset(written(tmp_path, body), tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="é.xml: no such annotation file"):
        build_dataset(written(tmp_path, None), tmp_path)
    config = written(tmp_path, item())
    (tmp_path / "voc/JPEGImages/é.png").unlink()
    with pytest.raises(FileNotFoundError, match="é.jpg: no such image"):
        build_dataset(config, tmp_path)
    with pytest.raises(FileNotFoundError, match="val.txt"):
        build_dataset({**config, "split": "val"}, tmp_path)


def test_no_objects_and_a_wrong_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert build_dataset(written(tmp_path, ""), tmp_path).load(0).boxes.shape == (0, 4)
    assert not caplog.text
    build_dataset(
        written(tmp_path, item(), "<size><width>20</width><height>30</height></size>"), tmp_path
    )
    assert "1 x odd size" in caplog.text
    caplog.clear()
    build_dataset(
        written(tmp_path, item(), "<size><width>0</width><height>0</height></size>"), tmp_path
    )
    assert not caplog.text


# ---- difficult, small and nested objects ---------------------------------------------------------


@pytest.mark.parametrize(
    ("difficult", "labels", "ignore"),
    [("ignore", [1, 0], [False, True]), ("keep", [1, 0], [False, False]), ("drop", [1], [False])],
)
def test_difficult_objects(
    tmp_path: Path, difficult: str, labels: list, ignore: list, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path, item() + item("cat", (5, 6, 30, 20), 1))
    dataset = read_voc(
        root="voc", split="train", names=["cat", "dog"], difficult=difficult, data_root=tmp_path
    )
    found = dataset.annotations(0)
    assert found.labels.tolist() == labels and found.ignore.tolist() == ignore
    assert dataset.max_boxes() == 2 - (difficult != "keep")
    assert ("1 x dropped box" in caplog.text) == (difficult == "drop")


def test_small_objects_are_dropped_and_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """2 x 5 pixels when counting from 0, 3 x 6 when counting from 1."""
    written(tmp_path, item(box=(2, 2, 4, 7)) + item(box=(2, 2, 4, 8)) + item("cat", (2, 2, 3, 4)))
    settings = {"root": "voc", "split": "train", "names": ["cat", "dog"], "data_root": tmp_path}
    dataset = read_voc(**settings, min_area=10, first_pixel=0)
    np.testing.assert_array_equal(dataset.annotations(0).boxes, [[2, 2, 4, 8]])
    assert caplog.text.count("dropped box") == 1 and "2 x dropped box" in caplog.text
    assert "é.xml: object 1: dog of 2 x 5 pixels, wanted an area above min_area, 10" in caplog.text
    assert not any(problem.fatal for problem in dataset.problems)
    assert read_voc(**settings, min_area=10).labels(0).tolist() == [1, 1]
    assert len(read_voc(**settings).labels(0)) == 3
    none_left = read_voc(**settings, min_area=100)
    assert len(none_left) == 1 and none_left.load(0).boxes.shape == (0, 4)


def test_parts_are_no_objects(tmp_path: Path) -> None:
    part = (
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
        "<xmax>5</xmax><ymax>5</ymax></bndbox></part>"
    )
    body = item().replace("</object>", part + "</object>") + f"<part>{item('cat')}</part>"
    assert build_dataset(written(tmp_path, body), tmp_path).labels(0).tolist() == [1]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"difficult": "skip"}, "difficult must be one of ignore, keep, drop, got 'skip'"),
        ({"difficult": True}, "difficult must be one of"),
        ({"min_area": -1}, "min_area must be a number of square pixels, 0 or more, got -1"),
        ({"min_area": "10"}, "min_area must be a number"),
        ({"min_area": float("nan")}, "min_area must be a number"),
        (
            {"split": None},
            "wanted the keys root and split, or only sets, got root 'voc', split None",
        ),
        (
            {"sets": [{"root": "voc", "split": "train"}]},
            "wanted the keys root and split, or only sets",
        ),
        ({"root": None, "split": None, "sets": []}, "sets must be a list such as"),
        (
            {"root": None, "split": None, "sets": {"root": "voc", "split": "train"}},
            "sets must be a list such as",
        ),
        ({"root": None, "split": None, "sets": [{"root": "voc"}]}, "sets must be a list such as"),
    ],
)
def test_keywords_that_make_no_sense(tmp_path: Path, keywords: dict, message: str) -> None:
    written(tmp_path, item())
    with pytest.raises(ValueError, match=message):
        read_voc(
            **{
                "root": "voc",
                "split": "train",
                "names": ["cat", "dog"],
                "data_root": tmp_path,
                **keywords,
            }
        )


# ---- several image sets --------------------------------------------------------------------------


def write_set(root: Path, split: str, stems: list[str], label: str) -> None:
    """An image set of images with one object each, of a different width in each image."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for number, stem in enumerate(stems):
        write_image(root / f"JPEGImages/{stem}.png", np.zeros((20, 30 + number, 3), np.uint8))
        (root / f"Annotations/{stem}.xml").write_text(
            f"<annotation>{item(label)}</annotation>", encoding="utf-8"
        )
    (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(stems), encoding="utf-8")


SETS = [{"root": "VOC2007", "split": "trainval"}, {"root": "VOC2012", "split": "trainval"}]


@pytest.mark.parametrize("below", ["", "VOCdevkit"])
def test_two_sets_in_one(tmp_path: Path, below: str) -> None:
    write_set(tmp_path / below / "VOC2007", "trainval", ["000012", "000005"], "cat")
    write_set(tmp_path / "VOC2012", "trainval", ["2008_000001", "000005"], "dog")
    dataset = read_voc(sets=SETS, names=["cat", "dog"], data_root=tmp_path)
    assert [
        Path(path).relative_to(tmp_path).as_posix().removeprefix("VOCdevkit/")
        for path in dataset.paths
    ] == [
        "VOC2007/JPEGImages/000012.png",
        "VOC2007/JPEGImages/000005.png",
        "VOC2012/JPEGImages/2008_000001.png",
        "VOC2012/JPEGImages/000005.png",
    ]
    assert [dataset.labels(index).tolist() for index in range(4)] == [[0], [0], [1], [1]]
    assert dataset.image_ids == [1, 2, 3, 4] and "trainval.txt + " in dataset.name
    alone = read_voc(root="VOC2007", split="trainval", names=["cat", "dog"], data_root=tmp_path)
    assert alone.image_ids == [12, 5]  # numbers of the files, where they differ
    absolute = read_voc(root=str(tmp_path / "VOC2007"), split="trainval", names=["cat", "dog"])
    assert absolute.paths == alone.paths


def test_a_missing_set_names_the_file_that_was_looked_for(tmp_path: Path) -> None:
    write_set(tmp_path / "VOC2007", "trainval", ["000001"], "cat")
    with pytest.raises(FileNotFoundError, match=r"VOC2012, .*VOCdevkit.VOC2012"):
        read_voc(sets=SETS, names=["cat"], data_root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"VOC2007.ImageSets.Main.test\.txt"):
        read_voc(
            sets=[SETS[0], {"root": "VOC2007", "split": "test"}], names=["cat"], data_root=tmp_path
        )


def test_an_image_is_in_one_set_only(tmp_path: Path) -> None:
    write_set(tmp_path / "VOC2007", "train", ["000001", "000002"], "cat")
    write_set(tmp_path / "VOC2007", "trainval", ["000001", "000003"], "cat")
    both = [{"root": "VOC2007", "split": split} for split in ("train", "trainval")]
    with pytest.raises(ValueError, match=r"000001\.png in several \(1 such images\)"):
        read_voc(sets=both, names=["cat"], data_root=tmp_path)
    with pytest.raises(ValueError, match="in several"):
        read_voc(sets=[both[0], both[0]], names=["cat"], data_root=tmp_path)


# ---- as the simple YOLO reads --------------------------------------------------------------------


def written_as_stored(folder: Path, xml: str, image: np.ndarray) -> dict:
    """A VOC folder with one annotation file; returns keywords that read it as the original does."""
    write_set(folder / "VOC2007", "test", ["te070000"], "dog")
    write_image(folder / "VOC2007/JPEGImages/te070000.png", image)
    (folder / "VOC2007/Annotations/te070000.xml").write_text(xml, encoding="utf-8")
    return {
        "root": "VOC2007",
        "split": "test",
        "first_pixel": 0,
        "difficult": "keep",
        "data_root": folder,
    }


@pytest.mark.parametrize("min_area", [0, 10])
def test_annotations_equal_the_original_but_for_inverted_boxes(
    tmp_path: Path, min_area: int
) -> None:
    """The original keeps a box whose sides are both negative, because their product is positive;
    this reader drops it.
    """
    stored = json.loads((DEFAULT_GOLDEN / "simple_yolo/voc_parse.json").read_text(encoding="utf-8"))
    settings = written_as_stored(tmp_path, stored["xml"], np.zeros((121, 173, 3), np.uint8))
    dataset = read_voc(
        names=sorted(stored["class_map"], key=stored["class_map"].get),
        min_area=min_area,
        **settings,
    )
    found = dataset.annotations(0)
    assert not found.ignore.any()
    for normalize, scale in ((False, (1, 1, 1, 1)), (True, (173, 121, 173, 121))):
        wanted = stored["result"][f"min_label_area={min_area},normalize={normalize}"]
        boxes, labels = np.array(wanted["boxes"]), np.array(wanted["classes"])[:, 0]
        upright = (boxes[:, 2:] > boxes[:, :2]).all(1)
        assert (~upright).sum() == 1
        np.testing.assert_allclose(found.boxes / scale, boxes[upright], rtol=1e-6)
        np.testing.assert_array_equal(found.labels, labels[upright])
        dropped = [problem for problem in dataset.problems if problem.kind == "dropped box"]
        assert len(dropped) == wanted["removed"] + 1 and len(dataset.problems) == len(dropped)


def test_boxes_in_the_network_equal_the_original(tmp_path: Path, golden: Golden) -> None:
    stored = golden.arrays("simple_yolo/preprocess.npz")
    names = sorted(
        json.loads((DEFAULT_GOLDEN / "simple_yolo/voc_parse.json").read_text(encoding="utf-8"))[
            "class_map"
        ]
    )
    settings = written_as_stored(tmp_path, str(stored["xml"]), stored["image"])
    sample = read_voc(names=names, min_area=10, **settings).load(0)
    canvas, placement = official_input().resize_image(sample.image)
    np.testing.assert_array_equal(canvas[:, :, ::-1], stored["canvas_uint8_rgb"])
    boxes = stored["bboxes"][:, 1:]
    upright = boxes[:, 2] > boxes[:, 0]
    np.testing.assert_allclose(placement.to_network(sample.boxes), boxes[upright], atol=1e-4)
    np.testing.assert_array_equal(sample.labels, stored["classes"][upright, 1])


def test_real_bccd(real_data: Path) -> None:
    names = {"names": "bccd/classes.names"}
    counts = []
    for split in ("train", "val", "test"):
        voc = build_dataset(
            {"format": "voc", "root": "bccd", "split": split, "first_pixel": 0, **names}, real_data
        )
        text = build_dataset(
            {
                "format": "yolo",
                "images": "bccd/JPEGImages",
                "labels": f"bccd/yolo_labels/{split}",
                "missing_labels": "skip",
                **names,
            },
            real_data,
        )
        counts.append(len(voc))
        at = {path: index for index, path in enumerate(text.paths)}
        for index, path in enumerate(voc.paths):
            wanted, found = voc.annotations(index), text.annotations(at[path])
            np.testing.assert_allclose(found.boxes, wanted.boxes, atol=2e-3)
            np.testing.assert_array_equal(found.labels, wanted.labels)
    assert counts == [205, 87, 72]


@pytest.mark.parametrize("encoding", ["gb2312", "GBK", "gb18030", "latin-1", "utf-16", "big5"])
def test_declared_encodings(tmp_path: Path, encoding: str) -> None:
    name = "é" if encoding == "latin-1" else "狗"
    xml = f'<?xml version="1.0" encoding="{encoding}"?>\n<annotation>{ITEM}</annotation>'
    description = voc(tmp_path, xml.format(name=name, more="").encode(encoding), names=[name])
    assert build_dataset(description, tmp_path).labels(0).tolist() == [0]


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (b'<?xml version="1.0" encoding="utf-8"?><annotation>\xb9\xb7</annotation>', "in utf-8"),
        (b"<annotation>\xb9\xb7</annotation>", "in utf-8.*declare the encoding"),
        (b'<?xml version="1.0" encoding="rot13"?><annotation/>', "no text encoding"),
        (b'<?xml version="1.0" encoding="punycode"?><annotation/>', "no text encoding"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "unknown encoding: klingon"),
        (b'<!DOCTYPE a [<!ENTITY l "ha">]><annotation>&l;</annotation>', "without custom entities"),
        (b"<annotations><image/></annotations>", "wanted xml of Pascal VOC.*got <annotations>"),
        (b"", "a damaged file"),
        (b"\0\0", "a damaged file"),
        (b"<a>" * 100_000, "a damaged file"),
    ],
)
def test_files_that_are_no_annotation(tmp_path: Path, xml: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"a.xml: .*{message}"):
        build_dataset(voc(tmp_path, xml), tmp_path)


def test_namespaces_do_not_count(tmp_path: Path) -> None:
    item = ITEM.format(name="dog", more="")
    xml = f'<annotation xmlns="http://example.org/voc">{item}</annotation>'
    assert build_dataset(voc(tmp_path, xml), tmp_path).labels(0).tolist() == [1]


@pytest.mark.parametrize(
    ("word", "difficult"),
    [("1", True), ("true", True), ("Yes", True), ("0", False), ("False", False), ("", False)],
)
def test_words_for_difficult(tmp_path: Path, word: str, difficult: bool) -> None:
    item = ITEM.format(name="dog", more=f"<difficult>{word}</difficult>")
    dataset = build_dataset(voc(tmp_path, f"<annotation>{item}</annotation>"), tmp_path)
    assert dataset.annotations(0).ignore.tolist() == [difficult]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (ITEM.format(name="dog", more="<difficult>2</difficult>"), "wanted difficult 0 or 1"),
        (
            "<object><name>dog</name><robndbox><cx>1</cx></robndbox></object>",
            r"wanted bndbox .*\(there is robndbox\)",
        ),
        (ITEM.format(name="a\x85b", more=""), r"got 'a\\x85b'"),
    ],
)
def test_objects_that_are_refused(tmp_path: Path, item: str, message: str) -> None:
    with pytest.raises(DataError, match=f"a.xml: object 1: .*{message}"):
        build_dataset(voc(tmp_path, f"<annotation>{item}</annotation>"), tmp_path)


@pytest.mark.parametrize("size", ["<width>²</width>", "<width>" + "9" * 5000 + "</width>", ""])
def test_sizes_that_are_none(tmp_path: Path, size: str) -> None:
    item = ITEM.format(name="dog", more="")
    xml = f"<annotation><size>{size}<height>40</height></size>{item}</annotation>"
    assert len(build_dataset(voc(tmp_path, xml), tmp_path).load(0).boxes) == 1


def test_labels_of_the_stored_pixels_of_a_turned_photo(tmp_path: Path) -> None:
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    item = ITEM.format(name="dog", more="")
    description = voc(tmp_path, f"<annotation>{size}{item}</annotation>")
    image(tmp_path / "V/JPEGImages/a.jpg", orientation=6)
    with pytest.raises(DataError, match=r"a.jpg: the image is 40x80 .*for 80x40 .*EXIF"):
        build_dataset(description, tmp_path)


def test_labels_of_a_larger_copy(tmp_path: Path) -> None:
    size = f"<size><width>{2 * WIDTH}</width><height>{2 * HEIGHT}</height></size>"
    item = ITEM.format(name="dog", more="")
    with pytest.raises(DataError, match="a.jpg: the image is 80x40 .*was it scaled"):
        build_dataset(voc(tmp_path, f"<annotation>{size}{item}</annotation>"), tmp_path)


def test_names_with_spaces_and_lists_of_a_class(tmp_path: Path) -> None:
    for number, stem in enumerate(["my photo 01", "my photo 01 1", "b", "sub/c.d"]):
        description = voc(tmp_path, stem=stem)
        put(tmp_path / f"V/ImageSets/Main/{number}.txt", f"{stem}\n")
    put(tmp_path / "V/ImageSets/Main/train.txt", "my photo 01\nmy photo 01 1\nb  1\nsub/c.d.jpg\n")
    dataset = build_dataset(description, tmp_path)
    assert [Path(path).name for path in dataset.paths] == [
        *("my photo 01.jpg", "my photo 01 1.jpg", "b.jpg", "c.d.jpg")
    ]
    assert all(len(dataset.labels(index)) == 1 for index in range(4))


def test_other_files_beside_the_photo(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    description = voc(tmp_path)
    for suffix in ("xml", "txt", "json"):
        put(tmp_path / f"V/JPEGImages/a.{suffix}", "")
    assert build_dataset(description, tmp_path).paths[0].endswith("a.jpg") and not caplog.text
    image(tmp_path / "V/JPEGImages/a.bmp")
    assert build_dataset(description, tmp_path).paths[0].endswith("a.jpg")
    assert "1 x two images" in caplog.text and "a.bmp has the same name" in caplog.text


def test_a_folder_without_lists(tmp_path: Path) -> None:
    description = voc(tmp_path)
    (tmp_path / "V/ImageSets/Main/train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"split: no such.*train.txt. It holds.*ls \*.xml"):
        build_dataset(description, tmp_path)

"""YOLO's text labels."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from label_sets import HEIGHT, LINE, WIDTH, image, put, yolo

from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.formats.label_files import label_path
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.errors import ConfigError, DataError, MissingFileError


def written(folder: Path, text: str | None = "1 0.5 0.5 0.25 0.5\n") -> dict:
    """One 40 x 80 image in a folder whose name has dots and non-ASCII letters; returns the
    configuration.
    """
    for name in ("images", "labels"):
        (folder / "v1.0 ünï" / name / "deep").mkdir(parents=True, exist_ok=True)
    write_image(folder / "v1.0 ünï/images/deep/a.b.jpg", np.zeros((40, 80, 3), np.uint8))
    if text is not None:
        (folder / "v1.0 ünï/labels/deep/a.b.txt").write_text(text, encoding="utf-8")
    return {"format": "yolo", "images": "v1.0 ünï/images", "names": ["cat", "dog"]}


def test_folder_with_dots_and_unicode(tmp_path: Path) -> None:
    dataset = build_dataset(
        written(tmp_path, "1 0.5 0.5 0.25 0.5\n\n0\t0.1  0.2 0.2 0.4  \n"), tmp_path
    )
    sample = dataset.load(0)
    np.testing.assert_allclose(sample.boxes, [[30, 10, 50, 30], [0, 0, 16, 16]], atol=1e-4)
    np.testing.assert_array_equal(sample.labels, [1, 0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "1 0.5 0.5 0.25",
            r"a.b.txt:2: wanted five numbers: class cx cy w h .*got '1 0.5 0.5 0.25'",
        ),
        ("1 0.5 0.5 0.25 0.5 0.5", r"a.b.txt:2: wanted five numbers"),
        ("1 0.5 half 0.25 0.5", r"a.b.txt:2: wanted five numbers"),
        ("0.5 0.5 0.5 0.25 0.5", r"a.b.txt:2: wanted five numbers"),
        ("2 0.5 0.5 0.25 0.5", r"a.b.txt:2: wanted a class index 0..1, got 2"),
        ("1 nan 0.5 0.25 0.5", r"a.b.txt:2: wanted finite numbers"),
        ("nan 0.5 0.5 0.25 0.5", r"a.b.txt:2: wanted five numbers"),
        ("inf 0.5 0.5 0.25 0.5", r"a.b.txt:2: wanted five numbers"),
    ],
)
def test_malformed_lines_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_dataset(written(tmp_path, "0 0.5 0.5 0.1 0.1\n" + line + "\n"), tmp_path)


def test_label_file_that_is_no_text(tmp_path: Path) -> None:
    config = written(tmp_path)
    (tmp_path / "v1.0 ünï/labels/deep/a.b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="a.b.txt: wanted UTF-8 text"):
        build_dataset(config, tmp_path)


def test_empty_and_missing_label_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert build_dataset(written(tmp_path, ""), tmp_path).load(0).boxes.shape == (0, 4)
    assert not caplog.text
    config = written(tmp_path / "other", None)
    with caplog.at_level(logging.WARNING):
        assert len(build_dataset(config, tmp_path / "other").labels(0)) == 0
    assert "1 x no label file" in caplog.text
    with pytest.raises(
        FileNotFoundError, match="a.b.txt: no such label file, wanted one for .*a.b.jpg"
    ):
        build_dataset({**config, "missing_labels": "error"}, tmp_path / "other")
    with pytest.raises(ValueError, match="at least one image"):
        build_dataset({**config, "missing_labels": "skip"}, tmp_path / "other")
    with pytest.raises(ValueError, match="missing_labels must be"):
        build_dataset({**config, "missing_labels": "ignore"}, tmp_path / "other")


def test_box_outside_is_clipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = build_dataset(
            written(tmp_path, "0 0.9 0.5 0.4 1.0\n1 1.5 0.5 0.1 0.1\n0 0.5 0.5 0 0.1\n"), tmp_path
        )
    np.testing.assert_allclose(dataset.annotations(0).boxes, [[56, 0, 80, 40]], atol=1e-4)
    assert "1 x clipped box" in caplog.text and "2 x dropped box" in caplog.text


def test_yaml_forms(tmp_path: Path) -> None:
    written(tmp_path)
    file = tmp_path / "set.yaml"
    for text in (
        "path: v1.0 ünï\ntrain: images\nnames: {0: cat, 1: dog}\n",
        f"path: {tmp_path / 'v1.0 ünï'}\ntrain: [images/deep]\nnames: [cat, dog]\n",
        "train: v1.0 ünï/images\nnames: [cat, dog]\n",
    ):
        file.write_text(text, encoding="utf-8")
        dataset = build_dataset({"format": "yolo", "data": "set.yaml", "split": "train"}, tmp_path)
        assert (
            len(dataset) == 1
            and dataset.class_names == ["cat", "dog"]
            and len(dataset.labels(0)) == 1
        )
    with pytest.raises(ValueError, match="wanted the keys val and names"):
        build_dataset({"format": "yolo", "data": "set.yaml", "split": "val"}, tmp_path)
    file.write_text("train: v1.0 ünï/images\nnames: {0: cat, 2: dog}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="numbered 0, 1, 2"):
        build_dataset({"format": "yolo", "data": "set.yaml", "split": "train"}, tmp_path)
    for config in (
        {"data": "set.yaml"},
        {"images": "x"},
        {"data": "set.yaml", "split": "train", "names": ["a"]},
    ):
        with pytest.raises(ValueError, match="either data with split, or images with names"):
            build_dataset({"format": "yolo", **config}, tmp_path)


def test_list_file(tmp_path: Path) -> None:
    config = written(tmp_path)
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "all.txt").write_text(
        "v1.0 ünï/images/deep/a.b.jpg\n../v1.0 ünï/images/deep/a.b.jpg\n", encoding="utf-8"
    )
    dataset = build_dataset({**config, "images": "lists/all.txt"}, tmp_path)
    assert dataset.paths[0] == dataset.paths[1] and dataset.image_ids == [1, 2]
    (lists / "bad.txt").write_text("a.jpg\nnotes.doc\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad.txt:2: wanted an image .*got 'notes.doc'"):
        build_dataset({**config, "images": "lists/bad.txt"}, tmp_path)
    (lists / "gone.txt").write_text("gone.jpg\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="gone.jpg: no such image"):
        build_dataset({**config, "images": "lists/gone.txt"}, tmp_path)


def test_label_places() -> None:
    assert label_path("/d/images/x/images/a.1.jpg", None, None) == "/d/images/x/labels/a.1.txt"
    assert label_path("/d/pics/a.jpg", None, None) == "/d/pics/a.txt"
    assert label_path("/d/pics/b/a.jpg", Path("/d/pics"), Path("/l")) == "/l/b/a.txt"
    assert label_path("/d/pics/b/a.jpg", None, Path("/l")) == "/l/a.txt"


def test_real_coco128(real_data: Path) -> None:
    dataset = build_dataset(
        {"format": "yolo", "data": "coco128/coco128.yaml", "split": "train"}, real_data
    )
    assert len(dataset) == 128 and sum(len(dataset.labels(index)) for index in range(128)) == 929
    for index in (0, 50, 127):
        assert dataset.load(index).image.shape[:2] == dataset.size(index)


def test_lines_of_points_have_their_frame_as_box(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "1 0.1 0.5 0.3 0.25 0.2 0.75\n0 0.5 0.5 0.25 0.5\n"
        "1 0.5 0.5 1.5 0.5 1.5 0.9 0.5 0.9\n0 2 2 3 2 3 3\n"
    )
    config = written(tmp_path, text)
    with caplog.at_level(logging.WARNING):
        plain, dataset = (
            build_dataset(config, tmp_path),
            build_dataset({**config, "polygons": True}, tmp_path),
        )
    assert "1 x clipped box" in caplog.text and "1 x dropped box" in caplog.text
    for found in (plain, dataset):
        np.testing.assert_allclose(
            found.annotations(0).boxes,
            [[8, 10, 24, 30], [30, 10, 50, 30], [40, 20, 80, 36]],
            atol=1e-4,
        )
    assert plain.polygons(0) == [None] * 3 and not plain.has_polygons and dataset.has_polygons
    triangle, box, cut = dataset.polygons(0)
    assert box is None and triangle.dtype == np.float32
    np.testing.assert_allclose(triangle, [[0.1, 0.5], [0.3, 0.25], [0.2, 0.75]], atol=1e-6)
    np.testing.assert_allclose(cut, [[0.5, 0.5], [1, 0.5], [1, 0.9], [0.5, 0.9]], atol=1e-6)
    with pytest.raises(ValueError, match="wanted five numbers.* or class and points x y x y x y"):
        build_dataset(
            written(tmp_path / "odd", "1 0.1 0.5 0.3 0.25 0.2 0.75 0.5\n"), tmp_path / "odd"
        )
    with pytest.raises(ValueError, match="wanted finite numbers"):
        build_dataset(written(tmp_path / "nan", "1 0.1 0.5 nan 0.25 0.2 0.75\n"), tmp_path / "nan")


def boxes(folder: Path, description: dict) -> list:
    return build_dataset(description, folder).annotations(0).boxes.tolist()


BOX = [[30, 10, 50, 30]]  # of LINE, in pixels


@pytest.mark.parametrize(
    ("tail", "names"),
    [
        ("nc: 2\nnames: [yes, no]", ["yes", "no"]),
        ("names: {0: null, 1: 1.50}", ["null", "1.50"]),
        ("names: {1: b, 0: a}\nnc: 2", ["a", "b"]),
        ("names:\n  - cat\n  - 'on'\npath:", ["cat", "on"]),
        ("names: c.names\npath: null", ["cat", "dog"]),
        ("nc: '2'\nnames: c.names\ndownload: |\n  import os", ["cat", "dog"]),
    ],
)
def test_names_in_a_yaml_file(tmp_path: Path, tail: str, names: list) -> None:
    yolo(tmp_path)
    put(tmp_path / "c.names", "cat\ndog\n")
    put(tmp_path / "d.yaml", f"train: images\n{tail}\n".encode("utf-8-sig"))
    description = {"format": "yolo", "data": "d.yaml", "split": "train"}
    assert build_dataset(description, tmp_path).class_names == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wanted the keys train and names, got NoneType"),
        ("5", "got str"),
        ("train: images", r"wanted the keys train and names, got \['train'\]"),
        ("valid: images\nnames: [a]", "wanted the keys train and names"),
        ("train: images\nnames: [a]\nnc: 2", r"d.yaml: nc is 2, but names has 1 \(a\)"),
        ("train: images\nnames: [a]\nnc: x", "nc is x, but names has 1"),
        ("train: images\nnames: gone.names", "d.yaml: names: no such file"),
        ("train: images\nnames: {0: a, 2: b}", "names must be numbered 0, 1, 2"),
        ("train: images\nnames: [[a]]", r"names\[0\]: wanted a class name"),
        ("train: images\nnames: [a, a]", "twice"),
        ("train: gone\nnames: [a]", "d.yaml: train: no such file or folder: gone"),
        ("train: {a: b}\nnames: [a]", "train must be a folder of images or a list file"),
        ("train: [images, [images]]\nnames: [a]", "train must be a folder of images"),
        ("path: [a]\ntrain: images\nnames: [a]", "path must be a folder"),
        ("train: images\nnames: [a]\nnames: [b]", "d.yaml:3: .*duplicate key 'names'"),
        ("train: images\nnames: [a]\nkpt_shape: 4", "kpt_shape must be"),
        ("train: images\nnames: [a]\nkpt_shape: [4, 5]", "kpt_shape must be"),
        ("train: images\nnames: [a]\nkpt_shape: [9999999, 2]", "kpt_shape must be"),
        ("train: " + "a" * 5000 + "\nnames: [a]", "no such file or folder"),
        ('train: "a\\0b"\nnames: [a]', "no such file or folder"),
        ("[" * 1000, "nested more than 50 deep"),
    ],
)
def test_yaml_files_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    yolo(tmp_path)
    put(tmp_path / "d.yaml", text)
    with pytest.raises((DataError, MissingFileError), match="d.yaml") as caught:
        build_dataset({"format": "yolo", "data": "d.yaml", "split": "train"}, tmp_path)
    assert re.search(message, str(caught.value))


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("train: ../train/images\nval: ../valid/images", "."),  # Roboflow
        ("train: ../../train/images", "."),
        ("path: ../datasets/mine\ntrain: train/images", "."),  # beside ultralytics' own folder
        ("path: /content/elsewhere\ntrain: train/images", "."),
        ("train: train\\images", "."),
        ("train: set/train/images", "set/.."),
        ("path: set\ntrain: train/images", "set/.."),
    ],
)
def test_paths_of_other_machines(tmp_path: Path, text: str, root: str) -> None:
    image(tmp_path / "set/train/images/a.jpg")
    put(tmp_path / "set/train/labels/a.txt", LINE)
    put(tmp_path / "set/data.yaml", f"{text}\nnames: [cat]\n")
    where = str(tmp_path / "set/data.yaml")
    description = {"format": "yolo", "data": where, "split": "train"}
    assert boxes(tmp_path / root, description) == BOX


def test_layout_of_mindyolo(tmp_path: Path) -> None:
    """Text labels for training, COCO JSON for evaluation, names in MindYOLO's recipe."""
    image(tmp_path / "coco/images/train2017/000000000009.jpg")
    put(tmp_path / "coco/labels/train2017/000000000009.txt", LINE)
    put(tmp_path / "coco/train2017.txt", "./images/train2017/000000000009.jpg\n")
    put(
        tmp_path / "coco.yaml",
        "data:\n  train_set: ./coco/train2017.txt # 118287 images\n  nc: 2\n  names: [ 'a', 'b' ]",
    )
    description = {"format": "yolo", "data": "coco.yaml", "split": "train"}
    train = build_dataset(description, tmp_path)
    assert train.annotations(0).boxes.tolist() == BOX and train.image_ids == [9]
    by_list = {"format": "yolo", "images": "coco/train2017.txt", "names": ["a", "b"]}
    assert boxes(tmp_path, by_list) == BOX
    categories = [{"id": 90, "name": "a"}, {"id": 1, "name": "b"}]
    image(tmp_path / "coco/images/val2017/000000000007.jpg")
    put(
        tmp_path / "coco/annotations/instances_val2017.json",
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "000000000007.jpg"}],
                "categories": categories,
                "annotations": [
                    {"id": 1, "image_id": 7, "category_id": 90, "bbox": [30, 10, 20, 20]}
                ],
            }
        ),
    )
    val = build_dataset(
        {
            "format": "coco",
            "images": "coco/images/val2017",
            "annotations": "coco/annotations/instances_val2017.json",
        },
        tmp_path,
    ).with_classes(train.class_names)
    assert val.labels(0).tolist() == [0] and val.category_ids == [90, 1]


def test_pose_labels(tmp_path: Path) -> None:
    line = "0 0.5 0.5 0.25 0.5" + " 0.45 0.4 2" * 4 + "\n"
    description = yolo(tmp_path, line + LINE, kpt_shape=[4, 3])
    dataset = build_dataset({**description, "polygons": True}, tmp_path)
    assert dataset.annotations(0).boxes.tolist() == BOX * 2 and not dataset.has_polygons
    put(tmp_path / "d.yaml", "train: images\nnames: [a]\nkpt_shape: [4, 3]\n")
    assert boxes(tmp_path, {"format": "yolo", "data": "d.yaml", "split": "train"}) == BOX * 2
    with pytest.raises(DataError, match="0.txt:1: wanted five numbers.*or 13 with the key points"):
        build_dataset({**description, "kpt_shape": [4, 2]}, tmp_path)
    with pytest.raises(ConfigError, match="kpt_shape must be a list"):
        build_dataset({**description, "kpt_shape": 5}, tmp_path)


@pytest.mark.parametrize(
    ("line", "doubt"),
    [
        ("0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6\n", "bounding box of its corners"),
        ("0 0.5 0.5 0.2 0.4 0.45 0.4 0.55 0.4 0.45 0.6 0.55 0.6\n", "set kpt_shape"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.6\n", ""),
        ("0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6\n" + LINE, ""),
    ],
)
def test_labels_that_can_be_read_in_two_ways(tmp_path: Path, line: str, doubt: str) -> None:
    dataset = build_dataset(yolo(tmp_path, line), tmp_path)
    found = [problem.message for problem in dataset.problems if problem.kind == "doubtful labels"]
    assert doubt in found[0] if doubt else not found


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("0 0.5 0.5 0.2 0.2 0.9", "a score or an angle"),
        ("10 10 20 10 20 20 10 20 plane 0", "oriented boxes of DOTA"),
        ("0 0,5 0,5 0,2 0,2", "use decimal points"),
        ("0 0.5 0.5 0.2 0.2" + " 0.5 0.5 2" * 17, "set kpt_shape|Set kpt_shape"),
        ("1e30 0.5 0.5 0.1 0.1", "wanted five numbers"),
        ("1" * 5000 + " 0.5 0.5 0.1 0.1", "wanted five numbers"),
        ("\x1b[31m 0.5 0.5 0.1 0.1", r"got '\\x1b\[31m"),
    ],
)
def test_hints_at_other_forms(tmp_path: Path, line: str, hint: str) -> None:
    with pytest.raises(DataError, match=r"0.txt:1: ") as caught:
        build_dataset(yolo(tmp_path, line), tmp_path)
    assert re.search(hint, str(caught.value)) and len(str(caught.value)) < 600


def test_one_label_file_for_two_images(tmp_path: Path) -> None:
    description = yolo(tmp_path)
    image(tmp_path / "images/0.png")
    with pytest.raises(DataError, match=r"0.txt: is the label file of .*0.jpg and of .*0.png"):
        build_dataset(description, tmp_path)


def test_labels_of_a_list_with_images_of_one_name(tmp_path: Path) -> None:
    for folder, line in (("x", LINE), ("y", "1 0.5 0.5 0.5 0.5\n")):
        image(tmp_path / f"photos/{folder}/a.jpg")
        put(tmp_path / f"texts/{folder}/a.txt", line)
    put(tmp_path / "list.txt", "photos/x/a.jpg\nphotos/y/a.jpg\n")
    description = {
        **{"format": "yolo", "images": "list.txt", "labels": "texts", "names": ["cat", "dog"]}
    }
    dataset = build_dataset(description, tmp_path)
    assert [dataset.labels(index).tolist() for index in range(2)] == [[0], [1]]
    (tmp_path / "texts/x/a.txt").rename(tmp_path / "texts/a.txt")
    (tmp_path / "texts/y/a.txt").unlink()
    with pytest.raises(DataError, match=r"texts/a.txt: is the label file of .*x/a.jpg and of .*y"):
        build_dataset(description, tmp_path)


def test_labels_of_a_list_below_images_or_side_by_side(tmp_path: Path) -> None:
    image(tmp_path / "images/train/deep/a.jpg")
    put(tmp_path / "list.txt", "images/train/deep/a.jpg\n")
    description = {"format": "yolo", "images": "list.txt", "labels": "texts", "names": ["cat"]}
    for place in ("texts/train/deep/a.txt", "texts/a.txt"):
        put(tmp_path / place, LINE)
        assert boxes(tmp_path, description) == BOX
        (tmp_path / place).unlink()


def test_lists_go_on_past_a_faulty_line(tmp_path: Path) -> None:
    description = {**yolo(tmp_path), "images": "l.txt"}
    lines = "images\\0.jpg\nimages/0.jpg,1,2,3,4,0\nimages/gone.jpg\nimages/0.jpg\n"
    put(tmp_path / "l.txt", lines.encode("utf-16"))
    dataset = build_dataset(description, tmp_path, strict=False)
    assert [(problem.kind, Path(problem.where).name) for problem in dataset.problems] == [
        ("malformed line", "l.txt:2"),
        ("listed twice", "l.txt"),
        ("missing image", "gone.jpg"),
    ]
    assert len(dataset) == 3
    with pytest.raises(DataError, match="l.txt:2: wanted an image"):
        build_dataset(description, tmp_path)


def test_what_is_left_out_of_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    description = yolo(tmp_path)
    for name in ("a.heic", "b.HEIC", "c.mp4", "._0.jpg", "Thumbs", "notes.txt"):
        put(tmp_path / "images" / name, "x")
    image(tmp_path / "elsewhere/more.jpg")
    (tmp_path / "images/link").symlink_to(tmp_path / "elsewhere")
    dataset = build_dataset(description, tmp_path)
    assert len(dataset) == 1 and "5 x left out" in caplog.text
    assert sorted(problem.message for problem in dataset.problems) == [
        "1 file(s) ._*, such as ._0.jpg",
        "1 file(s) .mp4, such as c.mp4",
        "1 file(s) no suffix, such as Thumbs",
        "2 file(s) .heic, such as a.heic",
        "a link to a folder, whose images are left out; name the folder itself",
    ]


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "mpo", "JPG"])
def test_other_suffixes_of_jpeg(tmp_path: Path, suffix: str) -> None:
    image(tmp_path / "images/a.jpg").rename(tmp_path / f"images/a.{suffix}")
    put(tmp_path / "labels/a.txt", LINE)
    dataset = build_dataset({"format": "yolo", "images": "images", "names": ["cat"]}, tmp_path)
    assert dataset.load(0).image.shape == (HEIGHT, WIDTH, 3) and not dataset.problems


@pytest.mark.parametrize(
    "keys", [{"images": 5}, {"names": {"a": 1}}, {"labels": ["a"]}, {"polygons": 1}]
)
def test_keys_of_another_type(tmp_path: Path, keys: dict) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(keys))} must be"):
        build_dataset({**yolo(tmp_path), **keys}, tmp_path)


def test_files_of_another_kind_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mindyolo_ext.data.formats.label_files.MAX_FAULTS", 3)
    description = yolo(tmp_path, "x\n" * 9)
    with pytest.raises(DataError, match="4 faults(.|\n)*0.txt:3: reading stopped after 3 faults"):
        build_dataset(description, tmp_path)
    put(tmp_path / "l.txt", "x\n" * 9)
    with pytest.raises(DataError, match=r"4 faults(.|\n)*l.txt:4: reading stopped after 3 faults"):
        build_dataset({**description, "images": "l.txt"}, tmp_path)
    with pytest.raises(DataError, match="0.jpg: wanted a folder of images or a list"):
        build_dataset({**description, "images": "images/0.jpg"}, tmp_path)


def test_classes_that_count_from_one(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="wanted a class index 0..1, got 2; does numbering start at 1"
    ):
        build_dataset(yolo(tmp_path, "2 0.5 0.5 0.1 0.1\n"), tmp_path)

"""The data set class and its configuration."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from photos import add_photo

from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.data.image_file import write_image
from mindyolo_ext.data.text import find_path, ids_from_names, read_names
from mindyolo_ext.errors import DataError

FORMS = {
    "coco": {"format": "coco", "images": "images/train", "annotations": "annotations/train.json"},
    "yolo": {"format": "yolo", "data": "shapes.yaml", "split": "train"},
    "yolo folders": {
        "format": "yolo",
        "images": "images/train",
        "names": ["circle", "square", "triangle"],
    },
    "darknet": {"format": "darknet", "data": "shapes.data", "split": "train"},
}


def one_image(folder: Path, boxes: list, labels: list, relative: bool = False) -> Collector:
    """A collector with one image of 40 x 60 and these boxes."""
    collector = Collector("test", ["one", "two"], relative=relative, tolerance=0.0)
    image = np.zeros((40, 60, 3), np.uint8)
    add_photo(collector, folder / "a.png", image, boxes, image_id=7, labels=labels)
    return collector


@pytest.mark.parametrize("name", list(FORMS))
def test_forms_agree(shapes_folder: Path, name: str) -> None:
    reference, dataset = (
        build_dataset(FORMS["coco"], shapes_folder),
        build_dataset(FORMS[name], shapes_folder),
    )
    assert len(dataset) == 19 and dataset.class_names == ["circle", "square", "triangle"]
    assert (
        dataset.image_ids == reference.image_ids
        and dataset.max_boxes() == reference.max_boxes() > 1
    )
    for index in range(19):
        wanted, found, sample = (
            reference.annotations(index),
            dataset.annotations(index),
            dataset.load(index),
        )
        assert (found.height, found.width) == (72, 96) == sample.image.shape[:2]
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-3)
        np.testing.assert_array_equal(found.boxes, sample.boxes)
        np.testing.assert_array_equal(found.labels, wanted.labels)
        np.testing.assert_array_equal(found.labels, dataset.labels(index))
        assert (
            sample.boxes.dtype == np.float32
            and sample.labels.dtype == np.int64
            and sample.ignore.dtype == bool
        )
        assert sample.image_id == dataset.image_ids[index] and sample.path == dataset.paths[index]


def test_boxes_need_no_image(shapes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build_dataset(FORMS["yolo"], shapes_folder)
    monkeypatch.setattr("mindyolo_ext.data.dataset.read_image", None)
    monkeypatch.setattr("mindyolo_ext.data.image_file.read_image", None)
    assert len(dataset.annotations(0).boxes) and len(dataset.coco_ground_truth()["images"]) == 19


def test_ground_truth_is_read_by_pycocotools(shapes_folder: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    for form in FORMS.values():
        dataset = build_dataset(form, shapes_folder)
        truth = coco.COCO()
        truth.dataset = dataset.coco_ground_truth()
        truth.createIndex()
        found = [
            {
                "image_id": row["image_id"],
                "category_id": row["category_id"],
                "bbox": row["bbox"],
                "score": 1.0,
            }
            for row in truth.dataset["annotations"]
        ]
        check = evaluation.COCOeval(truth, truth.loadRes(found), "bbox")
        check.evaluate()
        check.accumulate()
        check.summarize()
        assert check.stats[0] == pytest.approx(1.0)
        assert [category["id"] for category in truth.dataset["categories"]] == dataset.category_ids


def test_odd_boxes_are_repaired_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = [(-5, 1, 30, 20), (10, 10, 10, 20), (70, 1, 80, 20), (1, 2, 3, 4), (50, 30, 99, 99)]
    with caplog.at_level(logging.WARNING):
        dataset = one_image(tmp_path, boxes, [0, 1, 0, 1, 1]).finish()
    np.testing.assert_array_equal(
        dataset.annotations(0).boxes, [(0, 1, 30, 20), (1, 2, 3, 4), (50, 30, 60, 40)]
    )
    np.testing.assert_array_equal(dataset.labels(0), [0, 1, 1])
    assert "test: 2 x clipped box, the first: a.png:1" in caplog.text
    assert "test: 2 x dropped box, the first: a.png:2" in caplog.text


def test_good_boxes_warn_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = one_image(tmp_path, [(0, 0, 60, 40)], [1]).finish()
    assert not caplog.text and not dataset.problems


@pytest.mark.parametrize(
    ("box", "label", "message"),
    [
        ((1, 2, 3, 4), 2, r"a.png:1: wanted a class index 0..1, got 2"),
        ((1, 2, 3, 4), -1, r"a.png:1: wanted a class index 0..1, got -1"),
        ((1, 2, float("nan"), 4), 0, r"a.png:1: wanted finite numbers"),
    ],
)
def test_faults_stop_or_are_listed(tmp_path: Path, box: tuple, label: int, message: str) -> None:
    collector = one_image(tmp_path, [(1, 1, 9, 9), box][::-1], [label, 0])
    with pytest.raises(ValueError, match=message):
        collector.finish()
    dataset = collector.finish(strict=False)
    assert [problem.fatal for problem in dataset.problems] == [True] and len(dataset.labels(0)) == 1


def test_many_faults_are_shortened(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"test: 9 faults(.|\n)*and 4 more"):
        one_image(tmp_path, [(1, 1, 2, 2)] * 9, [5] * 9).finish()


def test_missing_and_broken_images(tmp_path: Path) -> None:
    collector = one_image(tmp_path, [(1, 1, 9, 9)], [0])
    (tmp_path / "a.png").write_bytes(b"no image")
    dataset = collector.finish()
    with pytest.raises(ValueError, match="a.png: wanted a readable image"):
        dataset.load(0)
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match="a.png"):
        dataset.load(0)
    collector.add(str(tmp_path / "a.png"), 8, None, boxes=[], labels=[], ignore=[], where=[])
    with pytest.raises(FileNotFoundError, match="a.png: no such image"):
        collector.finish()


def test_image_of_another_size_than_labelled(tmp_path: Path) -> None:
    dataset = one_image(tmp_path, [(1, 1, 9, 9)], [0]).finish()
    write_image(tmp_path / "a.png", np.zeros((60, 40, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a.png: the image is 40x60 .* made for 60x40"):
        dataset.load(0)


def test_no_images_no_boxes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="test: wanted at least one image"):
        Collector("test", ["one"], relative=True, tolerance=0).finish()
    dataset = one_image(tmp_path, [], []).finish()
    assert dataset.max_boxes() == 0 and dataset.load(0).boxes.shape == (0, 4)
    assert dataset.coco_ground_truth()["annotations"] == []
    with pytest.raises(ValueError, match="at least one class"):
        Collector("test", [], relative=True, tolerance=0)


def test_cache_keeps_read_only_images(shapes_folder: Path) -> None:
    dataset = build_dataset({**FORMS["coco"], "cache": True}, shapes_folder)
    first = dataset.load(2)
    np.testing.assert_array_equal(dataset.load(2).image, first.image)
    assert np.shares_memory(dataset.load(2).image, dataset.load(2).image)
    with pytest.raises(ValueError, match="read-only"):
        first.image[0] = 0
    first.boxes[:] = 0
    assert dataset.load(2).boxes.any()
    plain = build_dataset(FORMS["coco"], shapes_folder)
    assert plain.load(2).image is not plain.load(2).image


def test_dataset_can_be_sent_to_another_process(shapes: Dataset) -> None:
    copy = pickle.loads(pickle.dumps(shapes))
    np.testing.assert_array_equal(copy.load(3).image, shapes.load(3).image)
    assert copy.coco_ground_truth() == shapes.coco_ground_truth()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"format": "cocoo"}, "format must be one of coco, yolo, darknet, voc, got 'cocoo'"),
        ({}, "format must be one of"),
        (
            {"format": "coco", "images": "i", "annotation": "a"},
            "unknown key annotation, did you mean annotations",
        ),
        ({"format": "coco", "images": "i"}, "got no annotations"),
        ({**FORMS["coco"], "cache": "yes"}, "cache must be one of none, ram, disk, got 'yes'"),
    ],
)
def test_configuration_errors(shapes_folder: Path, config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_dataset(config, shapes_folder)


def test_paths_relative_and_absolute(shapes_folder: Path, tmp_path: Path) -> None:
    absolute = {**FORMS["coco"], "images": str(shapes_folder / "images/train")}
    assert build_dataset(
        {**absolute, "annotations": str(shapes_folder / "annotations/train.json")}, tmp_path
    ).load(0)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        build_dataset(FORMS["coco"], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"x.b, .*y.b"):
        find_path("b", tmp_path / "x", tmp_path / "y")


def test_names_and_ids(tmp_path: Path) -> None:
    (tmp_path / "n.names").write_text("\ufeffcat\n\ndog bed\n", encoding="utf-8")
    assert read_names("n.names", tmp_path) == ["cat", "dog bed"] == read_names(["cat", "dog bed"])
    with pytest.raises(ValueError, match=r"\['cat'\] twice"):
        read_names(["cat", "dog", "cat"])
    assert ids_from_names(["a/000139.jpg", "b/7.png"]) == [139, 7]
    assert ids_from_names(["a/7.jpg", "b/7.png"]) == [1, 2] == ids_from_names(["a/x.jpg", "8.jpg"])


def test_unequal_lengths_and_repeated_ids() -> None:
    empty = (np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="as many ids"):
        Dataset("d", ["a"], ["p", "q"], [1], annotations=[empty], sizes=[None])
    with pytest.raises(ValueError, match="ids must be unique"):
        Dataset("d", ["a"], ["p", "q"], [1, 1], annotations=[empty] * 2, sizes=[None] * 2)


def test_outlines_belong_to_boxes() -> None:
    annotations = [
        (np.zeros((count, 4)), np.zeros(count), np.zeros(count, bool)) for count in (2, 0, 1)
    ]
    line = np.array([[0, 0], [1, 0], [1, 1]])
    dataset = Dataset(
        "d",
        ["a"],
        ["p", "q", "r"],
        [1, 2, 3],
        annotations=annotations,
        sizes=[(4, 4)] * 3,
        polygons=[[None, line], [], [line / 2]],
    )
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.polygons(0)[0] is None and copy.polygons(1) == []
    np.testing.assert_array_equal(copy.polygons(0)[1], line)
    copy.polygons(2)[0][:] = 7  # a copy
    np.testing.assert_array_equal(copy.polygons(2)[0], line / 2)
    without = Dataset(
        "d", ["a"], ["p"], [1], annotations=annotations[:1], sizes=[None], polygons=[[None, None]]
    )
    assert not without.has_polygons and without.polygons(0) == [None, None]
    with pytest.raises(ValueError, match="an outline or None for each of 3 boxes, got 2"):
        Dataset(
            "d",
            ["a"],
            ["p", "q", "r"],
            [1, 2, 3],
            annotations=annotations,
            sizes=[None] * 3,
            polygons=[[None, line], [], []],
        )


def test_classes_in_another_order(shapes: Dataset) -> None:
    names = ["triangle", "circle", "square"]
    assert shapes.with_classes(shapes.class_names) is shapes
    other = shapes.with_classes(names)
    assert other.class_names == names and shapes.class_names == ["circle", "square", "triangle"]
    for index in range(len(shapes)):
        before = [shapes.class_names[label] for label in shapes.labels(index)]
        assert before == [other.class_names[label] for label in other.labels(index)]
    name_of = {row["id"]: row["name"] for row in other.coco_ground_truth()["categories"]}
    for row, same in zip(
        shapes.coco_ground_truth()["annotations"],
        other.coco_ground_truth()["annotations"],
        strict=True,
    ):
        assert row == same
        assert name_of[row["category_id"]] == shapes.class_names[row["category_id"] - 1]
    assert other.with_classes(shapes.class_names).category_ids == [1, 2, 3]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["circle", "square"], "has in addition triangle"),
        (["circle", "square", "Triangle"], "lacks Triangle; has in addition triangle"),
        (["circle", "square", "triangle", "star"], "lacks star"),
        (["circle", "square", "square"], "has in addition triangle"),
    ],
)
def test_other_classes_are_refused(shapes: Dataset, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        shapes.with_classes(names)

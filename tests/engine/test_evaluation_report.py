"""Label files of an evaluation, its confusion matrix, and the comparison of two results."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mindyolo_ext.config import Config
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.compare import compare
from mindyolo_ext.engine.evaluate_file import Loaded, run_test
from mindyolo_ext.engine.evaluation_report import label_names, write_labels
from mindyolo_ext.errors import MissingPackageError
from mindyolo_ext.evaluation import confusion
from mindyolo_ext.evaluation.coco_map import evaluate_coco
from mindyolo_ext.evaluation.confusion import (
    confusion_matrix,
    has_supervision,
    warn_without_supervision,
)
from mindyolo_ext.evaluation.error_kinds import break_down
from mindyolo_ext.visual.errors import plot_confusion, plot_errors

TRUTH = {
    "images": [{"id": 1}, {"id": 2}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50]},
        {"image_id": 1, "category_id": 2, "bbox": [100, 0, 50, 50]},
        {"image_id": 2, "category_id": 2, "bbox": [0, 0, 50, 50]},
        {"image_id": 2, "category_id": 1, "bbox": [200, 0, 90, 90], "iscrowd": 1},
    ],
}


def record(image: int, category: int, x: float, score: float = 0.9) -> dict:
    return {"image_id": image, "category_id": category, "bbox": [x, 0, 50, 50], "score": score}


def test_every_image_has_a_label_file_of_its_own() -> None:
    assert label_names(["/d/a.jpg", "/d/b.png"]) == [Path("a.txt"), Path("b.txt")]
    assert label_names(["/d/a.jpg", "/d/a.png"]) == [Path("a.jpg.txt"), Path("a.png.txt")]
    assert label_names(["/d/a.jpg", "/d/a.png", "/d/a.jpg.png"]) == [
        *(Path("a.jpg.txt"), Path("a.png.txt"), Path("a.jpg.png.txt"))
    ]
    assert label_names(["/d/a.jpg", "/d/a.jpg.png"]) == [Path("a.txt"), Path("a.jpg.txt")]
    assert label_names(["/d/x/a.jpg", "/d/y/a.jpg"]) == [Path("x/a.txt"), Path("y/a.txt")]


def test_label_files_hold_the_detections(tmp_path: Path) -> None:
    nothing = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool))
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    data = Dataset(
        "toy", ["cat", "dog"], paths, [1, 2], annotations=[nothing] * 2, sizes=[(100, 200)] * 2
    )
    found = [np.array([[20, 10, 60, 30, 0.5, 1]], np.float32), np.zeros((0, 6), np.float32)]
    write_labels(tmp_path / "labels", found, data)
    assert (tmp_path / "labels" / "a.txt").read_text() == "1 0.2 0.2 0.2 0.2 0.5\n"
    assert (tmp_path / "labels" / "b.txt").read_text() == ""


@pytest.mark.skipif(not has_supervision(), reason="supervision is not installed")
def test_the_confusion_matrix_by_hand() -> None:
    found = [
        record(1, 1, 0),
        record(1, 1, 100),  # the dog as a cat
        record(2, 1, 500),  # nothing there
        record(2, 2, 0, 0.1),  # below the threshold
        record(2, 1, 220),  # on the crowd
    ]
    matrix = confusion_matrix(evaluate_coco(TRUTH, found).matches, 0.5)
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 0]]


def test_a_supervision_that_does_not_start_is_told(tmp_path, monkeypatch, caplog) -> None:
    """As when a package that it needs is missing: one warning, which a run gives at its start."""
    (tmp_path / "supervision.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "supervision"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingPackageError, match="does not start .*a_package_that_is_not_there"):
        confusion_matrix(evaluate_coco(TRUTH, [record(1, 1, 0)]).matches, 0.5)
    assert not has_supervision()
    warn_without_supervision()
    assert len(caplog.messages) == 1 and "no confusion matrix will be drawn" in caplog.text


def test_a_missing_supervision_is_told_before_an_evaluation(tmp_path, monkeypatch, caplog) -> None:
    def evaluate(*_, **__):
        raise InterruptedError("the evaluation has begun")

    monkeypatch.setattr("mindyolo_ext.engine.evaluate_file.evaluate", evaluate)
    monkeypatch.setattr(confusion, "_problem", lambda: "a package is missing")
    with pytest.raises(InterruptedError, match="has begun"):
        run_test(Loaded(None, None, None, ""), Config(), tmp_path)
    assert caplog.messages == ["no confusion matrix will be drawn: a package is missing"]


def test_pictures_of_errors(tmp_path: Path) -> None:
    result = evaluate_coco(TRUTH, [record(1, 1, 0), record(1, 1, 100)])
    plot_errors(break_down(result.matches), tmp_path / "errors.png")
    plot_confusion(np.eye(3, dtype=int), ["cat", "dog"], tmp_path / "c.png", confidence=0.5)
    plot_confusion(np.eye(81, dtype=int), ["x"] * 80, tmp_path / "many.png", confidence=0.5)
    for name in ("errors", "c", "many"):
        assert cv2.imread(str(tmp_path / f"{name}.png")).std() > 5


def test_images_differ_by_what_is_found_less_false_positives() -> None:
    first = evaluate_coco(TRUTH, [record(1, 1, 0), record(1, 1, 500, 0.95)])
    second = evaluate_coco(TRUTH, [record(1, 1, 0), record(1, 2, 100), record(2, 2, 0)])
    found = compare(first, second, ("a", "b"))
    assert found.difference.tolist() == [2, 1]
    lines = found.table().splitlines()
    ap = (100 * first.ap, 100 * second.ap)
    assert f"{ap[0]:.2f} {ap[1]:.2f} {ap[1] - ap[0]:+.2f}" in " ".join(
        next(line for line in lines if line.startswith("AP ")).split()
    )
    other = {**TRUTH, "images": [{"id": 1}, {"id": 2}, {"id": 3}]}
    with pytest.raises(ValueError, match="not of the same data set: image_ids differ"):
        compare(first, evaluate_coco(other, []), ("a", "b"))

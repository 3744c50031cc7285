"""Anchors computed with k-means."""

from pathlib import Path

import numpy as np
import pytest
from helpers import Golden
from label_sets import image, put

from mindyolo_ext.data import anchors as anchors_module
from mindyolo_ext.data.anchors import (
    AnchorResult,
    box_fractions,
    generate_anchors,
    mean_best_iou,
    sizes_from_list,
)
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.errors import DataError


def test_mean_iou_by_hand() -> None:
    sizes = np.array([[0.2, 0.2], [0.4, 0.1]])
    # with (0.2, 0.2): 1 and 0.02 / 0.06; with (0.4, 0.2): 0.5 and 0.5
    assert mean_best_iou(sizes, np.array([[0.2, 0.2]])) == pytest.approx((1 + 1 / 3) / 2)
    assert mean_best_iou(sizes, np.array([[0.2, 0.2], [0.4, 0.2]])) == pytest.approx(0.75)


@pytest.mark.parametrize("count", [6, 9])
def test_measure_and_text_equal_the_original(golden: Golden, count: int) -> None:
    stored = golden.arrays("yolo_fastestv2/genanchors.npz")
    centers = stored[f"k{count}_final_centroids"]
    iou = mean_best_iou(stored["wh"], centers)
    assert iou == pytest.approx(float(stored[f"k{count}_avg_iou"]), abs=1e-12)
    assert AnchorResult(centers[np.argsort(centers[:, 0])] * 352, iou).text == str(
        stored[f"k{count}_anchor_text"]
    )


@pytest.mark.parametrize(("count", "wanted"), [(6, 0.6075), (9, 0.6561)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reaches_the_original(golden: Golden, count: int, wanted: float, seed: int) -> None:
    stored = golden.arrays("yolo_fastestv2/genanchors.npz")
    result = generate_anchors(stored["wh"], num_anchors=count, input_size=(352, 352), seed=seed)
    assert result.mean_iou > stored[f"k{count}_avg_iou"] and result.anchors.shape == (count, 2)
    assert result.mean_iou == pytest.approx(mean_best_iou(stored["wh"], result.anchors / 352))
    assert (np.diff(result.anchors[:, 0]) >= 0).all()
    if seed == 0:
        assert result.mean_iou == pytest.approx(wanted, abs=2e-3)


def test_seed_and_input_size() -> None:
    sizes = np.random.default_rng(0).uniform(0.05, 0.9, (80, 2))
    first = generate_anchors(sizes, num_anchors=4, input_size=(320, 640), seed=7)
    np.testing.assert_array_equal(
        first.anchors, generate_anchors(sizes, num_anchors=4, input_size=(320, 640), seed=7).anchors
    )
    unit = generate_anchors(sizes, num_anchors=4, input_size=(1, 1), seed=7)
    np.testing.assert_allclose(first.anchors, unit.anchors * (640, 320))


def test_clear_clusters_are_found() -> None:
    centers = np.array([[0.1, 0.1], [0.2, 0.6], [0.7, 0.3]])
    sizes = np.repeat(centers, 30, 0) * np.random.default_rng(1).uniform(0.97, 1.03, (90, 2))
    result = generate_anchors(sizes, num_anchors=3, input_size=(100, 100))
    np.testing.assert_allclose(result.anchors, centers * 100, rtol=0.02)
    assert generate_anchors(sizes, num_anchors=1, input_size=(100, 100)).anchors.shape == (1, 2)


def test_large_sets_are_sampled_then_refined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors_module, "_SAMPLE", 50)
    sizes = np.random.default_rng(0).uniform(0.05, 0.9, (600, 2))
    result = generate_anchors(sizes, num_anchors=5, input_size=(1, 1))
    monkeypatch.setattr(anchors_module, "_SAMPLE", 600)
    assert (
        result.mean_iou > generate_anchors(sizes, num_anchors=5, input_size=(1, 1)).mean_iou - 0.02
    )


def test_from_a_data_set(shapes: Dataset) -> None:
    sizes = box_fractions(shapes)
    assert sizes.shape == (sum(len(shapes.labels(index)) for index in range(19)), 2)
    result = generate_anchors(shapes, num_anchors=3, input_size=(352, 352))
    assert (
        result.mean_iou > 0.7 and len(result.text.splitlines()) == 2 and result.text.count(",") == 5
    )


@pytest.mark.parametrize(
    ("images", "labels"), [("a/JPEGImages", "a/labels"), ("images", "labels"), ("b", "b")]
)
def test_sizes_of_a_list(tmp_path: Path, images: str, labels: str) -> None:
    for folder in {images, labels}:
        (tmp_path / folder).mkdir(parents=True)
    for name in ("x.1.jpg", "y.png"):
        (tmp_path / images / name).touch()
    (tmp_path / "list.txt").write_text(f"{images}/x.1.jpg\n{images}/y.png\n", encoding="utf-8")
    (tmp_path / labels / "x.1.txt").write_text(
        "0 0.5 0.5 0.25 0.5\n3 0.5 0.5 0.1 0.2\n", encoding="utf-8"
    )
    with pytest.raises(FileNotFoundError, match="no label file for .*y.png"):
        sizes_from_list(tmp_path / "list.txt")
    (tmp_path / labels / "y.txt").write_text("", encoding="utf-8")
    np.testing.assert_array_equal(sizes_from_list(tmp_path / "list.txt"), [[0.25, 0.5], [0.1, 0.2]])
    (tmp_path / labels / "y.txt").write_text("0 0.5 0.5 0.25\n", encoding="utf-8")
    with pytest.raises(ValueError, match="y.txt:1: wanted five numbers"):
        sizes_from_list(tmp_path / "list.txt")


def test_sizes_of_a_list_equal_the_data_set(shapes_folder: Path, shapes: Dataset) -> None:
    np.testing.assert_allclose(
        sizes_from_list(shapes_folder / "train.txt"), box_fractions(shapes), atol=2e-6
    )


@pytest.mark.parametrize(
    ("sizes", "count", "message"),
    [
        (np.zeros((0, 2)), 1, "wanted 1..0 anchors"),
        (np.full((9, 2), 0.5), 2, "wanted 1..1 anchors"),
        (np.full((9, 2), 0.5), 0, "wanted 1..1 anchors"),
        (np.full((9, 2), 30.0), 1, "as fractions of the image"),
        (np.full((9, 3), 0.5), 1, r"wanted box sizes \(N, 2\)"),
        (np.full((9, 2), np.nan), 1, "as fractions"),
    ],
)
def test_faulty_input(sizes: np.ndarray, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate_anchors(sizes, num_anchors=count, input_size=(352, 352))


def test_lists_are_read_as_for_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "images/a.jpg")
    put(
        tmp_path / "labels/a.txt",
        "0 0.25 0.25 0.75 0.25 0.75 0.5\n0 0.5 0.5 -0.2 0.2\n0 0.9 0.5 0.4 0.5\n0 nan 0.5 1 1\n",
    )
    put(tmp_path / "list.txt", "images/a.jpg\n")
    sizes = sizes_from_list(tmp_path / "list.txt", tmp_path)
    np.testing.assert_allclose(sizes, [[0.5, 0.25], [0.3, 0.5]])
    assert "2 boxes without area" in caplog.text and "a.txt:2" in caplog.text
    put(tmp_path / "labels/a.txt", "")
    with pytest.raises(DataError, match="list.txt: wanted at least one box"):
        sizes_from_list(tmp_path / "list.txt", tmp_path)

"""The sheet of ground truth and detections."""

import cv2
import numpy as np
import pytest

from mindyolo_ext.data.build import build_dataset
from mindyolo_ext.data.shapes import make_shapes_dataset
from mindyolo_ext.visual import predictions
from mindyolo_ext.visual.predictions import draw_predictions, spread


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = make_shapes_dataset(
        tmp_path_factory.mktemp("predictions"),
        train_images=3,
        val_images=1,
        size=(64, 96),
        seed=1,
        progress=False,
    )
    split = {"format": "coco", "images": "images/train", "annotations": "annotations/train.json"}
    return build_dataset(split, folder)


def test_truth_stands_beside_what_was_found(dataset, tmp_path, monkeypatch):
    seen, draw = [], predictions.draw_detections

    def keep(image, rows, names, *, show_scores):
        seen.append((rows, show_scores))
        return draw(image, rows, names, show_scores=show_scores)

    monkeypatch.setattr(predictions, "draw_detections", keep)
    found = [np.array([[1, 2, 11, 12, 0.9, 0], [3, 4, 9, 9, 0.1, 1]], np.float32)] * 3
    path = tmp_path / "sheet.png"
    draw_predictions(dataset, found, path, images=[0, 2, 1], title="epoch 3", least_score=0.25)
    assert len(seen) == 6
    longer = max(dataset.size(0))
    for number, index in enumerate((0, 2, 1)):
        truth, show = seen[2 * number]
        boxes = dataset.annotations(index).boxes
        np.testing.assert_allclose(truth[:, :4], boxes * 480 / longer, rtol=1e-5)
        assert not show and truth[:, 5].tolist() == dataset.labels(index).tolist()
        (row,), show = seen[2 * number + 1]
        np.testing.assert_allclose(row, [*np.array([1, 2, 11, 12]) * 480 / longer, 0.9, 0])
        assert show
    sheet = cv2.imread(str(path))
    assert sheet.shape[1] == 4 * (480 + 6), "two images in a row, each with two pictures"
    assert (sheet[-50:, -480:] == 255).all(), "the last row has one image"


def test_the_images_are_spread_over_those_with_boxes(dataset, monkeypatch):
    monkeypatch.setattr(type(dataset), "boxes_per_image", lambda _: np.array([0, 1, 1, 0, 1, 1]))
    assert spread(dataset, 2) == [1, 5]
    assert spread(dataset, 9) == [1, 2, 4, 5]
    monkeypatch.setattr(type(dataset), "boxes_per_image", lambda _: np.zeros(3, int))
    assert spread(dataset, 2) == [0, 2]

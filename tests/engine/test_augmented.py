"""Test-time augmentation: the boxes of all views are mapped back to the image and go through one
NMS.
"""

from pathlib import Path

import numpy as np
import pytest
from photos import add_photo

from mindyolo_ext.config import EvalConfig
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.augmented import AugmentedPredictor
from mindyolo_ext.engine.evaluate import evaluate
from mindyolo_ext.errors import UsageError
from mindyolo_ext.input_spec import InputSpec

BOX = (30, 24, 90, 60)  # of the bright part of an image


class FindsTheBrightPart:
    """Stands in for a predictor: one box around the bright part, with the view's entry in
    ``scores``.
    """

    num_classes = 1
    network = None

    def __init__(self, scores: tuple[float, ...] = (0.9,)):
        self.input_spec = InputSpec(size=(128, 192), color="rgb")
        self.scores, self.views, self.compiled = scores, [], []

    def compile(self, shape: tuple[int, ...], dtype: np.dtype) -> bool:
        self.compiled.append((shape, np.dtype(dtype)))
        return len(self.compiled) == 1

    def update(self, model: object) -> None:
        self.updated = model

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes = np.zeros((len(images), 1, 4), np.float32)
        for row, image in enumerate(images):
            rows, columns = (np.flatnonzero((image[:, :, 0] > 180).any(axis)) for axis in (1, 0))
            boxes[row, 0] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        score = self.scores[len(self.views) % len(self.scores)]
        self.views.append(images)
        return boxes, np.full((len(images), 1, 1), score, np.float32)


def picture(height: int = 128, width: int = 192) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = BOX
    image[y1:y2, x1:x2] = 255
    return image


def test_views_and_their_boxes():
    inner = FindsTheBrightPart()
    images = np.stack([picture(), picture()])
    boxes, scores = AugmentedPredictor(inner)(images)
    assert boxes.shape == (2, 3, 4) and scores.shape == (2, 3, 1) and boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes[:, 0], [BOX] * 2)  # the plain view, untouched
    np.testing.assert_allclose(boxes, [[BOX] * 3] * 2, atol=1.6)
    assert [view.shape for view in inner.views] == [
        (2, 128, 192, 3),
        (2, 128, 160, 3),  # 106 x 159, padded
        (2, 96, 160, 3),  # 85 x 128
    ]
    assert (inner.views[1][:, 106:] == 114).all() and (inner.views[2][:, :, 128:] == 114).all()
    row = inner.views[1][0, 30, :, 0]  # mirrored: 102..162 at 0.83
    assert (row[87:132] == 255).all() and not row[:82].any() and not row[137:159].any()


def test_only_bytes():
    with pytest.raises(UsageError, match="wanted uint8 images, got float32"):
        AugmentedPredictor(FindsTheBrightPart())(np.zeros((1, 3, 64, 64), np.float32))


def test_compiles_every_view_and_passes_weights_on():
    inner = FindsTheBrightPart()
    augmented = AugmentedPredictor(inner)
    assert augmented.compile((1, 128, 192, 3), np.uint8)
    assert not augmented.compile((1, 128, 192, 3), np.uint8)
    shapes = [(1, 128, 192, 3), (1, 128, 160, 3), (1, 96, 160, 3)]
    assert inner.compiled == [(shape, np.dtype(np.uint8)) for shape in shapes] * 2
    augmented.update("model")
    assert inner.updated == "model"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("bright")
    collector = Collector("bright", ["a"], relative=False, tolerance=0)
    add_photo(collector, folder / "0.png", picture(), [BOX], image_id=1)
    return collector.finish()


def test_an_evaluation_merges_the_views_in_one_nms(dataset: Dataset):
    plain, several = FindsTheBrightPart(), FindsTheBrightPart((0.5, 0.9, 0.7))
    settings = EvalConfig(per_batch_size=1)
    before = evaluate(plain, dataset, settings, workers=0)
    assert len(plain.views) == 1
    found = evaluate(several, dataset, EvalConfig(per_batch_size=1, augment=True), workers=0)
    assert len(several.views) == 3
    # the mirrored view has the highest score; the other two overlap it
    assert found.detections[0].shape == (1, 6)
    assert found.detections[0][0, 4] == pytest.approx(0.9)
    np.testing.assert_allclose(found.detections[0][0, :4], BOX, atol=1.6)
    np.testing.assert_array_equal(before.detections[0][0, :4], BOX)

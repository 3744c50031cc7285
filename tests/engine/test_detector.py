"""``Detector.predict`` for every form of image."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import original_name
from PIL import Image
from routed_toy import RoutedToy
from seeded import seeded_tensor

from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.store import CheckpointMetadata, save_checkpoint
from mindyolo_ext.engine.predict import Detections, Detector, indices_of
from mindyolo_ext.engine.routing import RoutedPredictor
from mindyolo_ext.errors import UsageError
from mindyolo_ext.models.registry import create_model

SIDE = 64
NAMES = ["circle", "square", "triangle"]
IMAGES = [
    np.random.default_rng(seed).integers(0, 256, (48 + 8 * seed, 72, 3), np.uint8)
    for seed in range(5)
]


@pytest.fixture(scope="module")
def weight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of seeded weights."""
    model = create_model("yolo_fastestv2", num_classes=len(NAMES))
    values = {
        name: seeded_tensor(original_name(name), array.shape, 0, 1.2)
        for name, array in parameter_values(model).items()
    }
    spec = replace(model.input_spec, size=(SIDE, SIDE))
    path = tmp_path_factory.mktemp("detector") / "seeded.ckpt"
    architecture = dict(model.architecture)
    metadata = CheckpointMetadata("yolo_fastestv2", len(NAMES), NAMES, spec, architecture)
    save_checkpoint(path, values, metadata)
    return path


@pytest.fixture(scope="module")
def detector(weight: Path) -> Detector:
    return Detector(weight, conf_thres=0.02, device_target="CPU")


@pytest.fixture(scope="module")
def in_twos(weight: Path) -> Detector:
    return Detector(weight, conf_thres=0.02, device_target="CPU", batch=2)


def assert_same(one: Detections, other: Detections) -> None:
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)  # sums in another order
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_batches_give_the_boxes_of_single_images(detector: Detector, in_twos: Detector):
    alone = [detector.predict(image) for image in IMAGES]
    assert all(len(found) > 3 for found in alone)
    for several in (in_twos.predict(IMAGES), in_twos.predict(tuple(IMAGES))):
        assert isinstance(several, list)
        for one, other in zip(alone, several, strict=True):
            assert_same(one, other)
    assert in_twos.predict([]) == []


def test_iterator_is_read_as_results_are_taken(in_twos: Detector):
    read = []

    def images() -> Iterator[np.ndarray]:
        for number, image in enumerate(IMAGES):
            read.append(number)
            yield image

    found = in_twos.predict(images())
    assert read == []
    assert next(found).image.shape == IMAGES[0].shape and read == [0, 1]
    assert len(list(found)) == 4 and read == [0, 1, 2, 3, 4]


def test_every_form_of_one_image(detector: Detector, tmp_path: Path):
    image = IMAGES[0]
    wanted = detector.predict(image)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    pillow = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    content = (tmp_path / "a.png").read_bytes()
    forms = [str(tmp_path / "a.png"), tmp_path / "a.png", content, pillow, image / 255.0]
    for found in (*map(detector.predict, forms), *detector.predict(forms)):
        assert isinstance(found, Detections)
        assert_same(found, wanted)
    gray = image[..., 0]
    assert_same(detector.predict(gray), detector.predict(np.dstack([gray] * 3)))


@pytest.mark.parametrize("image", [[[1, 2, 3]], None, 7, np.zeros((4, 4), np.int64)])
def test_what_is_no_image(detector: Detector, image: object):
    with pytest.raises(UsageError, match="predict: wanted "):
        detector.predict(image)


def test_wanted_classes(weight: Path, detector: Detector):
    every = detector.predict(IMAGES[0])
    assert len(set(every.names)) > 1
    some = Detector(weight, conf_thres=0.02, classes=["square"]).predict(IMAGES[0])
    np.testing.assert_array_equal(some.boxes, every.boxes[every.labels == 1])
    assert set(some.names) <= {"square"}
    for wanted in (["square"], [1], ["1"], ["square", 1]):
        assert indices_of(wanted, NAMES) == (1,)
    for wrong in ("cube", 3, -1):
        with pytest.raises(UsageError, match=f"no class '{wrong}'; wanted .*circle, square"):
            indices_of([wrong], NAMES)


def test_limits(weight: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch):
    every = detector.predict(IMAGES[0])
    monkeypatch.setattr(detector, "options", replace(detector.options, max_detections=2))
    np.testing.assert_array_equal(detector.predict(IMAGES[0]).boxes, every.boxes[:2])
    for wrong in ({"batch": 0}, {"tile": 8}, {"tile": 64, "overlap": 1.0}):
        with pytest.raises(UsageError):
            Detector(weight, **wrong)


def test_routed_images_of_a_batch_take_their_own_exits(
    detector: Detector, in_twos: Detector, monkeypatch: pytest.MonkeyPatch
):
    images = [np.full((40, 50, 3), gray, np.uint8) + IMAGES[0][:40, :50] // 8 for gray in (30, 210)]
    images.append(images[0][:, ::-1])
    found = []
    for one in (detector, in_twos):
        toy = RoutedToy(len(NAMES))
        monkeypatch.setattr(one, "input_spec", toy.input_spec)
        monkeypatch.setattr(one, "_predictor", RoutedPredictor(toy))
        found.append(one.predict(images))
        assert one.routing() == "1 easy, 2 hard at threshold 0.500000"
    assert len(found[0][0]) and len(found[0][1])
    for one, other in zip(*found, strict=True):
        assert_same(one, other)


class Bright:
    """A network that finds the bright part of each image."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.batches.append(len(images))
        boxes = np.zeros((len(images), 1, 4), np.float32)
        scores = np.zeros((len(images), 1, len(NAMES)), np.float32)
        for k, image in enumerate(images):
            rows, columns = np.nonzero(image.min(axis=2) > 200)
            if len(rows):
                ends = columns.max() + 1, rows.max() + 1
                boxes[k, 0] = columns.min(), rows.min(), *ends
                scores[k, 0, 1] = len(rows) / 100
        return boxes, scores


def test_small_object_in_a_large_image_is_found_in_a_tile(
    weight: Path, monkeypatch: pytest.MonkeyPatch
):
    image = np.zeros((200, 300, 3), np.uint8)
    image[90:98, 130:140] = 255
    detector = Detector(weight, conf_thres=0.5, tile=SIDE, overlap=0.25, batch=4)
    bright = Bright()
    monkeypatch.setattr(detector, "_predictor", bright)
    found = detector.predict(image)
    assert found.boxes.tolist() == [[130, 90, 140, 98]] and found.names == ["square"]
    assert found.scores.tolist() == [np.float32(0.8)]
    assert bright.batches == [4] * 7  # the whole, and 4 x 6 tiles
    monkeypatch.setattr(detector, "tiling", None)
    assert len(detector.predict(image)) == 0

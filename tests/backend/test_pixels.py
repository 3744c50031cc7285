"""Bytes become the network's input on the device, with exactly the numbers that NumPy gives."""

import numpy as np
import pytest
from routed_toy import SIDE, RoutedToy

from mindyolo_ext.backend import Tensor
from mindyolo_ext.backend.pixels import Pixels
from mindyolo_ext.engine.predictor import Predictor
from mindyolo_ext.engine.routing import RoutedPredictor
from mindyolo_ext.input_spec import InputSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPECS = {
    "BGR 0..1": InputSpec(size=(64, 96)),
    "RGB 0..1": InputSpec(size=(64, 96), color="rgb"),
    "BGR 0..255": InputSpec(size=(64, 96), scale=1.0),
    "RGB 0..255 standardized": InputSpec(
        size=(64, 96),
        color="rgb",
        scale=1.0,
        mean=(123.675, 116.28, 103.53),
        std=(58.4, 57.1, 57.4),
    ),
    "RGB 0..1 standardized": InputSpec(size=(64, 96), color="rgb", mean=MEAN, std=STD),
    "BGR 0..2 with a mean": InputSpec(size=(64, 96), scale=1 / 127.5, mean=(1.0, 1.0, 1.0)),
}


def pictures(height: int = 64, width: int = 96) -> np.ndarray:
    """Three images (3, height, width, 3) that contain each byte value in each channel."""
    bytes_ = np.arange(3 * height * width * 3, dtype=np.uint32) * 7919 % 256
    images = bytes_.astype(np.uint8).reshape(3, height, width, 3)
    assert all(len(np.unique(images[..., channel])) == 256 for channel in range(3))
    return images


@pytest.mark.graph
@pytest.mark.parametrize("name", SPECS)
def test_numbers_are_those_of_the_spec_bit_for_bit(name):
    spec, images = SPECS[name], pictures()
    found = Pixels(spec)(Tensor(images)).asnumpy()
    wanted = np.stack([spec.to_tensor(image) for image in images])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.graph
def test_floats_pass():
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    found = Pixels(SPECS["RGB 0..1 standardized"])(Tensor(images)).asnumpy()
    np.testing.assert_array_equal(found, images)


@pytest.mark.graph
@pytest.mark.parametrize("kind", [Predictor, RoutedPredictor])
def test_a_predictor_takes_bytes_as_it_takes_floats(kind):
    predictor = kind(RoutedToy())
    images = pictures(SIDE, SIDE)
    images[0] |= 128  # bright
    images[1:] //= 4
    boxes, scores = predictor(images)
    wanted = predictor(np.stack([predictor.input_spec.to_tensor(image) for image in images]))
    np.testing.assert_array_equal(boxes, wanted[0])
    np.testing.assert_array_equal(scores, wanted[1])
    if kind is RoutedPredictor:
        assert len(set(predictor.easiness > predictor.dy_thres)) == 2, "both exits must run"

"""Dynamic inference: each image gets the result of its own exit, and no exit runs for images of the
other.
"""

import logging

import numpy as np
import pytest
from photos import add_photo
from routed_toy import SIDE, RoutedToy, images_of

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.mode import eager
from mindyolo_ext.backend.parameters import load_parameters, parameter_values
from mindyolo_ext.config import EvalConfig
from mindyolo_ext.data.collector import Collector
from mindyolo_ext.engine.evaluate import evaluate
from mindyolo_ext.engine.flops import RoutedGflops
from mindyolo_ext.engine.predictor import Predictor
from mindyolo_ext.engine.routing import RoutedPredictor, Routing, images_per_second, new_predictor
from mindyolo_ext.evaluation.routing import is_hard
from mindyolo_ext.models.registry import create_model

pytestmark = pytest.mark.graph


@pytest.fixture(scope="module")
def predictor() -> RoutedPredictor:
    return RoutedPredictor(RoutedToy())


class Both(nn.Cell):
    """Both exits of every image."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, images: Tensor) -> tuple[Tensor, ...]:
        _, features = self.model.glance(images)
        return self.model.first(features) + self.model.second(images, features)


@pytest.fixture(scope="module")
def both() -> Both:
    return Both(RoutedToy())


def used(predictor: RoutedPredictor) -> dict[str, int]:
    return {part: meter.images for part, meter in predictor.meters.items()}


@pytest.mark.parametrize(
    "easiness", [[0.9], [0.1], [0.9, 0.7, 0.8], [0.2, 0.3, 0.1], [0.7, 0.2, 0.9]]
)
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_every_image_gets_what_its_exit_gives_it_alone(
    predictor: RoutedPredictor, both: Both, easiness: list[float], threshold: float
):
    images = images_of(easiness)
    predictor.dy_thres = threshold
    predictor.reset()
    boxes, scores = predictor(images)
    np.testing.assert_allclose(predictor.easiness, easiness, atol=1e-6)
    hard = [value < threshold for value in easiness]
    assert used(predictor) == {
        "glance": len(images),
        "first": hard.count(False),
        "second": hard.count(True),
    }
    for row, is_second in enumerate(hard):
        alone = [tensor.asnumpy()[0] for tensor in both(Tensor(images[row : row + 1]))]
        assert np.abs(alone[0] - alone[2]).max() > 0.1
        np.testing.assert_allclose(boxes[row], alone[2 * is_second], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(scores[row], alone[2 * is_second + 1], rtol=1e-4, atol=1e-3)


def test_shuffled_images_give_shuffled_results(predictor: RoutedPredictor):
    predictor.dy_thres = 0.5
    images, order = images_of([0.7, 0.2, 0.9]), [2, 0, 1]
    boxes, scores = predictor(images)
    shuffled_boxes, shuffled_scores = predictor(images[order])
    np.testing.assert_allclose(shuffled_boxes, boxes[order], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(shuffled_scores, scores[order], rtol=1e-4, atol=1e-3)


def test_padding_is_not_worked_on(predictor: RoutedPredictor):
    predictor.dy_thres = 0.5
    images = images_of([0.9, 0.1, 0.6])
    whole = predictor(images)
    predictor.reset()
    boxes, scores = predictor(images, valid=2)
    assert used(predictor) == {"glance": 3, "first": 1, "second": 1}
    np.testing.assert_array_equal(boxes[:2], whole[0][:2])
    np.testing.assert_array_equal(scores[:2], whole[1][:2])
    assert not boxes[2].any() and not scores[2].any()
    predictor.reset()
    boxes, scores = predictor(images, valid=0)
    assert (boxes.shape, scores.shape) == ((3, 0, 4), (3, 0, 1))
    assert used(predictor) == {"glance": 0, "first": 0, "second": 0}


class WithoutFirst(RoutedToy):
    """A model whose first exit cannot be compiled."""

    def first(self, features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("the first exit")

    def to_deploy(self) -> "WithoutFirst":
        return WithoutFirst()


def test_an_exit_that_no_image_takes_is_not_compiled():
    predictor = RoutedPredictor(WithoutFirst())
    assert predictor.compile((2, 3, SIDE, SIDE)) and not predictor.compile((2, 3, SIDE, SIDE))
    predictor(images_of([0.1, 0.2]))
    with pytest.raises(NotImplementedError, match="the first exit"):
        predictor(images_of([0.1, 0.9]))


def test_graphs_are_compiled_once_per_part_and_size(caplog: pytest.LogCaptureFixture):
    """The features of a batch must not become constants in another graph."""
    predictor = RoutedPredictor(RoutedToy())
    with caplog.at_level(logging.INFO, "mindyolo_ext"):
        for easiness in ([0.9, 0.1], [0.2, 0.7], [0.9, 0.8], [0.7, 0.6], [0.8, 0.3]):
            predictor(images_of(easiness))
    said = [record.message for record in caplog.records if record.message.startswith("compiling")]
    parts = [
        "the first backbone and the router",
        "the first exit",
        "the second exit",
        "the first exit",
    ]
    assert [text.split(": ")[0] for text in said] == [f"compiling {part}" for part in parts]
    cells = [predictor._glance, *predictor._whole.values(), *predictor._rows.values()]
    assert [cell.graphs for cell in cells] == [1, 1, 0, 1, 1]


def test_new_weights_need_no_compilation(
    predictor: RoutedPredictor, caplog: pytest.LogCaptureFixture
):
    predictor.dy_thres = 0.5
    images, before, other = (
        images_of([0.9, 0.1, 0.7]),
        parameter_values(predictor.network),
        RoutedToy(seed=5),
    )
    predictor(images)
    with caplog.at_level(logging.INFO, "mindyolo_ext"):
        predictor.update(other)
        boxes, _ = predictor(images)
        assert not [record for record in caplog.records if "compiling" in record.message]
    np.testing.assert_allclose(boxes, RoutedPredictor(other)(images)[0], rtol=1e-4, atol=1e-3)
    load_parameters(predictor.network, before)


def test_the_threshold_itself_is_easy_and_one_sends_all_to_the_second():
    easiness = np.array([0.0, 0.25, 0.5, 1.0], np.float32)
    assert is_hard(easiness, 0.25).tolist() == [True, False, False, False]
    assert not is_hard(easiness, 0).any()
    assert is_hard(easiness, 1).all()
    assert is_hard(np.float32([0.3]), float(np.float32(0.3)) + 1e-12).all()  # compared as float64


def test_the_kind_of_predictor_follows_the_model():
    assert isinstance(new_predictor(RoutedToy()), RoutedPredictor)
    assert new_predictor(RoutedToy()).dy_thres == 0.5
    assert new_predictor(RoutedToy(), dy_thres=0.25).dy_thres == 0.25
    plain = create_model("yolo_fastestv2", 1)
    assert type(new_predictor(plain)) is Predictor
    with pytest.raises(ValueError, match="dy_thres=0.5: YoloFastestV2 is not routed"):
        new_predictor(plain, dy_thres=0.5)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="wanted a threshold in 0..1"):
            new_predictor(RoutedToy(), dy_thres=wrong)


def test_routing_sums_up():
    milliseconds = {"glance": 20.0, "first": 10.0, "second": 40.0}
    routing = Routing(
        np.float32([0.1, 0.5, 0.6, 0.9]), 0.5, milliseconds, (64, 96), RoutedGflops(1.0, 2.0, 6.0)
    )
    assert routing.share_easy == 0.75
    assert routing.gflops.mean(0.75) == 4.0
    assert (
        routing.images_per_second
        == images_per_second(milliseconds, 0.75)
        == pytest.approx(1000 / 37.5)
    )
    head, _, row = routing.table().splitlines()
    assert "mean GFLOPs at 64x96" in head and row.split() == [
        "0.500000",
        "75.0",
        "4",
        "26.67",
        "20.00",
        "10.00",
        "40.00",
    ]
    assert images_per_second(dict.fromkeys(milliseconds, 0.0), 0.5) == 0.0


def test_evaluation_tells_how_pictures_were_routed(tmp_path):
    """Three images in batches of two: the last batch is padded."""
    collector = Collector("grey", ["a"], relative=False, tolerance=0)
    greys = [230, 26, 179]
    for number, grey in enumerate(greys):
        image = np.full((16, 16, 3), grey, np.uint8)
        add_photo(collector, tmp_path / f"{number}.png", image, [(0, 0, 8, 8)], image_id=number + 1)
    predictor = RoutedPredictor(RoutedToy(), dy_thres=0.5)
    result = evaluate(predictor, collector.finish(), EvalConfig(per_batch_size=2), workers=0)
    np.testing.assert_allclose(result.routing.easiness, np.array(greys) / 255, atol=1e-5)
    assert result.routing.share_easy == pytest.approx(2 / 3)
    assert all(value > 0 for value in result.routing.milliseconds.values())
    assert result.milliseconds["network"] == pytest.approx(
        1e3 * sum(meter.seconds for meter in predictor.meters.values()) / 3
    )
    assert used(predictor) == {"glance": 4, "first": 2, "second": 1}
    assert "network, images/s" in result.table()


@pytest.mark.all_cases
def test_dynamicdet_gives_what_its_training_form_gives_layer_by_layer():
    model = create_model("dy_yolov7_w0125", 2).set_train(False)
    images = np.random.default_rng(0).random((2, 3, 64, 64), np.float32) * np.float32(
        [0.2, 1]
    ).reshape(2, 1, 1, 1)
    with eager():
        easiness, features = model.glance(Tensor(images))
        exits = [
            [tensor.asnumpy() for tensor in found]
            for found in (model.first(features), model.second(Tensor(images), features))
        ]
    middle = float(easiness.asnumpy().astype(np.float64).mean())
    predictor = new_predictor(model, dy_thres=middle)
    boxes, scores = predictor(images)
    np.testing.assert_allclose(predictor.easiness, easiness.asnumpy(), atol=1e-6)
    hard = predictor.easiness < middle
    assert hard.any() and not hard.all()
    for row, is_second in enumerate(hard):
        np.testing.assert_allclose(boxes[row], exits[int(is_second)][0][row], rtol=1e-3, atol=2e-3)
        np.testing.assert_allclose(scores[row], exits[int(is_second)][1][row], rtol=1e-3, atol=1e-6)
        assert np.abs(boxes[row] - exits[1 - int(is_second)][0][row]).max() > 0.1

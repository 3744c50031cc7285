"""What every registered model promises, by parametrisation over the registry."""

import numpy as np
import pytest
from modes import as_graph

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.gradients import value_and_grad
from mindyolo_ext.backend.launch import set_seed
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.registry import (
    create_model,
    create_trainable,
    list_models,
    list_trainables,
    register_model,
)

# Trainable parameters with 80 classes, as published or counted in the original.
PARAMETERS = {
    "yolo_fastestv2": 243_095,
    "yolox_nano": 912_159,
    "yolox_tiny": 5_055_855,
    "yolox_s": 8_968_255,
    "yolox_m": 25_326_495,
    "yolox_l": 54_208_895,
    "yolox_x": 99_071_455,
    "yolox_darknet53": 63_724_767,
    "gold_yolo_n": 6_077_084,
    "gold_yolo_s": 23_202_940,
    "gold_yolo_m": 44_326_772,
    "gold_yolo_l": 75_114_665,
    "dy_yolov7": 80_621_333,
    "dy_yolov7x": 151_093_149,
    "dy_yolov7_w6": 147_364_049,
    "dy_yolov7_w0125": 1_375_505,
    "simple_yolo_resnet18": 7_920_720,
    "simple_yolo_resnet34": 13_607_952,
    "simple_yolo_resnet50": 37_119_408,
    "simple_yolo_resnet101": 47_812_272,
    "simple_yolo_darknet": 28_990_440,
}
# Of each family; others take minutes
SMALLEST = (
    "yolo_fastestv2",
    "yolox_nano",
    "gold_yolo_n",
    "dy_yolov7_w0125",
    "simple_yolo_resnet18",
)
INVERTED = ("simple_yolo",)  # sides are linear in their logits and may be negative
CLASSES = 3
SIZE = 64
pytestmark = pytest.mark.graph(when="all_cases")


class Predict(nn.Cell):
    """``model.predict`` as a cell."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model
        self.set_train(False)

    def construct(self, images):
        return self.model.predict(images)


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(0).uniform(0, 1, (2, 3, SIZE, SIZE)).astype(np.float32)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in SMALLEST else pytest.mark.all_cases)
        for name in list_models()
    ],
)
def model(request):
    set_seed(1)
    model = create_model(request.param, num_classes=CLASSES)
    for _, cell in model.cells_and_names():
        # fresh kernels shrink a signal, which would vanish on the way
        if isinstance(cell, nn.BatchNorm2d):
            cell.moving_variance.set_data(
                Tensor(np.full(cell.moving_variance.shape, 0.25, np.float32))
            )
    rng = np.random.RandomState(1)
    for parameter in model.trainable_params():
        # closed at first
        if parameter.name.endswith(("weight", "gamma")) and not parameter.asnumpy().any():
            parameter.set_data(Tensor(rng.normal(0, 0.05, parameter.shape), parameter.dtype))
    return model


@pytest.fixture(scope="module")
def predicted(model, images):
    """Boxes and scores of the batch."""
    return [x.asnumpy() for x in Predict(model)(Tensor(images))]


def test_the_table_names_every_model():
    assert set(PARAMETERS) == set(list_models())


@pytest.mark.parametrize("name", list_models())
def test_parameter_count(name):
    assert sum(p.size for p in create_model(name).trainable_params()) == PARAMETERS[name]


def test_attributes(model):
    assert model.num_classes == CLASSES
    assert isinstance(model.input_spec, InputSpec)
    assert f"{model.family}_loss" in list_trainables()
    assert isinstance(model.architecture, dict)


def test_output_shapes(model, predicted):
    boxes, scores = predicted
    assert boxes.shape == (2, scores.shape[1], 4) and scores.shape[2] == CLASSES
    assert np.isfinite(boxes).all()
    assert model.family in INVERTED or (boxes[:, :, 2:] >= boxes[:, :, :2]).all()
    assert (scores >= 0).all() and (scores <= 1).all() and scores.std() > 0


@pytest.mark.all_cases  # of the smallest both are compared with the stored arrays
def test_graph_equals_eager(model, images):
    found = []
    for graph in (True, False):
        with as_graph(graph):
            found.append([x.asnumpy() for x in Predict(model)(Tensor(images))])
    for got, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_deploy_form_is_a_new_equal_cell(model, images, predicted):
    before = [p.asnumpy().copy() for p in model.get_parameters()]
    deploy = model.to_deploy()
    assert (
        deploy is not model
        and deploy.input_spec == model.input_spec
        and deploy.num_classes == CLASSES
    )
    for got, wanted in zip(Predict(deploy)(Tensor(images)), predicted, strict=True):
        np.testing.assert_allclose(got.asnumpy(), wanted, rtol=1e-3, atol=1e-3)
    for parameter, value in zip(model.get_parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.asnumpy(), value)


def test_shuffling_the_batch_shuffles_the_result(model, images, predicted):
    for got, wanted in zip(Predict(model)(Tensor(images[::-1].copy())), predicted, strict=True):
        np.testing.assert_allclose(got.asnumpy()[::-1], wanted, rtol=1e-5, atol=1e-5)


def test_training_gives_finite_gradients(model, images):
    trainable = create_trainable(f"{model.family}_loss", model)
    names = [p.name for p in model.trainable_params()]
    assert [p.name for p in trainable.trainable_params()] == names, (
        "wrapping a model must keep its names"
    )
    trainable.set_train(True)
    targets = np.array([[[1, 0.5, 0.5, 0.4, 0.6]], [[2, 0.3, 0.6, 0.2, 0.3]]], np.float32)
    step = value_and_grad(trainable, None, trainable.trainable_params(), has_aux=True)
    (total, terms), gradients = step(
        Tensor(images), Tensor(targets), Tensor(np.ones((2, 1), np.float32))
    )
    assert terms.shape == (len(trainable.term_names),) and np.isfinite(total.asnumpy())
    values = [g.asnumpy() for g in gradients]
    assert all(np.isfinite(v).all() for v in values)
    assert sum(bool(np.abs(v).max() > 0) for v in values) > 0.9 * len(values), (
        "a branch gets no gradient"
    )


def test_two_builders_of_one_name_are_refused():
    def yolo_fastestv2():
        """Takes a name that exists."""

    with pytest.raises(ValueError, match="two model builders are called 'yolo_fastestv2'"):
        register_model(yolo_fastestv2)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="unknown model 'yolo'.*yolo_fastestv2"):
        create_model("yolo")

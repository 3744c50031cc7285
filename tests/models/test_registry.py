"""The promises of every registered model, parametrized over the registry."""

import numpy as np
import pytest
from modes import as_graph

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.gradients import value_and_grad
from mindyolo_ext.backend.launch import set_seed
from mindyolo_ext.checkpoint.names import Recognition
from mindyolo_ext.errors import ConfigError
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models.registry import (
    create_model,
    create_trainable,
    default_loss,
    families,
    list_models,
    list_trainables,
    part,
    register_model,
)

SMALLEST = [record.smallest for record in families().values()]  # others take minutes
INVERTED = ("simple_yolo",)  # sides are linear in their logits and may be negative
CLASSES = 3
SIZE = 64
# Larger differences that are rounding: on an Intel Xeon, boxes in float32 are up to
# 1.1e-3 (training form) and 2.0e-3 pixels (deploy form) from those in float64
DEPLOY_PIXELS = {"simple_yolo_darknet": 3e-3}


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
    set_seed(3)  # heads of simple_yolo stay small enough for the tolerances here
    model = create_model(request.param, num_classes=CLASSES)
    for _, cell in model.cells_and_names():
        # fresh kernels shrink a signal until it vanishes
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


def test_attributes(model):
    assert model.num_classes == CLASSES
    assert isinstance(model.input_spec, InputSpec)
    assert default_loss(model.family) in list_trainables()
    assert isinstance(model.architecture, dict)


def test_output_shapes(model, predicted):
    boxes, scores = predicted
    assert boxes.shape == (2, scores.shape[1], 4) and scores.shape[2] == CLASSES
    assert np.isfinite(boxes).all()
    assert model.family in INVERTED or (boxes[:, :, 2:] >= boxes[:, :, :2]).all()
    assert (scores >= 0).all() and (scores <= 1).all() and scores.std() > 0


@pytest.mark.all_cases  # the only graph here: the families' tests compile networks and steps
def test_graph_equals_eager(model, images):
    found = []
    for graph in (True, False):
        with as_graph(graph):
            found.append([x.asnumpy() for x in Predict(model)(Tensor(images))])
    for got, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_deploy_form_is_a_new_equal_cell(request, model, images, predicted):
    before = [p.asnumpy().copy() for p in model.get_parameters()]
    deploy = model.to_deploy()
    assert (
        deploy is not model
        and deploy.input_spec == model.input_spec
        and deploy.num_classes == CLASSES
    )
    for got, wanted in zip(Predict(deploy)(Tensor(images)), predicted, strict=True):
        atol = DEPLOY_PIXELS.get(request.node.callspec.params["model"], 1e-3)
        np.testing.assert_allclose(got.asnumpy(), wanted, rtol=1e-3, atol=atol)
    for parameter, value in zip(model.get_parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.asnumpy(), value)


def test_shuffling_the_batch_shuffles_the_result(model, images, predicted):
    for got, wanted in zip(Predict(model)(Tensor(images[::-1].copy())), predicted, strict=True):
        np.testing.assert_allclose(got.asnumpy()[::-1], wanted, rtol=1e-5, atol=1e-5)


def test_training_gives_finite_gradients(model, images):
    trainable = create_trainable(default_loss(model.family), model)
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


@pytest.mark.parametrize("name", families())
def test_records_name_the_input_styles_of_their_weights(name):
    record = families()[name]
    keywords = {"form": "plain"} if name == "gold_yolo" else {}
    styles = part(name, "names").TABLE.input_styles(
        Recognition(record.smallest, 80, keywords), InputSpec()
    )
    assert tuple(styles) == record.input_styles


def test_keywords_are_checked_before_a_builder_is_called():
    with pytest.raises(ConfigError, match="model yolox_nano: unknown keyword 'inputsize', did you"):
        create_model("yolox_nano", inputsize=(64, 64))
    with pytest.raises(
        ConfigError, match="loss yolox_loss: unknown keyword 'l2'; known: area, box"
    ):
        create_trainable("yolox_loss", None, l2=True)
    with pytest.raises(ConfigError, match="form must be one of"):
        create_model("gold_yolo_n", form="fuse")


def test_two_builders_of_one_name_are_refused():
    def yolo_fastestv2():
        """Use an existing name."""

    part("yolo_fastestv2", "network")  # has the existing name
    with pytest.raises(ValueError, match="two model builders are called 'yolo_fastestv2'"):
        register_model(yolo_fastestv2)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="unknown model 'yolo'.*yolo_fastestv2"):
        create_model("yolo")

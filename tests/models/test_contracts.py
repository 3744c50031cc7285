"""Every family keeps the promises of ``contracts``; its record names what its folder contains."""

import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest

import mindyolo_ext.models
from mindyolo_ext.backend import Tensor
from mindyolo_ext.checkpoint.names import NamesTable
from mindyolo_ext.contracts import (
    Inference,
    Model,
    Routed,
    RoutedModel,
    StepClock,
    Stepped,
    Variant,
)
from mindyolo_ext.data.augment.registry import find_augmentation, list_augmentations
from mindyolo_ext.input_spec import InputSpec
from mindyolo_ext.models import registry
from mindyolo_ext.models.registry import create_model, create_trainable, families, part
from mindyolo_ext.priors import Priors

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = list(families().values())
CLASSES, SIZE = 3, 64
pytestmark = pytest.mark.graph(when="all_cases")

by_family = pytest.mark.parametrize("record", FAMILIES, ids=lambda record: record.name)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda record: record.name)
def model(request):
    """The smallest model of a family."""
    return create_model(request.param.smallest, num_classes=CLASSES)


# ---- the record ------------------------------------------------------------------------------


@by_family
def test_the_record_is_called_like_its_folder(record):
    module = importlib.import_module(f"mindyolo_ext.models.{record.name}")
    assert module.FAMILY is record
    assert all(isinstance(variant, Variant) for variant in record.variants.values())
    assert set(record.parents) <= set(families())
    assert record.title and record.terms and record.repository.startswith("https://")


@by_family
def test_the_record_names_what_the_modules_build(record):
    for kind, module, names in (
        ("model", "network", set(record.variants)),
        ("loss", "loss", set(record.losses)),
    ):
        home = part(record.name, module).__name__
        built = {n for n, f in registry._BUILDERS[kind].items() if f.__module__ == home}
        assert built == names


@by_family
def test_the_record_names_its_augmentations(record):
    folder = Path(mindyolo_ext.models.__path__[0]) / record.name
    assert (folder / "augment.py").is_file() == bool(record.augmentations)
    assert (folder / "original.py").is_file() == record.has_original
    if record.augmentations:
        home = part(record.name, "augment").__name__
        own = {
            name
            for name in list_augmentations()
            if find_augmentation(name).function.__module__ == home
        }
        assert own == set(record.augmentations)


@by_family
def test_a_family_has_names_and_reference_outputs(record):
    assert isinstance(part(record.name, "names").TABLE, NamesTable)
    assert part(record.name, "names").TABLE.family == record.name
    reference = part(record.name, "reference")
    assert list(inspect.signature(reference.outputs).parameters) == ["model", "images"]
    assert list(inspect.signature(reference.case_input).parameters) == ["arrays"]


@by_family
def test_a_family_has_recipes_and_a_page(record):
    assert list((ROOT / "configs" / record.name).glob("*.yaml"))
    assert (ROOT / "docs" / f"{record.name}.md").is_file()


def test_the_smallest_variant_has_the_fewest_parameters():
    for record in FAMILIES:
        counts = {name: variant.parameters for name, variant in record.variants.items()}
        assert min(counts, key=counts.get) == record.smallest


# ---- the model -------------------------------------------------------------------------------


def test_model_keeps_its_contract(model):
    assert isinstance(model, Model)
    assert model.family in families() and model.num_classes == CLASSES
    assert isinstance(model.input_spec, InputSpec) and isinstance(model.architecture, dict)
    assert all(a < b for a, b in zip(model.strides, model.strides[1:], strict=False))
    assert isinstance(model, RoutedModel) == isinstance(model, Routed)


def test_the_architecture_builds_the_same_model(model):
    name = families()[model.family].smallest
    again = create_model(name, num_classes=CLASSES, **model.architecture)
    ours = [(n, p.shape, p.requires_grad) for n, p in model.parameters_and_names()]
    assert ours == [(n, p.shape, p.requires_grad) for n, p in again.parameters_and_names()]


def test_priors_belong_to_the_rows_of_predict(model):
    height, width = 2 * max(model.strides), 3 * max(model.strides)
    priors = model.priors(height, width)
    assert isinstance(priors, Priors) and tuple(priors.strides) == tuple(model.strides)
    images = Tensor(np.zeros((1, 3, height, width), np.float32))
    boxes, scores = model.set_train(False).predict(images)
    assert boxes.shape == (1, len(priors), 4) and scores.shape == (1, len(priors), CLASSES)


def test_deploy_form_keeps_its_contract(model):
    deploy = model.to_deploy()
    assert isinstance(deploy, Inference) and deploy is not model
    for name in ("family", "num_classes", "strides", "input_spec", "architecture"):
        assert vars_of(deploy, name) == vars_of(model, name)
    assert isinstance(deploy, Routed) == isinstance(model, Routed)


def vars_of(cell, name):
    """An attribute that a contract names."""
    return {
        "family": lambda: cell.family,
        "num_classes": lambda: cell.num_classes,
        "strides": lambda: tuple(cell.strides),
        "input_spec": lambda: cell.input_spec,
        "architecture": lambda: cell.architecture,
    }[name]()


def test_trainable_keeps_its_contract(model):
    names = [name for name, _ in model.parameters_and_names()]
    trainable = create_trainable(families()[model.family].losses[0], model)
    assert trainable.model is model and callable(trainable.matches)
    assert [name for name, _ in model.parameters_and_names()] == names
    assert [p.name for p in model.trainable_params()] == [
        name for name, p in model.parameters_and_names() if p.requires_grad
    ]
    assert all(isinstance(term, str) for term in trainable.term_names)
    if isinstance(trainable, Stepped):
        trainable.begin_step(StepClock(iteration=0, epoch=0, epochs=1))


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="unknown model 'yolo'.*yolo_fastestv2"):
        create_model("yolo")
    with pytest.raises(ValueError, match="unknown model 'yolox_nan', did you mean yolox_nano"):
        create_model("yolox_nan")

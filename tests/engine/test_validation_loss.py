"""The loss on validation images."""

import csv

import numpy as np
import pytest
from small_training import small_recipe, small_shapes

from mindyolo_ext.backend import Tensor, launch
from mindyolo_ext.backend.parameters import parameter_values
from mindyolo_ext.checkpoint.store import load_checkpoint
from mindyolo_ext.config import Config
from mindyolo_ext.data.loader import Loader
from mindyolo_ext.engine.build import new_model, new_trainable, split_dataset
from mindyolo_ext.engine.train import train
from mindyolo_ext.engine.validation_loss import ValidationLoss

pytestmark = pytest.mark.graph(when="never")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return small_shapes(tmp_path_factory.mktemp("validation"), train_images=4, val_images=5)


def recipe(shapes, **section) -> Config:
    return small_recipe(shapes, {"epochs": 2, "per_batch_size": 2, **section})


@pytest.mark.all_cases
def test_it_is_the_mean_over_whole_batches_in_inference_mode(shapes):
    config = recipe(shapes)
    dataset = split_dataset(config, "val")
    model = new_model(config, 3)
    weights = parameter_values(model)
    loss = {"name": "yolo_fastestv2_loss"}
    measure = ValidationLoss(config, dataset)
    found = measure.compute(weights, loss, epoch=0)
    trainable = new_trainable(model, loss).set_train(False)
    rows = []
    with Loader(dataset, batch_size=2, input_spec=model.input_spec, drop_last=True) as loader:
        for batch in loader.epoch(0):
            arrays = (batch.images, batch.targets, batch.mask)
            total, terms = trainable(*(Tensor(array) for array in arrays))
            rows.append([float(total.asnumpy()), *terms.asnumpy().tolist()])
    assert len(rows) == 2, "the fifth image does not fill a batch"
    wanted = np.mean(rows, axis=0)
    np.testing.assert_allclose(list(found.values()), wanted, rtol=1e-5)
    assert list(found) == ["val_loss", *(f"val_{name}" for name in trainable.term_names)]
    for name, value in parameter_values(model).items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)
    head = next(name for name in weights if name.startswith("output_obj_layers"))
    other = measure.compute({**weights, head: weights[head] + 1}, loss, epoch=1)
    assert other["val_loss"] != found["val_loss"], "it uses the given weights"


def test_a_set_smaller_than_a_batch_is_one(shapes):
    measure = ValidationLoss(
        recipe(shapes, per_batch_size=64), split_dataset(recipe(shapes), "val")
    )
    assert measure.batch_size == 5


@pytest.mark.needs_torch  # only the host decides, so the backend that starts faster is enough
def test_a_training_with_it_learns_the_same(shapes, tmp_path):
    launch.set_seed(0)
    train(recipe(shapes), tmp_path / "without")
    launch.set_seed(0)
    train(recipe(shapes, val_loss=True), tmp_path / "with")
    with (tmp_path / "with" / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_loss"]) > 0 for row in rows] == [True, True]
    terms = sum(float(rows[0][f"val_{name}"]) for name in ("box", "object", "class"))
    assert float(rows[0]["val_loss"]) == pytest.approx(terms, rel=1e-4)
    wanted, _ = load_checkpoint(tmp_path / "without" / "weights" / "last.ckpt")
    found, _ = load_checkpoint(tmp_path / "with" / "weights" / "last.ckpt")
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_it_is_that_of_a_network_without_a_teacher(shapes):
    with pytest.raises(ValueError, match="train.val_loss wanted false with distill.teacher"):
        recipe(shapes, val_loss=True, distill={"teacher": "t.ckpt"})

"""Labels follow the names of the classes, between checkpoint and data and between data sets."""

import logging
from collections.abc import Sequence

import numpy as np
import pytest

from mindyolo_ext.class_names import COCO_NAMES
from mindyolo_ext.config import config_from_mapping
from mindyolo_ext.data.dataset import Dataset
from mindyolo_ext.engine.classes import (
    as_in_training,
    check_teacher,
    in_order_of,
    in_recipe_order,
    start_order,
)
from mindyolo_ext.errors import ConfigError, UsageError


def data(*names: str, labels: Sequence[int] = (0, 1)) -> Dataset:
    """One image with a box of each of ``labels``."""
    boxes = np.tile(np.array([[0, 0, 8, 8]], np.float32), (len(labels), 1))
    rows = (boxes, np.array(labels), np.zeros(len(labels), bool))
    return Dataset("images", names, ["x.jpg"], [1], annotations=[rows], sizes=[(8, 8)])


def named(dataset: Dataset) -> list[str]:
    """The names of the boxes."""
    return [dataset.class_names[label] for label in dataset.labels(0)]


@pytest.fixture(autouse=True)
def warnings(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def evaluated(own: Sequence[str], dataset: Dataset) -> Dataset:
    return in_order_of(own, dataset, owner="w.ckpt", data="data.val")


def test_evaluation_takes_the_order_of_the_checkpoint(warnings):
    dataset = data("dog", "cat")
    found = evaluated(["cat", "dog"], dataset)
    assert found.class_names == ["cat", "dog"] and named(found) == named(dataset) == ["dog", "cat"]
    assert "w.ckpt: data.val has the same classes in another order" in warnings.text
    assert found.coco_ground_truth()["annotations"] == dataset.coco_ground_truth()["annotations"]


def test_evaluation_of_other_classes_is_refused():
    with pytest.raises(
        UsageError, match="only the network has cat; only data.val has cow.*--names"
    ):
        evaluated(["cat", "dog"], data("cow", "dog"))
    with pytest.raises(UsageError, match="only the network has cat"):
        evaluated(["cat", "dog"], data("dog", labels=[0]))


def test_spelling_does_not_count(warnings):
    own = [{"motorbike": "motorcycle", "tvmonitor": "tv"}.get(name, name) for name in COCO_NAMES]
    dataset = data(*own)
    assert evaluated(COCO_NAMES, dataset) is dataset
    reordered = evaluated(COCO_NAMES, data("DOG", "Cat", *own[2:15], *own[17:], *own[:2]))
    assert reordered.class_names[15:17] == ["Cat", "DOG"]
    assert len(warnings.messages) == 1


@pytest.mark.parametrize("own", [[], ["class0", "class1"]])
def test_a_checkpoint_without_names_says_so(warnings, own):
    dataset = data("cat", "dog")
    assert evaluated(own, dataset) is dataset
    assert "w.ckpt: does not contain class names" in warnings.text
    assert "in the same order (cat, dog)" in warnings.text and "--names" in warnings.text


def test_validation_follows_training(warnings):
    found = as_in_training(data("dog", "cat"), data("cat", "dog"))
    assert found.class_names == ["cat", "dog"] and named(found) == ["dog", "cat"]
    assert "in another order" in warnings.text
    with pytest.raises(ConfigError, match="only data.train has dog; only data.val has cow"):
        as_in_training(data("cat", "cow"), data("cat", "dog"))
    with pytest.raises(ConfigError, match="data.train has 2 .cat, dog., data.val 1 .cat."):
        as_in_training(data("cat", labels=[0]), data("cat", "dog"))


def test_the_recipe_orders_the_data():
    found = in_recipe_order(["cat", "dog"], data("dog", "cat"), data="data.train")
    assert found.class_names == ["cat", "dog"] and named(found) == ["dog", "cat"]
    with pytest.raises(
        ConfigError, match=r"data.class_names \[cat, cow\] are not those of data.val"
    ):
        in_recipe_order(["cat", "cow"], data("cat", "dog"), data="data.val")


def fine_tuning(own: Sequence[str], dataset: Dataset, wanted: Sequence[str] = ()) -> list[str]:
    config = config_from_mapping(
        {"train": {"weight": "w.ckpt"}, "data": {"class_names": list(wanted)}}
    )
    return start_order(own, dataset, config)


def test_fine_tuning_takes_the_order_of_the_checkpoint(warnings):
    assert fine_tuning(["cat", "dog"], data("Dog", "Cat")) == ["Cat", "Dog"]
    assert "uses the order of the checkpoint" in warnings.text
    with pytest.raises(ConfigError, match="leave data.class_names out"):
        fine_tuning(["cat", "dog"], data("dog", "cat"), wanted=["dog", "cat"])


def test_fine_tuning_on_other_classes_is_told(warnings):
    assert fine_tuning(COCO_NAMES, data("dog", "cow", "hen")) == []
    assert "only data.train has hen. The training uses those of data.train" in warnings.text
    warnings.clear()
    assert fine_tuning(["cat", "dog"], data("cat", "dog")) == [] and not warnings.messages
    fine_tuning([], data("cat", "dog"))
    assert "does not contain class names" in warnings.text


def test_a_teacher_knows_the_same_classes_in_the_same_order(warnings):
    check_teacher(["cat", "dog"], data("Cat", "Dog"), teacher="t.ckpt")
    assert not warnings.messages
    with pytest.raises(ConfigError, match="in another order .dog, cat.; set data.class_names"):
        check_teacher(["dog", "cat"], data("cat", "dog"), teacher="t.ckpt")
    with pytest.raises(ConfigError, match="only t.ckpt has cow; only data.train has cat"):
        check_teacher(["cow", "dog"], data("cat", "dog"), teacher="t.ckpt")
    check_teacher([], data("cat", "dog"), teacher="t.ckpt")
    assert "t.ckpt: does not contain class names" in warnings.text

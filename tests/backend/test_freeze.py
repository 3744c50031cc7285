"""What train.freeze accepts: prefixes of names, and patterns for whole names."""

import pytest

from mindyolo_ext.backend import nn
from mindyolo_ext.backend.parameters import freeze, layers_of, named_parameters, parameter_groups
from mindyolo_ext.models.registry import create_model
from mindyolo_ext.models.yolox.names import MINDYOLO_NAMES


def frozen(cell: nn.Cell) -> set[str]:
    return {
        name for name, parameter in named_parameters(cell).items() if not parameter.requires_grad
    }


def small() -> nn.Cell:
    return nn.SequentialCell(
        nn.Conv2d(3, 4, 1, has_bias=True),
        nn.BatchNorm2d(4, eps=1e-3, momentum=0.9),
        nn.Conv2d(4, 4, 1, has_bias=True),
    )


def test_beginnings_and_patterns() -> None:
    statistics = frozen(small())
    assert statistics == {"1.moving_mean", "1.moving_variance"}
    for names, wanted in (
        (["2"], {"2.weight", "2.bias"}),
        (["*.bias"], {"0.bias", "2.bias"}),
        (["[12].*"], {"1.gamma", "1.beta", "2.weight", "2.bias"}),
        (["1.g", "?.weight"], {"1.gamma", "0.weight", "2.weight"}),
    ):
        cell = small()
        assert freeze(cell, names) == len(statistics | wanted)
        assert frozen(cell) == statistics | wanted


def test_names_that_match_nothing_are_told() -> None:
    with pytest.raises(
        ValueError, match="no parameter starts with 'gamma'; names start with 0, 1, 2"
    ):
        freeze(small(), ["gamma"])
    with pytest.raises(
        ValueError, match=r"no parameter matches '\*.alpha'; names start with 0, 1, 2"
    ):
        freeze(small(), ["*.alpha"])


def test_gold_yolo_m_has_24_scalars_that_the_original_never_trains() -> None:
    model = create_model("gold_yolo_m", num_classes=2)
    trained, before = len(model.trainable_params()), frozen(model)
    freeze(model, ["*.alpha"])
    alphas = frozen(model) - before
    assert len(alphas) == 24 and all(name.endswith(".alpha") for name in alphas)
    assert (
        sum(len(group.parameters) for group in parameter_groups(model, "by_kind", 0.1))
        == trained - 24
    )


def test_the_first_ten_layers_of_yolox_are_its_backbone() -> None:
    """MindYOLO and ultralytics number them this way; names.py has MindYOLO's numbers."""
    numbered = list(MINDYOLO_NAMES["csp"].values())[:10]
    for name in ("yolox_nano", "yolox_s"):
        layers = layers_of(create_model(name, num_classes=2))
        assert layers[:10] == numbered and layers[9] == "backbone.backbone.dark5.2"
        assert not layers[10].startswith("backbone.backbone")


def test_a_number_is_a_layer_and_not_a_beginning() -> None:
    model = create_model("yolo_fastestv2", num_classes=2)
    layers, before = layers_of(model), frozen(model)
    assert layers[:2] == ["backbone.first_conv.0", "backbone.first_conv.1"]
    freeze(model, [layers.index("backbone.stage3.1"), "output_cls_layers"])
    names = frozen(model) - before
    assert {name.split(".")[0] for name in names} == {"backbone", "output_cls_layers"}
    assert {name for name in names if "backbone" in name} == {
        name
        for name in named_parameters(model)
        if name.startswith("backbone.stage3.1.") and name not in before
    }


def test_layers_of_the_backbone_come_first() -> None:
    layers = layers_of(create_model("dy_yolov7", num_classes=2))
    assert layers[0] == "backbone.stem.0" and "router.layer1" in layers
    assert layers.index("backbone2.stem.0") < layers.index("router.layer1")


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(
        ValueError, match=r"wanted layers from 0 to 2, got 3; layer 0 is 0, the last 2"
    ):
        freeze(small(), [3])

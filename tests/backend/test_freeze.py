"""What train.freeze takes: beginnings of names, and patterns of whole names."""

import pytest

from mindyolo_ext.backend import nn
from mindyolo_ext.backend.parameters import freeze, named_parameters, parameter_groups
from mindyolo_ext.models.registry import create_model


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
        ValueError, match=r"no parameter is like '\*.alpha'; names start with 0, 1, 2"
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

"""The memory estimate of a step, against a network counted by hand."""

import pytest

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.config import config_from_mapping
from mindyolo_ext.engine.memory_estimate import estimate_memory

SIDE = 64
CONVOLUTION = 3 * 4 * 9 + 4  # weights of the first layer
HEAD = 4 * 2 + 2
OUTPUTS = (4 + 4) * (SIDE // 2) ** 2 + 2 * (SIDE // 2) ** 2  # convolution, activation, head


class Toy(nn.Cell):
    """A convolution with an activation, and a head; the block around them is not a layer."""

    strides = (2,)

    def __init__(self):
        super().__init__()
        first = nn.Conv2d(3, 4, 3, 2, pad_mode="pad", padding=1, has_bias=True)
        self.block = nn.SequentialCell(first, nn.ReLU())
        self.head = nn.Conv2d(4, 2, 1, pad_mode="pad", padding=0, has_bias=True)

    def construct(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.head(self.block(images)),)


@pytest.mark.parametrize(
    "train, accumulate, copies",
    [
        ({}, 1, 2),  # gradient and momentum
        ({"optimizer": {"name": "adamw"}, "ema_decay": 0.9}, 1, 4),
        ({"optimizer": {"accumulate": 2}}, 2, 3),
    ],
)
def test_it_is_what_one_counts_by_hand(train, accumulate, copies):
    config = config_from_mapping({"train": {"per_batch_size": 5, **train}})
    model = Toy().set_train(False)
    found = estimate_memory(config, model, accumulate=accumulate, size=(SIDE, SIDE))
    assert found.weights == 4 * (CONVOLUTION + HEAD)
    assert found.training == copies * found.weights
    assert found.activations == 4 * 5 * OUTPUTS
    assert found.total == found.weights + found.training + found.activations


def test_half_precision_halves_the_maps():
    size = (SIDE, 2 * SIDE)
    plain = config_from_mapping({"train": {"per_batch_size": 1}})
    half = config_from_mapping({"train": {"per_batch_size": 1, "amp_level": "O2"}})
    model = Toy().set_train(False)
    found = [estimate_memory(c, model, accumulate=1, size=size) for c in (plain, half)]
    assert [its.activations for its in found] == [4 * 2 * OUTPUTS, 2 * 2 * OUTPUTS]

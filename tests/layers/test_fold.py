"""A folded convolution equals convolution and batch norm."""

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.layers.conv import ConvBNAct, conv2d
from mindyolo_ext.layers.fold import copy_parameters, fold_batch_norms, fold_implicit

RANDOM = np.random.RandomState(0)


class Nested(nn.Cell):
    """A block, a sequence with a depthwise convolution that has a bias, and a plain convolution."""

    def __init__(self):
        super().__init__()
        self.block = ConvBNAct(3, 4, 3, stride=2)
        self.tail = nn.SequentialCell(
            conv2d(4, 4, 3, group=4, has_bias=True), nn.BatchNorm2d(4), nn.ReLU(), conv2d(4, 2, 1)
        )

    def construct(self, x):
        return self.tail(self.block(x))


def randomized(cell: nn.Cell) -> nn.Cell:
    """The cell with random parameters and positive variances."""
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(RANDOM.uniform(0.2, 2, parameter.shape).astype(np.float32)))
    return cell.set_train(False)


def test_folding_keeps_the_output_and_the_other_names():
    cell, x = randomized(Nested()), Tensor(RANDOM.standard_normal((2, 3, 8, 6)).astype(np.float32))
    wanted = cell(x).asnumpy()
    names = {name for name, _ in cell.parameters_and_names()}
    fold_batch_norms(cell)
    np.testing.assert_allclose(cell(x).asnumpy(), wanted, rtol=1e-4, atol=1e-4)
    left = {name for name, _ in cell.parameters_and_names()}
    assert left == {n for n in names if n.endswith((".weight", ".bias"))} | {"block.conv.bias"}
    assert sorted(left) == sorted(p.name for p in cell.get_parameters())


def test_a_batch_norm_without_a_convolution_is_refused():
    cell = nn.SequentialCell(nn.ReLU(), nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="no convolution precedes 1"):
        fold_batch_norms(cell)


def test_copied_parameters_are_equal_and_apart():
    source, target = randomized(Nested()), randomized(Nested())
    copy_parameters(source, target)
    for one, other in zip(source.get_parameters(), target.get_parameters(), strict=True):
        np.testing.assert_array_equal(one.asnumpy(), other.asnumpy())
    source.block.bn.gamma.set_data(Tensor(np.zeros(4, np.float32)))
    assert (target.block.bn.gamma.asnumpy() != 0).all()


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel_size must be odd, got 2"):
        conv2d(3, 4, 2)


def test_implicit_vectors_are_folded():
    conv = randomized(conv2d(5, 3, 1, has_bias=True))
    added, factor = (
        RANDOM.normal(size=5).astype(np.float32),
        RANDOM.normal(size=3).astype(np.float32),
    )
    x = RANDOM.normal(size=(2, 5, 4, 6)).astype(np.float32)
    wanted = conv(Tensor(x + added[:, None, None])).asnumpy() * factor[:, None, None]
    np.testing.assert_allclose(
        fold_implicit(conv, added, factor)(Tensor(x)).asnumpy(), wanted, rtol=1e-5, atol=1e-5
    )

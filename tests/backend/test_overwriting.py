"""An activation may overwrite its input if nothing else reads it; no result changes."""

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.gradients import grad
from mindyolo_ext.backend.mode import eager
from mindyolo_ext.backend.observe import watched_layers
from mindyolo_ext.layers.activation import sole_reader
from mindyolo_ext.layers.conv import ConvBNAct

X = np.random.RandomState(0).normal(0, 1, (2, 3, 4, 6)).astype(np.float32)
KINDS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.LeakyReLU)


@pytest.mark.needs_torch
@pytest.mark.parametrize("kind", KINDS)
def test_only_a_marked_one_overwrites(kind):
    x, other = Tensor(X), Tensor(X)
    wanted = kind()(x)
    np.testing.assert_array_equal(x.asnumpy(), X)
    found = sole_reader(kind())(other)
    np.testing.assert_array_equal(found.asnumpy(), wanted.asnumpy())
    np.testing.assert_array_equal(other.asnumpy(), found.asnumpy())


@pytest.mark.needs_torch
def test_a_hook_keeps_what_it_has_seen():
    cell, kept = ConvBNAct(3, 4, act=nn.ReLU), {}
    with eager(), watched_layers(cell, lambda name, _, output: kept.update({name: output})):
        cell(Tensor(X))
    assert kept["bn"].asnumpy().min() < 0 <= kept["act"].asnumpy().min()
    x = Tensor(X)  # and overwrites again afterwards
    cell.act(x)
    assert x.asnumpy().min() >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_an_unmarked_one(kind):
    marked, plain = ConvBNAct(3, 4, act=kind), ConvBNAct(3, 4, act=kind)
    assert getattr(marked.act, "reads_alone", False)
    for parameter, other in zip(plain.get_parameters(), marked.get_parameters(), strict=True):
        parameter.set_data(Tensor(other.asnumpy()))
    plain.act = kind()
    found, wanted = (
        [g.asnumpy() for g in grad(cell, None, cell.trainable_params())(Tensor(X))]
        for cell in (marked.set_train(True), plain.set_train(True))
    )
    assert len(found) == 3
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)

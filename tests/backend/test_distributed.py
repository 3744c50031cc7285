"""Synchronized norms in one process; tests/engine/test_ranks.py has several ranks."""

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.distributed import synchronize_batch_norm
from mindyolo_ext.models.registry import create_model

pytestmark = pytest.mark.graph


class Block(nn.Cell):
    """One norm inside a cell, one in a sequence, one at the top level."""

    def __init__(self):
        super().__init__()
        self.inner = nn.SequentialCell(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.bn = nn.BatchNorm2d(4)

    def construct(self, x):
        return self.bn(self.inner(x))


@pytest.mark.parametrize("name", ["yolo_fastestv2", "yolox_nano", "gold_yolo_n"])
def test_parameters_keep_their_names(name):
    model = create_model(name, 3)
    before = sorted((name, p.name, p.shape) for name, p in model.parameters_and_names())
    norms = sum(isinstance(cell, nn.BatchNorm2d) for _, cell in model.cells_and_names())
    assert synchronize_batch_norm(model) == norms > 10
    assert sorted((name, p.name, p.shape) for name, p in model.parameters_and_names()) == before
    assert len({p.name for p in model.get_parameters()}) == len(before)


def test_one_rank_computes_as_before():
    block, x = Block(), np.random.RandomState(0).normal(1, 2, (3, 3, 4, 5)).astype(np.float32)
    wanted = block.set_train(True)(Tensor(x)).asnumpy()
    statistics = {
        name: p.asnumpy().copy() for name, p in block.parameters_and_names() if "moving" in name
    }
    for name, p in block.parameters_and_names():
        if "moving" in name:
            p.set_data(Tensor(np.full(p.shape, float("variance" in name), np.float32)))
    assert synchronize_batch_norm(block) == 2
    np.testing.assert_allclose(block.set_train(True)(Tensor(x)).asnumpy(), wanted, atol=1e-4)
    for name, p in block.parameters_and_names():
        if "moving" in name:
            np.testing.assert_allclose(p.asnumpy(), statistics[name], rtol=1e-4, atol=1e-5)

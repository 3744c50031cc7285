"""The block's branches and its single convolution."""

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.layers.fold import fold_batch_norms
from mindyolo_ext.layers.rep import RepVGGBlock

pytestmark = pytest.mark.graph


@pytest.mark.parametrize("channels, stride", [((4, 4), 1), ((4, 6), 1), ((4, 4), 2)])
def test_the_folded_block_is_the_same_function(channels, stride):
    block = nn.SequentialCell(RepVGGBlock(*channels, stride=stride)).set_train(False)
    random = np.random.RandomState(1)
    for _, cell in block.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            for parameter, low, high in (
                (cell.gamma, 0.5, 1.5),
                (cell.beta, -1, 1),
                (cell.moving_mean, -1, 1),
                (cell.moving_variance, 0.5, 1.5),
            ):
                parameter.set_data(
                    Tensor(random.uniform(low, high, parameter.shape).astype(np.float32))
                )
    x = Tensor(random.uniform(-1, 1, (2, channels[0], 6, 8)).astype(np.float32))
    wanted = block(x).asnumpy()
    assert block[0].has_identity == (channels == (4, 4) and stride == 1)
    assert (
        wanted.shape == (2, channels[1], 6 // stride, 8 // stride)
        and (wanted > 0).any()
        and (wanted == 0).any()
    )
    fold_batch_norms(block)
    np.testing.assert_allclose(block(x).asnumpy(), wanted, atol=1e-5)
    assert [type(cell) for cell in block[0]] == [nn.Conv2d, nn.ReLU]

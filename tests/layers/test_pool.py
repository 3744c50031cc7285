"""The maximum that halves a map, against a plain loop."""

import numpy as np

from mindyolo_ext.backend import Tensor
from mindyolo_ext.layers.pool import HalvingMaxPool


def test_equals_the_padded_maximum():
    x = np.maximum(np.random.RandomState(0).standard_normal((2, 3, 6, 8)), 0).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    wanted = np.array(
        [
            [padded[:, :, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max((2, 3)) for c in range(4)]
            for r in range(3)
        ]
    )
    np.testing.assert_array_equal(
        HalvingMaxPool()(Tensor(x)).asnumpy(), wanted.transpose(2, 3, 0, 1)
    )

"""Distances from distributions, against the plain formulas."""

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor
from mindyolo_ext.layers.distances import DistanceBins

pytestmark = pytest.mark.graph


def test_expectation_and_log_sum():
    # Large ones, whose exponentials overflow
    logits = np.random.RandomState(0).normal(0, 20, (2, 4, 5, 7)).astype(np.float32)
    logits[0, 0, :, 0] = [90, -90, -90, -90, -90]
    distances, log_sum = (x.asnumpy() for x in DistanceBins(4)(Tensor(logits.reshape(2, 20, 7))))
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(2, keepdims=True))
    np.testing.assert_allclose(
        distances, (powers * np.arange(5)[:, None]).sum(2) / powers.sum(2), atol=1e-5
    )
    np.testing.assert_allclose(log_sum, np.log(powers.sum(2)) + wide.max(2), rtol=1e-6, atol=1e-5)
    assert distances.shape == log_sum.shape == (2, 4, 7) and distances[0, 0, 0] < 1e-6

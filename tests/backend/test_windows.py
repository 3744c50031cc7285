"""Maxima over windows without gradients equal PyTorch's own with gradients."""

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.backend.gradients import grad

pytestmark = pytest.mark.needs_torch


def _values(shape: tuple[int, ...]) -> np.ndarray:
    """Numbers with ties, regions of negative numbers only, NaN and both infinities."""
    values = np.random.RandomState(0).randint(-9, 3, shape).astype(np.float32)
    values[0, 0, 1, 2], values[0, 1, :2], values[-1, -1, 0, 0] = np.nan, -np.inf, np.inf
    return values


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 13])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(13, 13), (5, 8), (16, 14)])
def test_max_pool(kernel, stride, size):
    import torch

    from mindyolo_ext.backend.on_torch.windows import max_pool

    x = torch.from_numpy(_values((2, 3, *size)))
    for padding in range(kernel // 2 + 1):
        if min(size) + 2 * padding < kernel:
            continue
        wanted = torch.nn.functional.max_pool2d(x, kernel, stride, padding)
        with torch.no_grad():
            found = max_pool(x, (kernel, kernel), (stride, stride), (padding, padding))
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def test_derivatives_are_recorded_through_it():
    x = Tensor(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4))
    found = grad(nn.MaxPool2d(2, 2))(x).asnumpy()
    np.testing.assert_array_equal(found[0, 0], np.kron(np.ones((2, 2)), [[0, 0], [0, 1]]))


def test_it_leaves_its_input_alone():
    values = np.random.RandomState(1).normal(size=(1, 2, 6, 6)).astype(np.float32)
    x = Tensor(values)
    nn.MaxPool2d(3, 2, pad_mode="pad", padding=1)(x)
    np.testing.assert_array_equal(x.asnumpy(), values)

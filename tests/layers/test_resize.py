"""Upsampling and pooling against plain loops."""

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.layers.resize import adaptive_average, bilinear, double, space_to_depth

pytestmark = pytest.mark.graph


class Resized(nn.Cell):
    """One of the functions as a graph."""

    def __init__(self, function, *arguments):
        super().__init__()
        self.function, self.arguments = function, arguments

    def construct(self, x):
        return self.function(x, *self.arguments)


def maps(height: int, width: int) -> np.ndarray:
    return np.random.RandomState(0).uniform(-1, 1, (2, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize(
    "source, target", [((8, 12), (4, 3)), ((5, 7), (3, 4)), ((6, 6), (6, 6)), ((3, 4), (5, 7))]
)
def test_adaptive_average_is_the_mean_of_every_bin(source, target):
    x = maps(*source)
    wanted = np.zeros((2, 3, *target), np.float32)
    for i in range(target[0]):
        for j in range(target[1]):
            rows = slice(i * source[0] // target[0], int(np.ceil((i + 1) * source[0] / target[0])))
            columns = slice(
                j * source[1] // target[1], int(np.ceil((j + 1) * source[1] / target[1]))
            )
            wanted[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    np.testing.assert_allclose(
        Resized(adaptive_average, target)(Tensor(x)).asnumpy(), wanted, atol=1e-6
    )


@pytest.mark.parametrize(
    "source, target",
    [((4, 5), (8, 10)), ((5, 7), (10, 14)), ((3, 4), (5, 7)), ((2, 2), (2, 2)), ((8, 8), (3, 5))],
)
def test_bilinear_weighs_the_four_neighbours(source, target):
    x = maps(*source)
    wanted = np.zeros((2, 3, *target), np.float32)
    for i in range(target[0]):
        for j in range(target[1]):
            y = np.clip((i + 0.5) * source[0] / target[0] - 0.5, 0, source[0] - 1)
            z = np.clip((j + 0.5) * source[1] / target[1] - 0.5, 0, source[1] - 1)
            top, left = int(y), int(z)
            below, right = min(top + 1, source[0] - 1), min(left + 1, source[1] - 1)
            upper = x[:, :, top, left] * (1 - z + left) + x[:, :, top, right] * (z - left)
            lower = x[:, :, below, left] * (1 - z + left) + x[:, :, below, right] * (z - left)
            wanted[:, :, i, j] = upper * (1 - y + top) + lower * (y - top)
    np.testing.assert_allclose(Resized(bilinear, target)(Tensor(x)).asnumpy(), wanted, atol=1e-6)


def test_double_repeats_every_cell():
    x = maps(3, 4)
    np.testing.assert_array_equal(Resized(double)(Tensor(x)).asnumpy(), x.repeat(2, 2).repeat(2, 3))


def test_space_to_depth_takes_the_squares_column_by_column():
    x = maps(6, 8)
    wanted = np.concatenate([x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)], 1)
    np.testing.assert_array_equal(Resized(space_to_depth)(Tensor(x)).asnumpy(), wanted)

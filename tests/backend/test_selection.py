"""A term over the matched predictions is the same whether a backend selects them or masks all
predictions.
"""

import numpy as np

from mindyolo_ext.backend import Tensor, nn, ops
from mindyolo_ext.backend.gradients import value_and_grad
from mindyolo_ext.backend.selection import at_matches, to_matches


class Term(nn.Cell):
    """Squares of the matched columns, summed over classes."""

    def construct(self, matched, x, y):
        x, y = at_matches(matched, x, y)
        return to_matches(matched, ops.sum(x * x * y, 1))


def _check(matched: np.ndarray) -> None:
    rng = np.random.RandomState(0)
    x, y = (rng.normal(size=(2, 3, 5)).astype(np.float32) for _ in "xy")
    values, gradient = value_and_grad(Term(), 1)(Tensor(matched), Tensor(x), Tensor(y))
    np.testing.assert_allclose(values.asnumpy(), (x * x * y).sum(1) * matched, rtol=1e-5)
    np.testing.assert_allclose(gradient.asnumpy(), 2 * x * y * matched[:, None], rtol=1e-5)


def test_some_match():
    _check(np.array([[0, 1, 0, 0, 1], [1, 0, 0, 0, 0]], np.float32))


def test_nothing_matches():
    _check(np.zeros((2, 5), np.float32))


def test_all_match():
    _check(np.ones((2, 5), np.float32))

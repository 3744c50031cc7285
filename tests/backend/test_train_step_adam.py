"""Adam and AdamW with a separate beta1 for each step, and the ramp of the moving average, against
NumPy and a table.
"""

import numpy as np
import pytest

from mindyolo_ext.backend import Parameter, Tensor, nn, ops
from mindyolo_ext.backend.parameters import ParameterGroup, parameter_groups
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep

TARGET = np.random.RandomState(3).standard_normal((4, 3)).astype(np.float32)
START = np.random.RandomState(4).standard_normal((4, 3)).astype(np.float32)
BETA1 = (0.95, 0.93, 0.87, 0.85, 0.9, 0.94)  # up and down again, as in one cycle
RATES = (0.01, 0.03, 0.05, 0.04, 0.02, 0.001)


class Weights(nn.Cell):
    """Two parameters, the second a copy of the first, and a statistic."""

    def __init__(self, start: np.ndarray) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(start), name="toy.weight")
        self.other = Parameter(Tensor(start), name="toy.other")
        self.statistic = Parameter(
            Tensor(np.zeros(1, np.float32)), name="toy.statistic", requires_grad=False
        )

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        ops.assign(self.statistic, self.statistic + ops.mean(x))
        return self.weight, self.other


class Quadratic(nn.Cell):
    """Half the squared distance to ``images`` times ``mask``, plus ``targets`` times the weights,
    so the gradient is known. The statistic grows by the mean of ``targets``.
    """

    term_names = ("half",)

    def __init__(self, start: np.ndarray) -> None:
        super().__init__(auto_prefix=False)
        self.model = Weights(start)

    def construct(self, images: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(n, m), (n, m), (1,) -> (total, terms)."""
        weight, other = self.model(targets)
        error, copy = weight - images, other - images
        total = ops.sum(
            (0.5 * error * error + 0.5 * copy * copy) * mask + targets * (weight + other)
        )
        return total, ops.reshape(total, (1,))


def call(
    step: TrainStep,
    images: np.ndarray,
    targets: np.ndarray,
    mask: float,
    rates: list[float],
    controls: list[float],
) -> np.ndarray:
    """The report; controls are momentum, update, decay."""
    return step(
        images,
        targets,
        np.array([mask], np.float32),
        np.array(rates, np.float32),
        np.array(controls, np.float32),
    )


def written_rule(name: str, weight_decay: float) -> list[np.ndarray]:
    """The weights before and after each step, in float64, by the formulas of the papers."""
    weight = START.astype(np.float64)
    first, second, found = np.zeros_like(weight), np.zeros_like(weight), [weight]
    for t, (beta1, rate) in enumerate(zip(BETA1, RATES), 1):
        gradient = weight - TARGET
        if name == "adam":
            gradient = gradient + weight_decay * weight
        else:
            weight = weight - rate * weight_decay * weight
        first = beta1 * first + (1 - beta1) * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weight = weight - rate * (first / (1 - beta1**t)) / (
            np.sqrt(second / (1 - 0.999**t)) + 1e-8
        )
        found.append(weight)
    return found


@pytest.mark.graph
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_beta1_of_the_step_and_either_weight_decay(name: str) -> None:
    """Only one group has weight decay; a step in the middle that is not finite changes neither
    moments nor count.
    """
    trainable = Quadratic(START)
    groups = [
        ParameterGroup("decayed", (trainable.model.weight,), 0.3),
        ParameterGroup("free", (trainable.model.other,), 0.0),
    ]
    step = TrainStep(
        trainable, groups, OptimizerOptions(name=name, betas=(0.5, 0.999), momentum_is_beta1=True)
    )
    decayed, free = written_rule(name, 0.3), written_rule(name, 0.0)
    assert np.abs(decayed[-1] - free[-1]).max() > 1e-3, "a step without decay must show"
    zero = np.zeros_like(TARGET)
    for t, (beta1, rate) in enumerate(zip(BETA1, RATES), 1):
        if t == 4:
            assert call(step, TARGET, zero + np.inf, 1.0, [rate, rate], [beta1, 1.0, 0.0])[2] == 0
        assert call(step, TARGET, zero, 1.0, [rate, rate], [beta1, 1.0, 0.0])[2] == 1
        np.testing.assert_allclose(trainable.model.weight.asnumpy(), decayed[t], rtol=0, atol=2e-6)
        np.testing.assert_allclose(trainable.model.other.asnumpy(), free[t], rtol=0, atol=2e-6)
    assert [step.state()[f"optimizer.{i}.count"].tolist() for i in range(2)] == [[6.0], [6.0]]
    assert all(value.ndim == 1 for value in step.state().values()), "one flat vector per group"


def test_the_moving_average_follows_the_table(golden) -> None:
    """Weights grow by 1 / k before update k: gradient -1 and rate 1 / k. A statistic is averaged
    as they are.
    """
    arrays = golden.arrays("simple_yolo/ema.npz")
    wanted, total = arrays["table"], int(arrays["total_itrs"])
    start = (0.1 * np.arange(6, dtype=np.float32)).reshape(2, 3)
    trainable = Quadratic(start)
    step = TrainStep(trainable, parameter_groups(trainable), OptimizerOptions(ema=True))
    np.testing.assert_allclose(
        step.ema_values()["toy.weight"][[0, 1], [0, 2]], wanted[0, :2], rtol=1e-6
    )
    statistic = 0.0
    for k in range(1, total + 1):
        call(step, start, np.full_like(start, -1.0), 0.0, [1 / k], [0.0, 1.0, k / total])
        averages = step.ema_values()
        np.testing.assert_allclose(averages["toy.weight"][[0, 1], [0, 2]], wanted[k, :2], rtol=1e-6)
        statistic = statistic * k / total - k * (1 - k / total)  # of -k
        np.testing.assert_allclose(averages["toy.statistic"], [statistic], rtol=1e-6)

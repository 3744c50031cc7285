"""A training that one backend began continues on another: the state has the same names, shapes and
meaning.

``state_of_<backend>.npz`` holds the weights and state of a small network after three steps, and the
reports of the next three steps. ``python tests/backend/test_state_exchange.py`` writes the file of
the backend it runs on.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from mindyolo_ext.backend import BACKEND, Tensor, nn, ops
from mindyolo_ext.backend.launch import set_seed
from mindyolo_ext.backend.parameters import (
    load_parameters,
    parameter_groups,
    parameter_values,
)
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep
from mindyolo_ext.layers.conv import ConvBNAct, conv2d

FOLDER = Path(__file__).parent
WRITERS = ("mindspore", "torch")
FIRST, LATER = 3, 3
OPTIONS = {
    "sgd": OptimizerOptions(
        nesterov=True, accumulate=2, clip_norm=2.0, ema=True, loss_scaler="dynamic", scale_window=4
    ),
    "adam": OptimizerOptions(
        name="adam", accumulate=2, clip_norm=2.0, ema=True, loss_scaler="dynamic", scale_window=4
    ),
    "adamw": OptimizerOptions(
        name="adamw",
        momentum_is_beta1=True,
        accumulate=2,
        ema=True,
        loss_scaler="dynamic",
        scale_window=4,
    ),
}


class Small(nn.Cell):
    """Two convolutions, one of them with batch norm."""

    def __init__(self):
        super().__init__()
        self.stem = ConvBNAct(3, 4, 3)
        self.head = conv2d(4, 2, 1, has_bias=True)

    def construct(self, images: Tensor) -> Tensor:
        return ops.mean(self.head(self.stem(images)), (2, 3))


class SquaredError(nn.Cell):
    """Mean squared error of the network's two numbers."""

    term_names = ("error",)

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, images: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        error = (self.model(images) - targets) * mask
        total = ops.mean(error * error)
        return total, ops.reshape(total, (1,))


def new_step(name: str) -> tuple[nn.Cell, TrainStep]:
    model = Small()
    trainable = SquaredError(model)
    groups = parameter_groups(trainable, "by_kind", 0.01)
    return model, TrainStep(trainable, groups, OPTIONS[name])


def reports_of(step: TrainStep, iterations: range) -> np.ndarray:
    """The reports of steps on batches that depend on the iteration alone."""
    found = []
    for i in iterations:
        rng = np.random.RandomState(i)
        images = rng.uniform(0, 1, (4, 3, 8, 8)).astype(np.float32)
        targets, mask = rng.normal(0, 1, (4, 2)).astype(np.float32), np.ones((4, 1), np.float32)
        rates = np.array([0.03, 0.02, 0.01], np.float32)
        found.append(step(images, targets, mask, rates, np.float32([0.9, i % 2, 0.5])))
    return np.stack(found)


def write() -> None:
    """Write what this backend computes."""
    arrays = {}
    for name in OPTIONS:
        set_seed(1)
        model, step = new_step(name)
        reports_of(step, range(FIRST))
        arrays |= {f"{name}/weights/{k}": v for k, v in parameter_values(model).items()}
        arrays |= {f"{name}/state/{k}": v for k, v in step.state().items()}
        arrays[f"{name}/reports"] = reports_of(step, range(FIRST, FIRST + LATER))
        arrays |= {f"{name}/average/{k}": v for k, v in step.ema_values().items()}
    np.savez_compressed(FOLDER / f"state_of_{BACKEND}.npz", **arrays)


def part(arrays: dict[str, np.ndarray], begin: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(begin): v for k, v in arrays.items() if k.startswith(begin)}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_training_goes_on_in_this_backend(name: str, writer: str) -> None:
    arrays = dict(np.load(FOLDER / f"state_of_{writer}.npz"))
    set_seed(2)
    model, step = new_step(name)
    load_parameters(model, part(arrays, f"{name}/weights/"))
    step.load_state(part(arrays, f"{name}/state/"))
    assert step.state()["optimizer.0.accumulated"].any(), "the training stops between micro batches"
    found = reports_of(step, range(FIRST, FIRST + LATER))
    np.testing.assert_allclose(found, arrays[f"{name}/reports"], rtol=1e-4)
    assert found[0, 3] < found[-1, 3], "the loss scale grows meanwhile"
    averages = step.ema_values()
    wanted = part(arrays, f"{name}/average/")
    assert list(averages) == list(wanted)
    for key, value in wanted.items():
        np.testing.assert_allclose(averages[key], value, rtol=1e-4, atol=1e-6, err_msg=key)


def test_both_begin_alike() -> None:
    """The same seed gives the same initial state."""
    first, second = (dict(np.load(FOLDER / f"state_of_{writer}.npz")) for writer in WRITERS)
    assert {k: (v.shape, v.dtype) for k, v in first.items()} == {
        k: (v.shape, v.dtype) for k, v in second.items()
    }, json.dumps(sorted(set(first) ^ set(second)))
    for key, value in first.items():
        np.testing.assert_allclose(second[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


if __name__ == "__main__":
    write()

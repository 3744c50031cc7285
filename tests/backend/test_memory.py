"""Arrays and tensors own their memory: writing into one later never changes another."""

import ast

import numpy as np
import pytest
from helpers import REPOSITORY

from mindyolo_ext.backend import Parameter, Tensor, float32, nn, ops
from mindyolo_ext.backend.compiled import Compiled
from mindyolo_ext.backend.parameters import (
    load_parameters,
    load_state_values,
    parameter_groups,
    parameter_values,
    state_values,
)
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep

FIRST = np.array([1.0, 2.0], np.float32)
ZEROS = np.zeros(2, np.float32)


class Shift(nn.Cell):
    """Add a parameter, whose gradient is the number of images."""

    term_names = ("sum",)

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.shift = Parameter(Tensor(FIRST), name="shift")
        self.count = Parameter(Tensor(np.float32(0)), name="loss.count", requires_grad=False)

    @property
    def model(self) -> nn.Cell:
        return self

    def construct(self, images, targets, mask):  # noqa: ARG002
        ops.assign(self.count, self.count + 1.0)
        total = ops.sum(images + self.shift)
        return total, ops.reshape(total, (1,))


def new_step() -> tuple[Shift, TrainStep]:
    cell = Shift()
    options = OptimizerOptions(ema=True, accumulate=2)
    return cell, TrainStep(cell, parameter_groups(cell), options)


def call(step: TrainStep, update: float = 1.0) -> None:
    rows = np.zeros((1, 1, 5), np.float32), np.zeros((1, 1), np.float32)
    step(ZEROS[None], *rows, np.float32([0.1]), np.float32([0.9, update, 0.5]))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_tensor_does_not_see_its_array(order: str) -> None:
    array = np.zeros((2, 3), np.float32, order=order)
    tensor = Tensor(array)
    parameter, other = Parameter(tensor, name="p"), Parameter(tensor, name="q")
    array[:] = 1
    ops.assign(parameter, Tensor(array))
    for unchanged in (tensor, other):
        assert not unchanged.asnumpy().any()
    assert parameter.asnumpy().all()


@pytest.mark.needs_torch  # MindSpore's keeps the tensor itself; see the next test
def test_a_parameter_does_not_see_what_it_was_set_from() -> None:
    parameter, source = Parameter(Tensor(ZEROS), name="p"), Parameter(Tensor(FIRST), name="s")
    parameter.set_data(source)
    ops.assign(source, Tensor(ZEROS))
    np.testing.assert_array_equal(parameter.asnumpy(), FIRST)
    ops.assign(parameter, Tensor(FIRST + 1))
    assert not source.asnumpy().any()


def test_parameters_are_set_from_tensors_made_for_them() -> None:
    calls = [
        node
        for path in (REPOSITORY / "mindyolo_ext").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".set_data")
    ]
    assert len(calls) > 15
    assert [ast.unparse(call) for call in calls if not isinstance(call.args[0], ast.Call)] == []


@pytest.mark.parametrize("is_state", [False, True])
def test_what_was_loaded_is_a_copy(is_state: bool) -> None:
    cell = Shift()
    values = {"shift": FIRST + 1, "loss.count" if is_state else "count": np.array(5, np.float32)}
    if is_state:
        load_state_values(cell.get_parameters(), values)
    else:
        load_parameters(cell, values)
    for value in values.values():
        value[...] = 0
    np.testing.assert_array_equal(cell.shift.asnumpy(), FIRST + 1)
    assert cell.count.asnumpy() == 5 and cell.count.shape == ()


def test_what_was_read_is_a_copy() -> None:
    cell, step = new_step()
    call(step, update=0.0)
    reads = {
        "parameters": lambda: parameter_values(cell),
        "state": step.state,
        "average": step.ema_values,
        "values": lambda: state_values([cell.shift, cell.count]),
    }
    before = {name: read() for name, read in reads.items()}
    kept = {name: {k: v.copy() for k, v in found.items()} for name, found in before.items()}
    call(step)
    for name, found in before.items():  # a later step does not change what was read
        for key, value in found.items():
            np.testing.assert_array_equal(value, kept[name][key], err_msg=f"{name} {key}")
    assert step.state()["loss.count"].shape == () and step.state()["loss.count"] == 2
    after = {name: read() for name, read in reads.items()}
    for found in after.values():  # and writing into it does not change the training
        for value in found.values():
            value[...] = 77
    for name, read in reads.items():
        assert not any((value == 77).any() for value in read().values()), name


def test_outputs_of_a_compiled_cell_are_copies() -> None:
    class Give(nn.Cell):
        def __init__(self):
            super().__init__()
            self.kept = Parameter(Tensor(FIRST), name="kept")

        def construct(self, x):
            return self.kept * 1.0, x

    cell, array = Give(), ZEROS.copy()
    own, given = Compiled(cell)(array)
    array[:] = 5
    cell.kept.set_data(Tensor(ZEROS))
    np.testing.assert_array_equal(own, FIRST)
    np.testing.assert_array_equal(given, ZEROS)


def test_numbers_without_axes_stay_without() -> None:
    for value in (np.float32(3), np.array(3, np.float32), 3.0):
        tensor = Tensor(value, float32)
        assert tensor.shape == () and tensor.asnumpy().shape == () and tensor.asnumpy() == 3
    total = ops.sum(Tensor(FIRST))
    assert total.shape == () and isinstance(total.asnumpy(), np.ndarray)
    assert ops.stack((total, total), 0).asnumpy().tolist() == [3, 3]


def test_a_name_can_be_given_and_changed() -> None:
    """PyTorch's own attribute for a tensor's name is read-only."""
    parameter = Parameter(Tensor(FIRST), name="first")
    parameter.name = "second"
    assert parameter.name == "second"
    assert list(state_values([parameter])) == ["second"]
    block = nn.SequentialCell(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    names = [name for name, _ in block.parameters_and_names()]
    assert [p.name for p in block.get_parameters()] == names
    assert names[0] == "0.weight" and "1.moving_variance" in names

"""Cells as functions of arrays, graph and eager mode, and hooks on layers."""

import threading

import numpy as np
import pytest

from mindyolo_ext.backend import Tensor, nn, ops
from mindyolo_ext.backend.compiled import Compiled
from mindyolo_ext.backend.lock import framework_lock
from mindyolo_ext.backend.mode import eager, graphs, is_eager
from mindyolo_ext.backend.observe import watched_convolutions, watched_layers

pytestmark = pytest.mark.graph
X = np.arange(6, dtype=np.float32).reshape(2, 3)


class SumAndDouble(nn.Cell):
    """Shape: (n, m), (m,) -> (n, m), (n, m)."""

    def construct(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + y, x * 2.0


class Block(nn.Cell):
    """A convolution with batch norm, and a dense layer on the mean."""

    def __init__(self):
        super().__init__()
        self.conv = nn.SequentialCell(
            nn.Conv2d(3, 4, 1, pad_mode="pad", padding=0, has_bias=False), nn.BatchNorm2d(4)
        )
        self.dense = nn.Dense(4, 5)

    def construct(self, x: Tensor) -> Tensor:
        return self.dense(ops.mean(self.conv(x), (2, 3)))


def test_all_outputs_are_arrays():
    run = Compiled(SumAndDouble())
    total, double = run(X, np.ones(3, np.float32))
    np.testing.assert_array_equal(total, X + 1)
    np.testing.assert_array_equal(double, 2 * X)
    (single,) = Compiled(nn.ReLU())(-X)
    np.testing.assert_array_equal(single, 0 * X)


def test_outputs_that_stay_on_the_device_feed_another_cell():
    run = Compiled(SumAndDouble(), fetched=1)
    total, double = run(X, np.ones(3, np.float32))
    assert isinstance(total, np.ndarray)
    assert isinstance(double, Tensor)
    np.testing.assert_array_equal(run(double, np.zeros(3, np.float32))[0], 2 * X)


def test_one_graph_per_combination_of_shapes():
    run = Compiled(SumAndDouble())
    run.compile((2, 3), (3,))
    assert run.graphs == 1
    run(X, np.ones(3, np.float32))
    assert run.graphs == 1
    run(X[:1], np.ones(3, np.float32))
    assert run.graphs == 2


def test_the_network_is_in_inference_mode():
    block = Block().set_train(True)
    Compiled(block)
    assert not any(cell.training for _, cell in block.cells_and_names())


def test_modes_nest_and_end_with_an_error():
    with pytest.raises(RuntimeError, match="broken"), eager():
        assert is_eager()
        with graphs():
            assert not is_eager()
        assert is_eager()
        raise RuntimeError("broken")
    assert not is_eager()


def test_hooks_see_layers_and_convolutions_and_are_removed():
    block, layers, shapes = Block().set_train(False), [], []
    images = Tensor(np.ones((2, 3, 4, 4), np.float32))
    with (
        eager(),
        watched_layers(block, lambda name, _, output: layers.append((name, output.shape))),
        watched_convolutions(lambda weight, output: shapes.append((weight.shape, output.shape))),
    ):
        block(images)
    assert layers == [
        ("conv.0", (2, 4, 4, 4)),
        ("conv.1", (2, 4, 4, 4)),
        ("conv", (2, 4, 4, 4)),
        ("dense", (2, 5)),
    ]
    assert shapes == [((4, 3, 1, 1), (2, 4, 4, 4))]
    with eager():
        block(images)
    assert len(layers) == 4


def held_by_another_thread() -> bool:
    """Whether another thread would have to wait for the framework."""
    free = []

    def try_it() -> None:
        free.append(framework_lock.acquire(blocking=False))
        if free[0]:
            framework_lock.release()

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return not free[0]


class Watching:
    """Stands in for a cell and records whether other threads are kept out while it runs or
    compiles.
    """

    def __init__(self):
        self.alone: list[bool] = []

    def set_train(self, _: bool) -> "Watching":
        return self

    def __call__(self, x: Tensor) -> Tensor:
        self.alone.append(held_by_another_thread())
        return x

    def compile(self, x: Tensor) -> None:
        self(x)


@pytest.mark.needs_mindspore
def test_one_thread_at_a_time_runs_or_compiles():
    cell = Watching()
    run = Compiled(cell)
    run(X)
    run.compile((2, 3))
    assert cell.alone == [True, True]
    assert not held_by_another_thread()
    with pytest.raises(TypeError):
        run(X, X)
    assert not held_by_another_thread()


def test_every_thread_gets_its_own_outputs():
    run, found = Compiled(SumAndDouble()), {}

    def work(number: int) -> None:
        for _ in range(20):
            found[number] = run(np.full((number, 3), number, np.float32), np.ones(3, np.float32))[1]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(1, 5):
        np.testing.assert_array_equal(found[number], np.full((number, 3), 2 * number))

"""Both backends give the same results where the frameworks' own calls differ without an error."""

import math

import numpy as np
import pytest

from mindyolo_ext.backend import Parameter, Tensor, float32, int32, int64, nn, ops
from mindyolo_ext.backend.gradients import grad
from mindyolo_ext.backend.launch import set_seed
from mindyolo_ext.backend.parameters import load_state_values, parameter_groups, state_values
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep
from mindyolo_ext.errors import ConfigError
from mindyolo_ext.losses.assign.grid import falling_order
from mindyolo_ext.models.registry import create_model, create_trainable

X = np.linspace(-3, 3, 25, dtype=np.float32)


def test_a_tensor_has_memory_of_its_own() -> None:
    array = np.zeros(4, np.float32)
    tensor, parameter = Tensor(array), Parameter(Tensor(array), name="p")
    array[:] = 1
    np.testing.assert_array_equal(tensor.asnumpy(), np.zeros(4))
    np.testing.assert_array_equal(parameter.asnumpy(), np.zeros(4))
    kept = state_values([parameter])
    parameter.set_data(Tensor(array))
    np.testing.assert_array_equal(kept["p"], np.zeros(4))


def test_types_of_new_tensors() -> None:
    assert Tensor([1.5]).dtype == float32
    assert Tensor(np.ones(2, np.int32)).dtype == int32
    assert Tensor(np.ones(2), float32).dtype == float32
    assert Tensor(np.float32(3)).shape == ()


def test_numbers_without_axes_are_put_back_as_such() -> None:
    parameter = Parameter(Tensor(np.float32(0)), name="p")
    load_state_values([parameter], {"p": np.array(2, np.float32)})
    assert parameter.shape == () and parameter.asnumpy() == 2


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (nn.LeakyReLU(), np.where(X > 0, X, 0.2 * X)),
        (nn.LeakyReLU(0.1), np.where(X > 0, X, 0.1 * X)),
        (
            nn.GELU(),
            0.5 * X * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3))),
        ),
        (nn.ELU(), np.where(X > 0, X, np.expm1(X))),
        (nn.CELU(), np.where(X > 0, X, np.expm1(X))),
        (nn.HSwish(), X * np.clip(X + 3, 0, 6) / 6),
        (nn.Hardtanh(), np.clip(X, -1, 1)),
        (nn.ReLU6(), np.clip(X, 0, 6)),
        (nn.SiLU(), X / (1 + np.exp(-X))),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Cell) else "",
)
def test_activations_with_their_defaults(layer: nn.Cell, wanted: np.ndarray) -> None:
    got = layer(Tensor(X.reshape(1, 1, 5, 5))).asnumpy()
    np.testing.assert_allclose(got.reshape(-1), wanted, rtol=1e-5, atol=1e-6)


def test_momentum_of_batch_norm_is_the_share_that_is_kept() -> None:
    norm = nn.BatchNorm2d(1, eps=1e-3, momentum=0.9).set_train(True)
    got = norm(Tensor(X.reshape(1, 1, 5, 5) + 1)).asnumpy()
    np.testing.assert_allclose(got.reshape(-1), X / np.sqrt(X.var() + 1e-3), atol=1e-5)
    np.testing.assert_allclose(norm.moving_mean.asnumpy(), [0.1], rtol=1e-5)
    np.testing.assert_allclose(
        norm.moving_variance.asnumpy(), [0.9 + 0.1 * X.var(ddof=1)], rtol=1e-5
    )
    assert norm.momentum == pytest.approx(0.1)


@pytest.mark.needs_torch  # MindSpore's statistics become NaN
def test_batch_norm_of_one_value_is_refused() -> None:
    norm, one = nn.BatchNorm2d(2), Tensor(np.ones((1, 2, 1, 1), np.float32))
    assert norm(one).shape == one.shape
    with pytest.raises(ConfigError, match="one value per channel.*train.per_batch_size"):
        norm.set_train(True)(one)


def test_cells_start_in_inference_mode() -> None:
    block = nn.SequentialCell(nn.BatchNorm2d(2), nn.ReLU())
    assert not any(cell.training for _, cell in block.cells_and_names())


def test_padding_of_pools_and_convolutions() -> None:
    image = X.reshape(1, 1, 5, 5)
    same = nn.MaxPool2d(3, 1, pad_mode="same")(Tensor(image)).asnumpy()
    assert same.shape == image.shape and same[0, 0, 0, 0] == image[0, 0, 1, 1]
    assert nn.MaxPool2d(2, 2)(Tensor(image)).shape == (1, 1, 2, 2)
    kept = nn.Conv2d(1, 1, 3)  # padded so that the size stays, without bias
    kept.weight.set_data(Tensor(np.ones((1, 1, 3, 3), np.float32)))
    sums = kept(Tensor(image)).asnumpy()[0, 0]
    assert sums.shape == (5, 5) and len(kept.trainable_params()) == 1
    np.testing.assert_allclose(sums[0, 0], image[0, 0, :2, :2].sum(), rtol=1e-6)
    halved = nn.Conv2d(1, 1, 3, 2, pad_mode="pad", padding=1, has_bias=False)
    halved.weight.set_data(Tensor(np.ones((1, 1, 3, 3), np.float32)))
    corner = halved(Tensor(image)).asnumpy()[0, 0]
    assert corner.shape == (3, 3)
    np.testing.assert_allclose(corner[0, 0], image[0, 0, :2, :2].sum(), rtol=1e-6)


def test_equal_values_are_ordered_by_their_place() -> None:
    values = np.array([0.5, 0.7, 0.5, 0.7, 0.1, 0.7], np.float32)
    valid = Tensor(np.array([1, 1, 1, 1, 1, 0], np.int32))
    assert falling_order(Tensor(values), valid).asnumpy().tolist() == [1, 3, 0, 2, 4, 5]
    pairs = Tensor(np.array([[3, 1, 3], [0, 2, 2]], np.float32))
    assert ops.argmax(pairs, 1).asnumpy().tolist() == [0, 1]
    assert ops.argmin(pairs, 1).asnumpy().tolist() == [1, 0]


def test_integers_stay_integers() -> None:
    numbers = Tensor(np.arange(4, dtype=np.int32))
    places = Tensor(np.array([0, 2, 2, 0], np.int32))
    largest = ops.unsorted_segment_max(numbers, places, 3)
    assert largest.dtype == int32
    assert largest.asnumpy().tolist() == [3, np.iinfo(np.int32).min, 2]
    assert ops.floor_mod(numbers - 3, 3).asnumpy().tolist() == [0, 1, 2, 0]
    assert ops.cumsum(ops.cast(numbers, float32), 0).asnumpy().tolist() == [0, 1, 3, 6]


def test_types_of_sums_of_integers_and_truth_values() -> None:
    numbers = Tensor(np.array([[2**24, 1], [3, -4]], np.int32))
    assert ops.cumsum(numbers, 0).dtype == int32
    for counted in (numbers, numbers > 0):
        assert ops.sum(counted).dtype == ops.sum(counted, 1).dtype == int64
    assert ops.sum(numbers, 1).asnumpy().tolist() == [2**24 + 1, -1]
    assert ops.sum(numbers > 0).asnumpy() == 3
    assert ops.arange(3).asnumpy().dtype.kind == "i"
    assert ops.arange(3, dtype=int32).dtype == int32
    halves = ops.cast(Tensor(np.array([1.9, -1.9], np.float32)), int32)
    assert halves.asnumpy().tolist() == [1, -1]


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_places_of_either_integer_type_look_up(kind: type) -> None:
    """The frameworks return indices of different integer types, so lookups accept both."""
    rows = Tensor(np.array([[1, 5, 3], [9, 7, 8]], np.float32))
    best, found = ops.topk(rows, 1, -1)
    _, order = ops.sort(rows, 1)
    for places in (found, order, ops.argmax(rows, 1), ops.max(rows, 1)[1], ops.argmin(rows, 1)):
        assert places.asnumpy().dtype in (np.int32, np.int64)
    assert ops.gather_elements(rows, 1, found).asnumpy().tolist() == best.asnumpy().tolist()
    assert ops.gather_elements(rows, 1, order).asnumpy().tolist() == [[1, 3, 5], [7, 8, 9]]
    index = Tensor(np.array([2, 0], kind))
    assert ops.gather(rows, index, 1).asnumpy().tolist() == [[3, 1], [8, 9]]
    assert ops.gather(rows[:, 0], ops.argmax(rows, 1), 0).asnumpy().tolist() == [9, 1]
    sums = ops.unsorted_segment_sum(Tensor(np.array([1, 2], np.float32)), index, 3)
    assert sums.asnumpy().tolist() == [2, 0, 1]


def test_gradients_where_a_bound_is_met() -> None:
    """If both arguments are equal, the gradient goes to the tensor."""

    def total(x: Tensor) -> Tensor:
        return ops.sum(ops.maximum(x, 0.0)) + 10.0 * ops.sum(ops.clamp(x, -1.0, 1.0))

    got = grad(total)(Tensor(np.array([-2.0, -1.0, 0.5, 1.0, 2.0], np.float32))).asnumpy()
    np.testing.assert_array_equal(got, [0, 10, 11, 11, 1])


@pytest.mark.needs_torch  # whose copy would broadcast
def test_a_parameter_refuses_another_shape() -> None:
    parameter = nn.Conv2d(2, 3, 1).weight
    with pytest.raises((ValueError, RuntimeError)):
        parameter.set_data(Tensor(np.zeros((1, 1, 1, 1), np.float32)))


def test_padding_of_boxes_changes_no_step() -> None:
    """PyTorch's step leaves the padding out."""
    rng = np.random.RandomState(0)
    images = rng.uniform(0, 255, (2, 3, 64, 64)).astype(np.float32)
    targets, mask = np.zeros((2, 24, 5), np.float32), np.zeros((2, 24), np.float32)
    targets[:, :3], mask[0, :3], mask[1, :1] = [[1, 0.4, 0.5, 0.3, 0.4]], 1, 1
    found = []
    for count in (3, 24):
        set_seed(1)
        trainable = create_trainable("yolox_loss", create_model("yolox_nano", num_classes=2))
        step = TrainStep(trainable, parameter_groups(trainable), OptimizerOptions())
        rates, controls = np.float32([1e-3]), np.float32([0.9, 1, 0])
        found.append(step(images, targets[:, :count], mask[:, :count], rates, controls))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)

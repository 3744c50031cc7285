"""Backbones whose activations are recomputed in the backward pass: the same training with less
memory.
"""

from collections.abc import Callable

import numpy as np
import pytest
from modes import as_graph

from mindyolo_ext.backend import BACKEND, Tensor, nn, ops, precision, recompute
from mindyolo_ext.backend.distributed import freeze_batch_norm, synchronize_batch_norm
from mindyolo_ext.backend.parameters import parameter_groups, parameter_values
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep
from mindyolo_ext.config.schema import TrainConfig
from mindyolo_ext.errors import ConfigError
from mindyolo_ext.models.registry import create_model, create_trainable, default_loss, families

SMALLEST = [record.smallest for record in families().values()]
RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.uniform(0, 1, (2, 3, 64, 64)).astype(np.float32)
TARGETS = np.zeros((2, 8, 5), np.float32)
TARGETS[:, :2] = [[1, 0.5, 0.5, 0.4, 0.4], [0, 0.3, 0.4, 0.5, 0.3]]
MASK = TARGETS[:, :, 3].clip(0, 1) > 0


def conv_norm_act(channels: int, out: int) -> nn.SequentialCell:
    return nn.SequentialCell(
        nn.Conv2d(channels, out, 3, pad_mode="pad", padding=1, has_bias=False),
        nn.BatchNorm2d(out),
        nn.SiLU(),
    )


class Body(nn.Cell):
    """Two stages in a list, and a third."""

    def __init__(self):
        super().__init__()
        self.stages = nn.CellList([conv_norm_act(3, 4), conv_norm_act(4, 4)])
        self.last = conv_norm_act(4, 6)
        self.plain = nn.ReLU()

    def construct(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.plain(self.last(x))


class Small(nn.Cell):
    """A trainable that is its own model."""

    term_names = ("sum",)

    def __init__(self):
        super().__init__(auto_prefix=True)
        self.backbone = Body()
        self.head = nn.Conv2d(6, 1, 1, pad_mode="pad", padding=0, has_bias=True)

    @property
    def model(self) -> nn.Cell:
        return self

    def construct(self, images, targets, mask):  # noqa: ARG002
        total = ops.mean(ops.exp(0.1 * self.head(self.backbone(images))))
        return total, ops.reshape(total, (1,))


def seeded(cell: nn.Cell) -> nn.Cell:
    """``cell`` with weights from a seed."""
    random = np.random.RandomState(1)
    for parameter in cell.trainable_params():
        shape = parameter.shape
        parameter.set_data(Tensor((0.3 * random.standard_normal(shape)).astype(np.float32)))
    return cell


def trained(trainable: nn.Cell) -> dict[str, np.ndarray]:
    """All parameters and the optimizer's state after two steps."""
    groups = parameter_groups(trainable)
    step = TrainStep(trainable, groups, OptimizerOptions(name="sgd", ema=True))
    rates, controls = np.full(len(groups), 0.1, np.float32), np.float32([0.9, 1, 0.9])
    with as_graph(True):
        reports = [step(IMAGES, TARGETS, MASK.astype(np.float32), rates, controls) for _ in "ab"]
    assert all(report[2] == 1 for report in reports)
    return {**parameter_values(trainable), **step.state(), "reports": np.stack(reports)}


def equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize(
    "prepare",
    [None, *(pytest.param(name, marks=pytest.mark.all_cases) for name in ("O2", "frozen"))],
)
def test_training_is_the_same(prepare: str | None) -> None:
    both = seeded(Small()), seeded(Small())
    for model in both:
        if prepare == "O2":
            precision.apply(model, "O2", "float16")
        elif prepare == "frozen":
            freeze_batch_norm(model)
    assert recompute.apply(both[1]) == 3
    wanted, found = map(trained, both)
    moved = np.abs(wanted["backbone.last.1.moving_mean"]).max() > 0
    assert moved != (prepare == "frozen")
    equal(found, wanted)


@pytest.mark.needs_torch
def test_synchronized_norms_update_once() -> None:
    both = seeded(Small()), seeded(Small())
    for model in both:
        assert synchronize_batch_norm(model) == 3
    recompute.apply(both[1])
    wanted, found = map(trained, both)
    equal(found, wanted)


@pytest.mark.needs_mindspore
def test_synchronized_norms_are_refused() -> None:
    model = Small()
    synchronize_batch_norm(model)
    with pytest.raises(ConfigError, match=r"train\.recompute: .* set train\.sync_bn=false"):
        recompute.apply(model)


@pytest.mark.needs_mindspore
def test_a_norm_that_is_computed_again_would_update_twice() -> None:
    both = seeded(Small()), seeded(Small())
    both[1].backbone.last.recompute()
    wanted, found = map(trained, both)
    for name in ("backbone.last.1.moving_mean", "backbone.last.1.moving_variance"):
        assert np.abs(found.pop(name) - wanted.pop(name)).max() > 1e-3
    found.pop("ema_flat.buffers"), wanted.pop("ema_flat.buffers")
    equal(found, wanted)


def kept(model: nn.Cell) -> int:
    """Bytes that PyTorch keeps for the backward pass."""
    import torch

    from mindyolo_ext.backend.on_torch.recording import recording

    sizes = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with recording(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(Tensor(IMAGES))
    return sum(sizes.values())


@pytest.mark.needs_torch
@pytest.mark.parametrize("name", SMALLEST)
def test_a_detector_keeps_less_and_trains_the_same(name: str) -> None:
    def new() -> nn.Cell:
        return seeded(create_model(name, num_classes=3)).set_train(True)

    both = new(), new()
    assert recompute.apply(both[1]) > 3
    parameters = sum(value.nbytes for value in parameter_values(both[0]).values())
    assert kept(both[1]) - parameters < 0.5 * (kept(both[0]) - parameters)
    equal(*(trained(create_trainable(default_loss(m.family), m)) for m in (new(), _again(new))))


def _again(new: Callable[[], nn.Cell]) -> nn.Cell:
    model = new()
    recompute.apply(model)
    return model


@pytest.mark.needs_mindspore
@pytest.mark.all_cases
@pytest.mark.parametrize("name", SMALLEST)
def test_a_compiled_detector_trains_the_same(name: str) -> None:
    both = [create_model(name, num_classes=3) for _ in "ab"]
    assert recompute.apply(both[1]) > 3
    for model in both:
        seeded(model)
    equal(*(trained(create_trainable(default_loss(m.family), m)) for m in both))


def test_it_excludes_compilation() -> None:
    assert BACKEND in ("mindspore", "torch")
    with pytest.raises(ConfigError, match="recompute wanted false with compile true"):
        TrainConfig(recompute=True, compile=True)

"""Every tensor of a network, a loss and a step is created on the device, and a step waits for the
device once.

The device is PyTorch's ``meta``: its tensors have shapes but no values. Reading a value on the host
raises an error, and the first operator that gets a tensor from elsewhere fails.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from mindyolo_ext.backend import BACKEND, Tensor, nn, ops, precision
from mindyolo_ext.backend.compiled import Compiled
from mindyolo_ext.backend.parameters import parameter_groups
from mindyolo_ext.backend.train_step import OptimizerOptions, TrainStep
from mindyolo_ext.contracts import StepClock, Stepped
from mindyolo_ext.engine.predictor import Predict
from mindyolo_ext.models.registry import create_model, create_trainable, default_loss

pytestmark = [pytest.mark.needs_torch, pytest.mark.graph(when="never")]
# The smallest variant of each family, and every loss
LOSSES = {
    "yolo_fastestv2": ("yolo_fastestv2", {}, {}),
    "yolox": ("yolox_nano", {}, {"l1": True}),
    "gold_yolo": ("gold_yolo_n", {"form": "fuse_ab"}, {}),
    "gold_yolo, ATSS": ("gold_yolo_n", {"form": "plain"}, {"assigner": "atss"}),
    "gold_yolo, distillation": (
        "gold_yolo_n",
        {"form": "distill"},
        {"name": "gold_yolo_distill_loss"},
    ),
    "dynamicdet": ("dy_yolov7_w0125", {"router": False}, {}),
    "dynamicdet, router": ("dy_yolov7_w0125", {}, {"name": "dynamicdet_router_loss"}),
    "simple_yolo": ("simple_yolo_resnet18", {"channel_sparsity": 0.25}, {}),
    "simple_yolo, all_grid": (
        "simple_yolo_resnet18",
        {"channel_sparsity": 0.25, "assignment": "all_grid"},
        {},
    ),
}
SGD = OptimizerOptions(nesterov=True, clip_norm=10.0, ema=True, loss_scaler="dynamic", accumulate=2)
ADAM = OptimizerOptions(name="adamw", loss_scaler="static")
BATCH, SIDE, BOXES = 2, 64, 5

if BACKEND == "torch":
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from mindyolo_ext.backend.on_torch import device, values

    # Functions that move an array to the device
    MOVES = [getattr(torch.ops.aten, x) for x in ("lift_fresh", "detach", "_to_copy", "copy_")]

    class Watch(TorchDispatchMode):
        """Raise an error for a tensor that is created or used outside the device.

        Scalars may be elsewhere, as on a GPU.
        """

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            output = function(*arguments, **(keywords or {}))
            if function.overloadpacket not in MOVES:
                for tensor in torch.utils._pytree.tree_leaves((arguments, keywords, output)):
                    if isinstance(tensor, torch.Tensor) and tensor.ndim:
                        assert tensor.device == device.device(), f"{function} on {tensor.device}"
            return output


@dataclass
class Traffic:
    """Transfers between host and device."""

    fetched: list[tuple[int, ...]] = field(default_factory=list)
    sent: list[tuple[int, ...]] = field(default_factory=list)

    def clear(self) -> None:
        self.fetched.clear()
        self.sent.clear()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traffic]:
    """A device other than the host's memory; all values that are fetched from it are 1."""
    traffic = Traffic()
    to_device = values.to_device

    def asnumpy(tensor: "torch.Tensor") -> np.ndarray:
        traffic.fetched.append(tuple(tensor.shape))
        return np.ones(tensor.shape, str(tensor.dtype).removeprefix("torch."))

    def sent(host: "torch.Tensor") -> "torch.Tensor":
        traffic.sent.append(tuple(host.shape))
        return to_device(host)

    monkeypatch.setattr(device._State, "device", torch.device("meta"))
    monkeypatch.setattr(torch.Tensor, "asnumpy", asnumpy)
    monkeypatch.setattr(values, "to_device", sent)
    with Watch():
        yield traffic


def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, targets and mask."""
    images = np.zeros((BATCH, 3, SIDE, SIDE), np.float32)
    return images, np.full((BATCH, BOXES, 5), 0.5, np.float32), np.ones((BATCH, BOXES), np.float32)


def trainable_of(case: str):
    """A network with its loss."""
    model_name, keywords, loss = LOSSES[case]
    loss = dict(loss)
    model = create_model(model_name, 3, **keywords)
    name = loss.pop("name", default_loss(model.family))
    if "distill" in name:
        loss["teacher"] = create_model(model_name, 3, form="fuse_ab")
    return create_trainable(name, model, **loss)


@pytest.mark.parametrize(
    "case, options, level",
    [
        *((case, SGD, "O0") for case in LOSSES),
        ("yolo_fastestv2", ADAM, "O0"),
        ("gold_yolo", SGD, "O2"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_step_stays_on_the_device_and_waits_for_nothing(elsewhere, case, options, level):
    trainable = trainable_of(case)
    precision.apply(trainable.model, level)
    groups = parameter_groups(trainable, "by_kind", 5e-4)
    step = TrainStep(trainable, groups, options)
    if isinstance(trainable, Stepped):
        trainable.begin_step(StepClock(0, 0, 10))
    rates = np.full(len(groups), 1e-3, np.float32)
    for update in (0, 1) if options.accumulate > 1 else (1, 1):
        elsewhere.clear()
        step.take(*batch(), rates, np.array([0.9, update, 0.99], np.float32))
        assert elsewhere.fetched == []
        assert elsewhere.sent[:3] == [(BATCH, 3, SIDE, SIDE), (BATCH, BOXES, 5), (BATCH, BOXES)]
    elsewhere.clear()
    tally = step.tally()
    length = 4 + len(trainable.term_names)
    assert elsewhere.fetched == [(2 * length + 2,)], "all results of the steps, in one transfer"
    assert len(tally.report) == len(tally.sums) == length


@pytest.mark.parametrize("case", [name for name in LOSSES if "," not in name])
@pytest.mark.parametrize("fold, level", [(False, "O0"), (True, "O2")])
def test_a_prediction_stays_on_the_device(elsewhere, case, fold, level):
    name, keywords, _ = LOSSES[case]
    model = create_model(name, 3, **keywords)
    model = model.to_deploy() if fold else model
    precision.apply(model, level)
    network = Compiled(Predict(model))
    elsewhere.clear()
    boxes, scores = network(batch()[0])
    assert boxes.shape[:2] == scores.shape[:2] and (boxes.shape[2], scores.shape[2]) == (4, 3)
    assert elsewhere.fetched == [boxes.shape, scores.shape]


def test_a_network_stays_where_it_was_made(elsewhere):
    """This holds even if the process later switches to another device, as an export does; features
    of another network follow.
    """
    network = Compiled(Predict(create_model("yolox_nano", 3)), fetched=0)
    with device.on_device(torch.device("cpu")):
        for images in (batch()[0], torch.zeros(BATCH, 3, SIDE, SIDE)):
            assert {output.device.type for output in network(images)} == {"meta"}
        assert device.device().type == "cpu"
    assert device.device().type == "meta" and not elsewhere.fetched


@pytest.mark.usefixtures("elsewhere")
def test_the_watch_notices():
    class Wrong(nn.Cell):
        def construct(self, x):
            return x + torch.ones(3)

    class Reads(nn.Cell):
        def construct(self, x):
            return x * float(ops.sum(x))

    x = Tensor(np.ones(3, np.float32))
    with pytest.raises(AssertionError, match="ones.* on cpu"):
        Wrong()(x)
    with pytest.raises(RuntimeError, match="meta"):
        Reads()(x)


def test_arrays_reach_a_gpu_through_pinned_memory(monkeypatch):
    """They are copied once, so the caller may overwrite its own array immediately."""
    calls = []

    class Host:
        def pin_memory(self):
            calls.append("pinned")
            return self

        def to(self, place, non_blocking=False):
            calls.append((place.type, non_blocking))

    monkeypatch.setattr(device._State, "device", torch.device("cuda", 0))
    values.to_device(Host())
    assert calls == ["pinned", ("cuda", True)]

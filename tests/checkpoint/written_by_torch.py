"""Write files as PyTorch pickles them; run by a Python with PyTorch, see ``test_torch_pickles``.

``python written_by_torch.py FOLDER``: the reader must accept every file below ``read`` and refuse
every file below ``refused`` with a message.
"""

import argparse
import collections
import copy
import datetime
import decimal
import fractions
import functools
import pathlib
import pickle
import random
import sys
import types
import uuid
import warnings

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

warnings.simplefilter("ignore")
OUT = pathlib.Path(sys.argv[1])


class Block(nn.Module):
    """A layer of a program that is not installed here."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, bias=False)
        self.bn = nn.BatchNorm2d(3)
        self.act = nn.SiLU()
        self.norm = functools.partial(nn.BatchNorm2d, eps=1e-3)

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


def save(name, value, folder="read", **options):
    """Save below a folder."""
    torch.save(value, OUT / folder / f"{name}.pth", **options)


def optimizers(model):
    """(name, optimizer after a step) of every optimizer that has state."""
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "Adamax"):
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1)
        model(torch.ones(1, 3, 8, 8)).sum().backward()
        optimizer.step()
        yield name, optimizer


for folder in ("read", "refused"):
    (OUT / folder).mkdir(parents=True)
model = nn.Sequential(Block(), Block())
weights = model.state_dict()
for protocol in (2, 3, 4, 5):
    for legacy in (False, True):
        options = {
            "pickle_protocol": protocol,
            "_use_new_zipfile_serialization": not legacy,
        }
        kind = f"{protocol}_{'legacy' if legacy else 'zip'}"
        save(f"weights_{kind}", weights, **options)
        save(f"bare_model_{kind}", model, **options)
        save(f"model_{kind}", {"model": model, "epoch": 1}, **options)
for dtype in [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "complex64",
    "complex128",
    "uint16",
    "uint32",
    "uint64",
]:
    for legacy in (False, True):
        tensors = {"w": torch.zeros(3, 2).to(getattr(torch, dtype)), "b": torch.ones(3)}
        save(f"dtype_{dtype}_{legacy}", tensors, _use_new_zipfile_serialization=not legacy)
BESIDE = {
    "namespaces": [argparse.Namespace(a=1), types.SimpleNamespace(a=pathlib.Path("a"))],
    "containers": [
        collections.OrderedDict(a=1),
        collections.defaultdict(list, a=[1]),
        collections.Counter("abc"),
        collections.deque([1], maxlen=3),
        {1, 2},
        frozenset({1}),
    ],
    "ranges": [range(3), slice(1, 2), 1j, b"abc", bytearray(b"x"), ...],
    "values": [
        datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
        decimal.Decimal("1.5"),
        uuid.uuid4(),
        fractions.Fraction(1, 3),
        1 << 100,
    ],
    "types": [int, float, str, bool, torch.float32, np.float32, nn.functional.relu],
    "numpy": [np.arange(3.0), np.float64(3), np.bool_(True), np.array(["a"]), np.dtype("f4")],
    "dates": np.datetime64("2020-01-01"),
    "numpy_key": {np.int64(3): 1, (1, 2): 3, None: 4, 1.5: 5, b"x": 6, frozenset({1}): 7},
    "torch": [torch.Size([1, 2]), torch.device("cpu"), torch.strided, torch.__version__],
    "random": [random.getstate(), np.random.get_state(), torch.get_rng_state()],
    "generators": [np.random.RandomState(1), np.random.default_rng(1), random.Random(1)],
    "generator": torch.Generator(),
    "sparse": [torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr()],
    "meta": torch.ones(3, device="meta"),
    "parameter": nn.Parameter(torch.ones(2)),
    "scaler": torch.amp.GradScaler("cpu"),
}
for name, value in BESIDE.items():
    for protocol in (2, 4):
        save(f"beside_{name}_{protocol}", {"model": weights, "x": value}, pickle_protocol=protocol)
save("memory_format", {"model": weights, "x": torch.channels_last}, pickle_protocol=4)
for name, optimizer in optimizers(model):
    state = {"model": weights, "optimizer": optimizer.state_dict()}
    save(f"optimizer_{name}", state)
    save(f"optimizer_object_{name}", {"model": weights, "x": optimizer})
schedules = torch.optim.lr_scheduler
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for schedule in (
    schedules.CosineAnnealingLR(optimizer, 3),
    schedules.OneCycleLR(optimizer, 0.1, total_steps=3),
    schedules.MultiStepLR(optimizer, [1, 2]),
    schedules.ReduceLROnPlateau(optimizer),
):
    save(f"schedule_{type(schedule).__name__}", {"model": weights, "x": schedule})
average = AveragedModel(model)
save("average", average.state_dict())
save("average_object", {"model": model, "ema": average})
save("parallel", nn.DataParallel(model))
save("half", {"model": copy.deepcopy(model).half(), "ema": copy.deepcopy(model).half()})
save("around", {"checkpoint": {"state_dict": {"model": weights, "ema": weights}}})
save("object_around", types.SimpleNamespace(ema=model, updates=3))
save("arrays", {name: tensor.numpy() for name, tensor in weights.items()})
for layer in (
    nn.Upsample(scale_factor=2),
    nn.MaxPool2d(2),
    nn.LeakyReLU(0.1),
    nn.PReLU(),
    nn.Hardswish(),
    nn.ConvTranspose2d(3, 3, 2),
    nn.SyncBatchNorm(3),
    nn.ModuleDict({"a": nn.ModuleList([nn.ReLU()])}),
    nn.ParameterList([nn.Parameter(torch.ones(1))]),
    nn.MultiheadAttention(4, 2),
    nn.LSTM(2, 2),
    nn.CrossEntropyLoss(),
):
    save(f"layer_{type(layer).__name__}", {"model": nn.Sequential(Block(), layer)})
if hasattr(torch.serialization, "set_crc32_options"):
    torch.serialization.set_crc32_options(False)
    save("without_checksums", weights)
    torch.serialization.set_crc32_options(True)
torch.jit.script(nn.Sequential(nn.ReLU())).save(str(OUT / "refused" / "torchscript.pth"))
save("fx", torch.fx.symbolic_trace(nn.Sequential(nn.ReLU())), "refused")
save("quantized", {"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, "refused")
save("one_tensor", torch.ones(3), "refused")
save("list", [weights], "refused")
with (OUT / "refused" / "pickle.pth").open("wb") as stream:
    pickle.dump(weights, stream)

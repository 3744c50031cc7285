"""Write the small PyTorch files of this folder; needs PyTorch (2.13 was used): ``python
make_fixtures.py``.

``*.npz`` hold what ``torch.load`` returns for each file, so the tests need no PyTorch.
"""

import argparse
import collections
import datetime
import pathlib
import sys
import types

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent


def absent_class():
    """A model class in a package that exists only while this script runs."""
    package = types.ModuleType("absent_package")
    sys.modules["absent_package"] = package

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3, bias=False)
            self.bn = torch.nn.BatchNorm2d(4)
            self.act = torch.nn.SiLU()
            self.tied = self.conv
            self.register_buffer("grid", torch.arange(6.0).reshape(2, 3))
            self.register_buffer("hidden", torch.zeros(5), persistent=False)
            self.nothing = None
            self.names = ["cat", "dog"]
            self.yaml = {"depth": 0.33}

    Net.__module__, Net.__qualname__ = "absent_package", "Net"
    package.Net = Net
    return Net


def tensors():
    """Every element type, views with strides and offsets, one storage under two names, scalars and
    empty tensors.
    """
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
    return collections.OrderedDict(
        plain=base,
        transposed=base.t(),
        row=base[2],
        column=base[:, 3],
        block=base[1:3, 2:5],
        tied=base,
        expanded=torch.tensor([1.5]).expand(3, 4),
        half=torch.linspace(-2, 2, 5).half(),
        brain=torch.linspace(-3, 3, 7).bfloat16(),
        double=torch.tensor([1 / 3], dtype=torch.float64),
        counter=torch.tensor(1700730),
        whole=torch.arange(-3, 3, dtype=torch.int32),
        short=torch.arange(3).short(),
        byte=torch.arange(5, dtype=torch.uint8),
        flags=torch.tensor([True, False, True]),
        small=torch.tensor(-7, dtype=torch.int8),
        empty=torch.zeros(0, 3),
        scalar=torch.tensor(2.5),
    )


def store(name, state):
    """Store the expected arrays, half precision widened as the reader does it."""
    np.savez_compressed(
        HERE / f"{name}.npz",
        **{
            key: (
                value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
            ).numpy()
            for key, value in state.items()
        },
    )


def main():
    torch.manual_seed(0)
    state = tensors()
    torch.save(state, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(state, HERE / "zip.pth")
    store("tensors", state)
    net_class = absent_class()
    net = net_class().half().eval()
    average = net_class().eval()
    average.load_state_dict({key: value * 2 for key, value in net.float().state_dict().items()})
    net = net.half()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    extras = {
        "epoch": 12,
        "best": np.float64(0.5),
        "curve": np.arange(6, dtype=np.float32).reshape(2, 3),
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs/x")),
        "date": datetime.datetime(2024, 5, 6),
        "device": torch.device("cuda", 0),
        "size": torch.Size([3, 4]),
        "counts": collections.defaultdict(list, a=[1]),
        "optimizer": optimizer.state_dict(),
    }
    checkpoint = {"model": net, "ema": average, **extras}
    torch.save(checkpoint, HERE / "modules.pt")
    del checkpoint["optimizer"]  # keeps the file small
    torch.save(checkpoint, HERE / "modules_legacy.pt", _use_new_zipfile_serialization=False)
    store("model", net.state_dict())
    store("ema", average.state_dict())
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in average.state_dict().items()}},
        HERE / "parallel.pth",
    )


if __name__ == "__main__":
    main()

"""Write ``simple_yolo_last.pth`` and ``torchvision_legacy.pth``; needs PyTorch (2.13 was used).

The first file is laid out as the original writes a ResNet during a training: its tensors are views
of wider ones, and every storage is stored whole. The second is like torchvision's first files: the
format before 1.6, no counters.
"""

import collections
import pathlib
import sys

import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from models.simple_yolo.files import COUNTER, detector, filled, torchvision_resnet  # noqa: E402

SHARE = 1 / 64


def main():
    shapes = detector(18, SHARE, 2)
    # As the ImageNet weights, in proportion: one channel more everywhere, except in the
    # first input.
    wider = {
        name: (shape[0] + 1, shape[1] + (name != "backbone.conv1.weight"), *shape[2:])
        if len(shape) == 4
        else tuple(size + 1 for size in shape)
        for name, shape in shapes.items()
    }
    state, parameters = collections.OrderedDict(), []
    for name, array in filled(wider).items():
        part = torch.from_numpy(array)[tuple(slice(size) for size in shapes[name])]
        part = part if name.startswith("backbone.") else part.clone()
        state[name] = part
        if not name.endswith(("running_mean", "running_var", COUNTER)):
            parameters.append(torch.nn.Parameter(part))
    optimizer = torch.optim.Adam(parameters, lr=0.0)  # the weights stay
    parameters[0].grad = torch.ones_like(parameters[0])
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=10)
    torch.save(
        {
            "cur_epoch": 4,
            "best_score": torch.tensor(0.25),
            "state_dict": state,
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
        },
        HERE / "simple_yolo_last.pth",
    )
    tensors = filled(torchvision_resnet(18, SHARE, classes=10, counters=False))
    torch.save(
        collections.OrderedDict((name, torch.from_numpy(array)) for name, array in tensors.items()),
        HERE / "torchvision_legacy.pth",
        _use_new_zipfile_serialization=False,
    )


if __name__ == "__main__":
    main()

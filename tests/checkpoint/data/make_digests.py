"""Write published_digests.json from what ``torch.load`` returns: ``python make_digests.py FOLDER
FILE ...``.

Needs PyTorch. Packages of whole-model files that are not installed are replaced by empty module
classes, which is enough for ``state_dict``. Load only files you trust: unlike the reader, this
script executes code in them.
"""

import hashlib
import importlib.abc
import importlib.machinery
import json
import pathlib
import sys
import types

import torch

ABSENT = ("yolov6", "gold_yolo", "mmcv")


class AbsentPackages(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Find any module of the missing packages; each name in it is a module class (ConfigDict: a
    dict).
    """

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002
        if name.split(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)

        def make(name):
            if name.startswith("__"):
                raise AttributeError(name)
            made = type(
                name,
                (dict if name == "ConfigDict" else torch.nn.Module,),
                {"__module__": spec.name},
            )
            setattr(module, name, made)
            return made

        module.__getattr__ = make
        return module

    def exec_module(self, module):
        pass


def digest(path):
    """SHA-256 over the state dict's names, shapes, types and numbers; half precision widened to
    float32.
    """
    state = torch.load(path, map_location="cpu", weights_only=False)
    for key in ("ema", "model", "state_dict"):
        if isinstance(state, dict) and not isinstance(state.get(key), (type(None), torch.Tensor)):
            state = state[key]
    state = state.state_dict() if isinstance(state, torch.nn.Module) else state
    total = hashlib.sha256()
    for key, value in state.items():
        array = (value.float() if value.is_floating_point() else value).numpy()
        total.update(f"{key} {array.shape} {array.dtype}".encode() + array.tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    sys.meta_path.insert(0, AbsentPackages())
    folder = pathlib.Path(sys.argv[1])
    digests = {name: digest(folder / name) for name in sys.argv[2:]}
    target = pathlib.Path(__file__).with_name("published_digests.json")
    target.write_text(json.dumps(digests, indent=1) + "\n")

"""Helpers for the tests of Gold-YOLO's checkpoints: its reference folders, deployed weights, and
pickled networks.
"""

import io
import json
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
from helpers import DEFAULT_GOLDEN

FORMS = {"fuse_ab": "", "plain": "plain", "distill": "distill"}
VARIANTS = ("gold_yolo_n", "gold_yolo_s", "gold_yolo_m", "gold_yolo_l")
CASES = [
    (variant, form)
    for variant in VARIANTS
    for form in FORMS
    if form != "distill" or variant in ("gold_yolo_n", "gold_yolo_s")
]
NORM = ("weight", "bias", "running_mean", "running_var")


def folder(root: Path, variant: str, form: str) -> Path:
    """The folder with ``keys.json`` and the like for a form."""
    return root / variant / FORMS[form]


def reference(request) -> Path:
    """The folder of reference arrays: the repository's own if it has every form, else the shared
    one.
    """
    own = DEFAULT_GOLDEN / "gold_yolo"
    complete = all(
        (folder(own, *case) / file).is_file()
        for case in CASES
        for file in ("keys.json", "const.npz")
    )
    return own if complete else request.getfixturevalue("shared") / "reference" / "gold_yolo"


def light_tensors(root: Path, variant: str, form: str) -> dict[str, np.ndarray]:
    """The state dict's names, shapes and types, without memory; only the constants are real."""
    place = folder(root, variant, form)
    keys = json.loads((place / "keys.json").read_text(encoding="utf-8"))
    with np.load(place / "const.npz") as file:
        constants = {name: file[name] for name in file.files}
    return {
        name: constants.get(name, np.broadcast_to(np.zeros((), dtype), shape))
        for name, shape, dtype in keys
    }


def deployed(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state dict after the original's ``fuse_model`` and ``switch_to_deploy``, computed in
    float64.

    ``low_IFM.0`` and ``.4`` and every norm of the transformer and the injections stay.
    """
    result: dict[str, np.ndarray] = {}
    for name, array in state.items():
        if ".rbr_" in name:
            block = name.partition(".rbr_")[0]
            if f"{block}.rbr_reparam.weight" not in result:
                kernel, bias = _reparametrised(state, block)
                result[f"{block}.rbr_reparam.weight"], result[f"{block}.rbr_reparam.bias"] = (
                    kernel,
                    bias,
                )
            continue
        layer = name.rpartition(".")[0]
        block = layer.rpartition(".")[0]
        kept = (
            block in ("neck.low_IFM.0", "neck.low_IFM.4")
            or ".Inject_" in name
            or ".high_IFM." in name
        )
        if kept or not layer.endswith((".conv", ".bn")) or f"{block}.bn.weight" not in state:
            result[name] = array
        elif name == f"{block}.conv.weight":
            kernel, bias = _folded(state, f"{block}.bn", array)
            own = state.get(f"{block}.conv.bias", np.zeros(1))
            scale = state[f"{block}.bn.weight"] / np.sqrt(
                state[f"{block}.bn.running_var"].astype(np.float64) + 1e-3
            )
            result[name] = kernel.astype(np.float32)
            result[f"{block}.conv.bias"] = (bias + own * scale).astype(np.float32)
    return result


def _folded(state, norm, kernel):
    gamma, beta, mean, variance = (state[f"{norm}.{leaf}"].astype(np.float64) for leaf in NORM)
    scale = gamma / np.sqrt(variance + 1e-3)
    return kernel * scale[:, None, None, None], beta - mean * scale


def _reparametrised(state, block):
    kernel, bias = _folded(state, f"{block}.rbr_dense.bn", state[f"{block}.rbr_dense.conv.weight"])
    point, more = _folded(state, f"{block}.rbr_1x1.bn", state[f"{block}.rbr_1x1.conv.weight"])
    kernel[:, :, 1:2, 1:2] += point
    bias = bias + more
    if f"{block}.rbr_identity.weight" in state:
        point, more = _folded(state, f"{block}.rbr_identity", np.eye(len(kernel))[:, :, None, None])
        kernel[:, :, 1:2, 1:2] += point
        bias = bias + more
    return kernel.astype(np.float32), bias.astype(np.float32)


class Network:
    """An object whose classes exist only while it is pickled, as the original's are not here when
    it is read.

    Args:
        state: state dict; a folded ``conv`` (with bias, without norm) keeps a bound method, as the
            original's do.
        norm: class of the norms that the original builds through mmcv.
        attributes: further attributes of the network.
    """

    def __init__(
        self,
        state: dict[str, np.ndarray],
        norm: str = "torch.nn.modules.batchnorm.SyncBatchNorm",
        **attributes: object,
    ):
        self.state, self.norm, self.attributes = state, norm, attributes


def write_pickled(path: Path, content: dict, monkeypatch) -> None:
    """``torch.save(content, path)`` without PyTorch; every ``Network`` in it becomes nested
    modules, in half precision.
    """
    writer = _Writer(monkeypatch)
    content = {
        name: writer.module(value) if isinstance(value, Network) else value
        for name, value in content.items()
    }
    stream = io.BytesIO()
    pickler = _Pickler(stream, 2)
    pickler.dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        for key, numbers in pickler.contents.items():
            archive.writestr(f"archive/data/{key}", numbers)
        archive.writestr("archive/version", b"3\n")


class _Storage:
    def __init__(self, array):
        self.array = array


class _Tensor:
    def __init__(self, array):
        self.array = array


class _Pickler(pickle.Pickler):
    """Writes tensors as PyTorch does: a call of a rebuild function with a persistent id."""

    def __init__(self, stream, protocol):
        super().__init__(stream, protocol)
        self.contents: dict[str, bytes] = {}

    def persistent_id(self, value):
        if not isinstance(value, _Storage):
            return None
        key = str(len(self.contents))
        self.contents[key] = value.array.tobytes()
        kind = (
            sys.modules["torch"].LongStorage
            if value.array.dtype == np.int64
            else sys.modules["torch"].HalfStorage
        )
        return "storage", kind, key, "cpu", value.array.size

    def reducer_override(self, value):
        if not isinstance(value, _Tensor):
            return NotImplemented
        array = value.array
        stride = tuple(step // array.itemsize for step in array.strides)
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (
            _Storage(array),
            0,
            array.shape,
            stride,
            False,
            OrderedDict(),
        )


class _Writer:
    """Create the missing classes and the objects of a network."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.classes: dict[str, type] = {}
        for qualified in ("torch.HalfStorage", "torch.LongStorage"):
            self.named(qualified)

        def rebuild(*_):
            raise AssertionError("nothing is rebuilt while writing")

        rebuild.__module__, rebuild.__name__, rebuild.__qualname__ = (
            "torch._utils",
            *["_rebuild_tensor_v2"] * 2,
        )
        monkeypatch.setattr(
            self.package("torch._utils"), "_rebuild_tensor_v2", rebuild, raising=False
        )

    def package(self, name):
        for end in range(1, name.count(".") + 2):
            part = ".".join(name.split(".")[:end])
            if part not in sys.modules:
                self.monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        return sys.modules[name]

    def named(self, qualified):
        if qualified not in self.classes:
            module, _, name = qualified.rpartition(".")
            made = type(name, (), {"__module__": module, "forward_fuse": lambda _self, x: x})
            made.forward_fuse.__name__, made.forward_fuse.__qualname__ = (
                "forward_fuse",
                f"{name}.forward_fuse",
            )
            self.monkeypatch.setattr(self.package(module), name, made, raising=False)
            self.classes[qualified] = made
        return self.classes[qualified]

    def module(self, network):
        root = self.child("yolov6.models.yolo.Model")
        for name, array in network.state.items():
            *path, leaf = name.split(".")
            place = root
            for index, part in enumerate(path):
                if part not in place._modules:
                    place._modules[part] = self.child(
                        self.kind(network, ".".join(path[: index + 1]))
                    )
                place = place._modules[part]
            array = np.array(
                array, np.float16 if array.dtype.kind == "f" else array.dtype, order="C"
            )
            table = (
                place._parameters if leaf in ("weight", "bias", "alpha", "proj") else place._buffers
            )
            table[leaf] = _Tensor(array)
        self.bind(root)
        vars(root).update(network.attributes)
        return root

    def kind(self, network, name):
        if f"{name}.running_mean" in network.state:
            mmcv = ".high_IFM." in name or ".Inject_" in name
            return network.norm if mmcv else "torch.nn.modules.batchnorm.BatchNorm2d"
        return (
            "yolov6.layers.common.SimConv"
            if f"{name}.conv.weight" in network.state
            else "torch.nn.modules.conv.Conv2d"
            if f"{name}.weight" in network.state
            else "yolov6.layers.common.RepBlock"
        )

    def child(self, qualified):
        made = self.named(qualified)()
        vars(made).update(
            training=False,
            _parameters=OrderedDict(),
            _buffers=OrderedDict(),
            _modules=OrderedDict(),
            _non_persistent_buffers_set=set(),
        )
        return made

    def bind(self, module):
        for child in module._modules.values():
            self.bind(child)
        if "conv" in module._modules and "bn" not in module._modules:
            module.forward = module.forward_fuse

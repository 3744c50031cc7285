"""Build the original Gold-YOLO for ``verify``; runs in the user's own PyTorch, inside the user's
clone.

The original needs mmcv, addict and YAML; this file contains substitutes for the parts that its
network uses, in case they are not installed.
"""

import collections
import importlib.machinery
import importlib.util
import pickle
import runpy
import sys
import types

import torch

# The functions that rebuild tensors; anything else in a file becomes an ``_Inert`` object.
REBUILDERS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
}
REBUILDERS.update(
    {
        ("torch._utils", name): vars(torch._utils)[name]
        for name in ("_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_parameter_with_state")
        if name in vars(torch._utils)
    }
)


def build(settings):
    """Build the original's network without weights; ``settings`` holds model, num_classes and
    architecture (form).
    """
    if importlib.util.find_spec("mmcv") is None:
        _module(
            "mmcv",
            cnn=_module("mmcv.cnn", ConvModule=_ConvModule, build_norm_layer=_build_norm_layer),
        )
    if importlib.util.find_spec("yaml") is None:
        _module("yaml")
    if not hasattr(torch.onnx, "is_in_onnx_export"):
        torch.onnx.is_in_onnx_export = lambda: False
    from yolov6.models.yolo import build_model

    scale = settings["model"].rpartition("_")[2]
    config = runpy.run_path(f"configs/gold_yolo-{scale}.py")
    config = _attributes(
        {name: value for name, value in config.items() if not name.startswith("__")}
    )
    config.setdefault("training_mode", "repvgg")  # as the trainer does
    # as the README requires; the file of n has neither
    config.model.head.update(use_dfl=True, reg_max=16)
    form = settings["architecture"]["form"]
    return build_model(
        config,
        settings["num_classes"],
        torch.device("cpu"),
        fuse_ab=form == "fuse_ab",
        distill_ns=form == "distill",
    )


def load(model, settings):
    """Load ``model`` strictly from a state dict or a pickled network, whose classes are ignored."""
    inert = types.ModuleType("inert")
    inert.Unpickler, inert.load = _Unpickler, lambda file, **_: _Unpickler(file).load()
    content = torch.load(
        settings["weights"], map_location="cpu", weights_only=False, pickle_module=inert
    )
    content = content[settings["entry"]] if settings["entry"] else content
    state = dict(_tensors(content)) if isinstance(content, _Inert) else content
    with torch.no_grad():  # deployed weights need the deployed network
        if "neck.reduce_layer_c5.bn.weight" not in state:
            from yolov6.utils.torch_utils import fuse_model

            fuse_model(model)
        if any(".rbr_reparam." in name for name in state):
            from gold_yolo.switch_tool import switch_to_deploy

            switch_to_deploy(model)
    model.load_state_dict(
        {
            name: value.float() if value.is_floating_point() else value
            for name, value in state.items()
        },
        strict=True,
    )


def outputs(result):
    """Return the network's result: boxes cxcywh, scores, and the sum of each row's scores."""
    rows = result[0]
    return {"boxes": rows[..., :4], "scores": rows[..., 5:], "score_sum": rows[..., 5:].sum(-1)}


class _Inert:
    """A stand-in for an object of a file: stores its state and does nothing."""

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, state):
        vars(self).update(state if isinstance(state, dict) else {})

    def __setitem__(self, _key, _value):
        pass

    def __call__(self, *_, **__):
        return self


class _Unpickler(pickle.Unpickler):
    """Rebuilds only tensors and containers."""

    def find_class(self, module, name):
        return REBUILDERS.get((module, name), _Inert)


def _tensors(module, prefix=""):
    """Yield (name, tensor) of the parameters and buffers of an inert module and its children."""
    content = vars(module)
    for kind in ("_parameters", "_buffers"):
        for name, value in content[kind].items():
            if value is not None:  # all buffers of the network are part of its state
                yield prefix + name, value
    for name, child in content["_modules"].items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.")


class _Attributes(dict):
    """A mapping whose keys are also attributes."""

    def __getattr__(self, name):
        if name in self:
            return self[name]
        raise AttributeError(name)


def _attributes(value):
    """Convert every mapping in ``value`` to ``_Attributes``."""
    if isinstance(value, dict):
        return _Attributes({key: _attributes(item) for key, item in value.items()})
    return [_attributes(item) for item in value] if isinstance(value, list) else value


def _module(name, **content):
    """Create and register a module with this name and content."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)  # so that a second build finds it
    vars(module).update(content)
    sys.modules[name] = module
    return module


class _SyncNorm(torch.nn.BatchNorm2d):
    """A synchronized batch norm on one process. Its class is not exactly ``BatchNorm2d``, so it
    keeps epsilon 1e-5.
    """


def _build_norm_layer(_config, channels):
    """Return (name, layer) of a norm; the original uses synchronized ones everywhere."""
    return "bn", _SyncNorm(channels)


class _ConvModule(torch.nn.Module):
    """Convolution without bias, norm, no activation."""

    def __init__(self, in_channels, out_channels, kernel_size, norm_cfg, act_cfg):
        super().__init__()
        if act_cfg is not None:
            raise ValueError(f"ConvModule: wanted no activation, got {act_cfg}")
        self.conv = torch.nn.Conv2d(in_channels, out_channels, kernel_size, bias=False)
        self.bn = _build_norm_layer(norm_cfg, out_channels)[1]

    def forward(self, x):
        return self.bn(self.conv(x))

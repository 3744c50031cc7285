"""Hooks that see what the layers of a network compute. They need ``mode.eager``."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.observe import watched_convolutions, watched_layers
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.observe import watched_convolutions, watched_layers

__all__ = ["watched_convolutions", "watched_layers"]

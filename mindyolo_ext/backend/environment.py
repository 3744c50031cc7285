"""The environment variables that the framework reads, for ``mindyolo-ext doctor``."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.environment import settings
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.environment import settings

__all__ = ["settings"]

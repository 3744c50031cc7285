"""Two optional ways to run the same network faster."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.tuning import compile_cells, use_channels_last
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.tuning import compile_cells, use_channels_last

__all__ = ["compile_cells", "use_channels_last"]

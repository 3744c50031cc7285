"""Constants of a graph that depend on the size of its input.

``in_any_size(computed)`` decorates a ``constexpr`` function whose arguments are sizes. ``computed``
gives the same with operators, of sizes that only the finished graph knows: an export takes it for a
file of any size, where the backend can write one.
"""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.sizes import in_any_size
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.sizes import in_any_size
elif BACKEND == "shapes":
    from mindyolo_ext.backend.on_shapes.sizes import in_any_size

__all__ = ["in_any_size"]

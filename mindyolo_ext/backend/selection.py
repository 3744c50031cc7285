"""Select matched predictions for a loss, if the framework supports varying numbers of them."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.selection import at_matches, to_matches
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.selection import at_matches, to_matches

__all__ = ["at_matches", "to_matches"]

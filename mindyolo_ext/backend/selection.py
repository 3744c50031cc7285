"""Losses of matched predictions alone, where the framework need not know their number before."""

from mindyolo_ext.backend.choice import BACKEND

if BACKEND == "mindspore":
    from mindyolo_ext.backend.on_mindspore.selection import at_matches, to_matches
elif BACKEND == "torch":
    from mindyolo_ext.backend.on_torch.selection import at_matches, to_matches

__all__ = ["at_matches", "to_matches"]

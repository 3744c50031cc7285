"""MindSpore's automatic mixed precision."""

from mindspore import amp

from mindyolo_ext.contracts import Model


def apply(model: Model, level: str) -> None:
    """Apply a level of mixed precision, ``O1`` to ``O3``, to ``model``; ``O0`` changes nothing.

    The network that MindSpore returns is not used, so only what it changes in place takes effect.
    """
    if level != "O0":
        amp.auto_mixed_precision(model, level)

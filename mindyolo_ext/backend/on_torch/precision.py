"""PyTorch's automatic mixed precision."""

from typing import Any

import torch

from mindyolo_ext.backend.on_torch.device import device
from mindyolo_ext.contracts import Model


def apply(model: Model, level: str) -> None:
    """Run the network of ``model`` in half precision for the levels ``O1`` to ``O3``, which PyTorch
    does not tell apart; ``O0`` changes nothing. Weights and outputs stay in float32.
    """
    if level == "O0":
        return
    plain = type(model).forward

    def forward(*inputs: Any) -> Any:
        with torch.autocast(device().type, torch.float16):
            outputs = plain(model, *inputs)
        return _in_float32(outputs)

    object.__setattr__(model, "forward", forward)


def _in_float32(outputs: Any) -> Any:
    """The outputs, or each part of them, as float32."""
    if isinstance(outputs, (tuple, list)):
        return tuple(_in_float32(output) for output in outputs)
    return outputs.float()

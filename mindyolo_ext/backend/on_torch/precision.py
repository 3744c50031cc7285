"""Half precision on PyTorch."""

import torch

from mindyolo_ext.backend.on_torch.device import device
from mindyolo_ext.errors import DeviceError

HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}
NORMS_READ = ("float16", "bfloat16")


def check(dtype: str) -> None:
    """Raises: DeviceError if the device does not support ``dtype``."""
    if dtype == "bfloat16" and device().type == "cuda" and not torch.cuda.is_bf16_supported():
        raise DeviceError(
            f"train.amp_dtype=bfloat16: {torch.cuda.get_device_name(device())} does not support it"
            "; use --amp_dtype float16"
        )

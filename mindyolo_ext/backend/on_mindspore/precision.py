"""Half precision on MindSpore."""

import mindspore as ms
from mindspore import bfloat16, float16

from mindyolo_ext.errors import DeviceError

HALF = {"float16": float16, "bfloat16": bfloat16}
NORMS_READ = ("float16",)  # its batch norm does not support bfloat16


def check(dtype: str) -> None:
    """Raises: DeviceError if the device has no convolution in ``dtype``."""
    device_target = ms.get_context("device_target")
    if dtype == "bfloat16" and device_target != "Ascend":
        raise DeviceError(
            f"train.amp_dtype=bfloat16: MindSpore supports it only on Ascend, not on "
            f"{device_target}; use --amp_dtype float16, or --backend torch"
        )

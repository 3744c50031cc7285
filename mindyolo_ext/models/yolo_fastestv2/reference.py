"""The outputs of Yolo-FastestV2 by the names of stored arrays and the original, for ``verify``."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mindyolo_ext.backend import Tensor
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.models.yolo_fastestv2.variants import STRIDES

HEADS = ("reg_s16", "obj_s16", "cls_s16", "reg_s32", "obj_s32", "cls_s32")


def outputs(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the network's outputs by the names that stored arrays and the original's hook use.

    Args:
        model: in inference mode.
        images: float32 (B, 3, H, W) in its input convention.
    """
    batch = Tensor(images)
    heads = model(batch)
    result = {name: head.asnumpy() for name, head in zip(HEADS, heads, strict=True)}
    result["decoded"] = model.decode(heads).asnumpy()
    for name, merged in zip(("deploy_s16", "deploy_s32"), model.to_deploy()(batch), strict=True):
        result[name] = merged.asnumpy()
    return result


def case_input(arrays: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """Return (batch, height, width) of the input that stored arrays belong to.

    Raises: CheckpointError if they are not of this family.
    """
    if "eval_reg_s16" not in arrays:
        raise CheckpointError("yolo_fastestv2: the stored arrays have no eval_reg_s16")
    batch, _, height, width = arrays["eval_reg_s16"].shape
    return batch, height * STRIDES[0], width * STRIDES[0]

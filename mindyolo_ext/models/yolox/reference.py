"""The outputs of YOLOX by the names of stored arrays and the original, for ``verify``."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mindyolo_ext.backend import Tensor
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.models.yolox.variants import STRIDES


def outputs(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the network's outputs by the names that stored arrays and the original's hook use.

    Args:
        model: in inference mode.
        images: float32 (B, 3, H, W) in its input convention.
    """
    batch = Tensor(images)
    heads = model(batch)
    result = {
        f"raw_p{3 + level}": np.concatenate(
            [head.asnumpy() for head in heads[3 * level : 3 * level + 3]], 1
        )
        for level in range(len(STRIDES))
    }
    result["decoded"] = model.decode(heads).asnumpy()
    result["boxes"], result["probabilities"] = (
        result["decoded"][..., :4],
        result["decoded"][..., 4:],
    )
    # as the stored arrays
    result["deploy_decoded"] = model.to_deploy().decoded(batch).asnumpy()[:, ::4]
    return result


def case_input(arrays: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """Return (batch, height, width) of the input that stored arrays belong to.

    Raises: CheckpointError if they are not of this family.
    """
    if "eval_raw_p3" not in arrays:
        raise CheckpointError("yolox: the stored arrays have no eval_raw_p3")
    batch, _, height, width = arrays["eval_raw_p3"].shape
    return batch, height * STRIDES[0], width * STRIDES[0]

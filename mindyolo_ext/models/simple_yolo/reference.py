"""The outputs of the simple YOLO by the names of stored arrays and the original, for ``verify``."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mindyolo_ext.backend import Tensor
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.models.simple_yolo.variants import STRIDES


def outputs(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the network's outputs by the names that stored arrays and the original's hook use.

    Args:
        model: in inference mode.
        images: float32 (B, 3, H, W) in its input convention.
    """
    heads = model(Tensor(images))
    result = {}
    for level, head in enumerate(heads):
        batch, _, height, width = head.shape
        split = head.asnumpy().reshape(batch, model.anchors_per_level, -1, height, width)
        result[f"l{level}"] = split.transpose(0, 1, 3, 4, 2)  # (B, a, H, W, 5 + K)
    rows = model.decode(heads).asnumpy()
    return {
        **result,
        "decoded": rows,
        "boxes": rows[..., 1:5],
        "probabilities": np.concatenate([rows[..., :1], rows[..., 5:]], -1),
    }


def case_input(arrays: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """Return (batch, height, width) of the input that stored arrays belong to.

    Raises: CheckpointError if they are not of this family.
    """
    if "eval_l0" not in arrays:
        raise CheckpointError("simple_yolo: the stored arrays have no eval_l0")
    batch, _, height, width, _ = arrays["eval_l0"].shape
    return batch, height * STRIDES[0], width * STRIDES[0]

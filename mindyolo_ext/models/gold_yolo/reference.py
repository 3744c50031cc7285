"""The outputs of Gold-YOLO by the names of stored arrays and the original, for ``verify``."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mindyolo_ext.backend import Tensor
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.models.gold_yolo.variants import STRIDES

THINNING = 7  # of the rows of ``pred`` in stored arrays


def outputs(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the network's outputs by the names that stored arrays and the original's hook use.

    Args:
        model: in inference mode.
        images: float32 (B, 3, H, W) in its input convention.
    """
    batch = Tensor(images)
    heads = model(batch)
    rows = model.decode(heads).asnumpy()
    result = {
        "boxes": rows[..., :4],
        "scores": rows[..., 5:],
        "pred": rows[:, ::THINNING],
        "score_sum": rows[..., 5:].sum(-1),
    }
    per_level = len(heads) // len(STRIDES)
    kinds = ("cls", "reg", "lrtb") if model.form == "distill" else ("cls", "reg")
    for level in range(len(STRIDES)):
        for kind, head in zip(kinds, heads[per_level * level :], strict=False):
            result[f"{kind}_p{3 + level}"] = head.asnumpy()
    rows = model.to_deploy()(batch).asnumpy()
    return {**result, "deploy_boxes": rows[..., :4], "deploy_pred": rows[:, ::THINNING]}


def case_input(arrays: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """Return (batch, height, width) of the input that stored arrays belong to.

    Raises: CheckpointError if they are not of this family.
    """
    if "eval_boxes" not in arrays:
        raise CheckpointError("gold_yolo: the stored arrays have no eval_boxes")
    batch, rows, _ = arrays["eval_boxes"].shape
    # of a square of the largest stride
    cells = sum((STRIDES[-1] // stride) ** 2 for stride in STRIDES)
    side = round((rows / cells) ** 0.5)
    if cells * side**2 != rows:
        raise CheckpointError(f"gold_yolo: eval_boxes has {rows} rows, which no square image gives")
    return batch, STRIDES[-1] * side, STRIDES[-1] * side

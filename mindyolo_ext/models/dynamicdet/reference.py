"""The outputs of DynamicDet by the names of stored arrays and the original, for ``verify``."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mindyolo_ext.backend import Tensor
from mindyolo_ext.errors import CheckpointError
from mindyolo_ext.models.dynamicdet.variants import ANCHORS_PER_LEVEL

FINEST_STRIDE = 8
THINNING = 13  # of flattened stored arrays


def outputs(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the network's outputs by the names that stored arrays and the original's hook use.

    Args:
        model: in inference mode.
        images: float32 (B, 3, H, W) in its input convention.
    """
    batch = Tensor(images)
    result = _exits(model, batch)
    deployed = _exits(model.to_deploy().network, batch)
    result.update(
        {f"deploy_{name}": array for name, array in deployed.items() if "_raw_" not in name}
    )
    return result


def case_input(arrays: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """Return (batch, height, width) of the input that stored arrays belong to.

    Raises: CheckpointError if they are not of this family.
    """
    if not {"eval_score", "eval_hard_decoded_s13"} <= set(arrays):
        raise CheckpointError(
            "dynamicdet: the stored arrays have no eval_score and eval_hard_decoded_s13"
        )
    batch, kept = len(arrays["eval_score"]), arrays["eval_hard_decoded_s13"].size
    for levels in (3, 4):  # square images, 80 classes
        coarsest = FINEST_STRIDE * 2 ** (levels - 1)
        # of an image of that side
        rows = ANCHORS_PER_LEVEL * sum(4**level for level in range(levels))
        side = round((kept * THINNING / (batch * rows * 85)) ** 0.5)
        if -(-batch * rows * 85 * side**2 // THINNING) == kept:
            return batch, coarsest * side, coarsest * side
    raise CheckpointError(
        f"dynamicdet: eval_hard_decoded_s13 has {kept} numbers, which {batch} square images do "
        "not give"
    )


def _exits(network: Any, batch: Any) -> dict[str, np.ndarray]:
    """Compute score and both exits of a training or deploy network, by the names of stored arrays
    and the original's hook.
    """
    easiness, features = network.glance(batch)
    result = {"score": easiness.asnumpy().reshape(-1, 1)} if network.has_router else {}
    for name, heads in (
        ("easy", network.first_heads(features)),
        ("hard", network.second_heads(batch, features)),
    ):
        decoded = network.decoded(heads).asnumpy()
        result[f"{name}_boxes"], result[f"{name}_probabilities"] = (
            decoded[..., :4],
            decoded[..., 4:],
        )
        result[f"{name}_decoded_s13"] = decoded.reshape(-1)[::THINNING]
        for level, head in enumerate(heads):
            shape = (head.shape[0], ANCHORS_PER_LEVEL, -1, *head.shape[2:])
            raw = head.asnumpy().reshape(shape).transpose(0, 1, 3, 4, 2)  # (B, 3, h, w, 5 + K)
            last = level == len(heads) - 1
            result[f"{name}_raw_l{level}" + "_s13" * (not last)] = (
                raw if last else raw.reshape(-1)[::THINNING]
            )
    return result

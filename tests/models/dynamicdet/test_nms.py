"""NMS keeps the boxes of the original, which adds 4096 * class to coordinates in float32."""

import numpy as np
import pytest
from helpers import GoldenCase

from mindyolo_ext.evaluation.nms import NMSOptions, nms

FAMILY = "dynamicdet"


@pytest.fixture(scope="module")
def arrays(golden_case: GoldenCase) -> dict[str, np.ndarray]:
    stored = golden_case.arrays()
    if "post_hard_input" not in stored:
        assert "_size" in golden_case.path.stem  # a training step at another size
        pytest.skip(f"{golden_case} has no predictions")
    return stored


def detections(
    rows: np.ndarray, *, conf_thres: float, iou_thres: float, multi_label: bool
) -> np.ndarray:
    """Rows (m, 86) image, cx, cy, w, h, objectness, class scores -> (n, 7) in the order of the
    stored sets.
    """
    parts = []
    for image in (0, 1):
        own = rows[rows[:, 0] == image][:, 1:]
        boxes = np.concatenate([own[:, :2] - own[:, 2:4] / 2, own[:, :2] + own[:, 2:4] / 2], 1)
        kept = nms(
            boxes,
            own[:, 5:] * own[:, 4:5],
            NMSOptions(
                conf_thres=conf_thres,
                iou_thres=iou_thres,
                max_detections=300,
                multi_label=multi_label,
            ),
        )
        parts.append(np.concatenate([np.full((len(kept), 1), image, np.float32), kept], 1))
    found = np.concatenate(parts)
    return found[np.lexsort((found[:, 1], found[:, 6], -found[:, 5], found[:, 0]))]


def test_of_an_evaluation(arrays: dict[str, np.ndarray]) -> None:
    found = detections(
        arrays["post_hard_input"],
        conf_thres=float(arrays["post_hard_conf"][0]),
        iou_thres=0.65,
        multi_label=True,
    )
    assert found.shape == arrays["post_hard"].shape and len(found) > 50
    np.testing.assert_array_equal(found[:, [0, 6]], arrays["post_hard"][:, [0, 6]])
    np.testing.assert_allclose(found, arrays["post_hard"], rtol=1e-6)


def test_of_the_inference_tool(arrays: dict[str, np.ndarray]) -> None:
    """Boxes below the confidence of the stored rows are missing; they suppress nothing with a
    higher score.
    """
    confidence = max(float(arrays["post_hard_conf"][0]), float(arrays["detect_hard_conf"][0]))
    wanted = arrays["detect_hard"][arrays["detect_hard"][:, 5] > confidence]
    found = detections(
        arrays["post_hard_input"], conf_thres=confidence, iou_thres=0.45, multi_label=False
    )
    assert found.shape == wanted.shape and len(found) > 10
    np.testing.assert_array_equal(found[:, [0, 6]], wanted[:, [0, 6]])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)

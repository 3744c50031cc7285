"""Yolo-FastestV2's dense matches and its priors, against the assignment of the original and its
decoding.
"""

import numpy as np
import pytest
from helpers import padded_targets

from mindyolo_ext.backend import Tensor
from mindyolo_ext.engine.assign import MatchesAndBoxes
from mindyolo_ext.models.registry import create_model, create_trainable

FAMILY = "yolo_fastestv2"
pytestmark = pytest.mark.graph(when="all_cases")


@pytest.fixture(scope="module")
def found(golden_case):
    """Arrays of the case, rows (n, 6) of its boxes, matches (B, M, A) and the priors."""
    arrays = golden_case.arrays()
    batch, _, height, width = arrays["eval_reg_s16"].shape
    classes = arrays["eval_cls_s16"].shape[1]
    model = create_model("yolo_fastestv2", classes)
    rows = golden_case.boxes(batch, 6, classes)
    targets, mask = padded_targets(rows, batch, 8)
    images = np.zeros((batch, 3, 16 * height, 16 * width), np.float32)
    network = MatchesAndBoxes(create_trainable("yolo_fastestv2_loss", model))
    matches, boxes = network(Tensor(images), Tensor(targets), Tensor(mask))
    assert boxes.shape == (batch, matches.shape[2], 4)
    return arrays, targets, mask, matches.asnumpy(), model.priors(16 * height, 16 * width)


@pytest.mark.parametrize("level", [0, 1])
def test_matches_are_those_of_the_original(found, level):
    """Its lists hold image, anchor, row, column and the class of the box, sorted here."""
    arrays, targets, _, matches, priors = found
    stride, own = priors.strides[level], np.flatnonzero(priors.level == level)
    image, box, place = np.nonzero(matches[:, :, own])
    cells = np.stack([priors.y[own][place], priors.x[own][place]], 1) // stride
    got = np.concatenate(
        [np.stack([image, place % 3], 1), cells, targets[image, box, :1]], 1
    ).astype(int)
    prefix = f"assign_s{stride}"
    wanted = np.concatenate(
        [arrays[f"{prefix}_index"], arrays[f"{prefix}_class"][:, None]], 1
    ).astype(int)
    assert len(wanted) > 5
    np.testing.assert_array_equal(got[np.lexsort(got.T)], wanted[np.lexsort(wanted.T)])
    anchors = (
        np.stack([priors.width[own][place], priors.height[own][place]], 1)[np.lexsort(got.T)]
        / stride
    )
    np.testing.assert_allclose(
        anchors, arrays[f"{prefix}_anchor"][np.lexsort(wanted.T)], rtol=0, atol=1e-5
    )


def test_padding_matches_nothing_and_values_are_0_and_1(found):
    _, _, mask, matches, priors = found
    assert matches.shape == (*mask.shape, len(priors)) and set(np.unique(matches)) == {0.0, 1.0}
    assert (mask == 0).any() and not matches[mask == 0].any()


@pytest.mark.parametrize("anchors", [None, [[8, 9], [20, 21], [40, 41], [80, 81]]])
def test_priors_are_the_boxes_of_logits_that_are_zero(anchors):
    """A logit of 0 decodes to the middle of the cell and the size of the anchor."""
    model = create_model("yolo_fastestv2", 2, anchors=anchors)
    per_level = model.anchors_per_level
    heads = tuple(
        Tensor(np.zeros((1, channels, 64 // stride, 96 // stride), np.float32))
        for stride in model.strides
        for channels in (4 * per_level, per_level, 2)
    )
    decoded, priors = model.decode(heads).asnumpy()[0], model.priors(64, 96)
    assert len(priors) == len(decoded)
    np.testing.assert_allclose(
        np.stack([priors.x, priors.y, priors.width, priors.height], 1), decoded[:, :4], rtol=1e-6
    )

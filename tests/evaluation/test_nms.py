"""NMS against the stored detections of the original, against the plain greedy loop, and at its
edges.
"""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from mindyolo_ext.evaluation.nms import NMSOptions, batched_nms, nms

FAMILY = "yolo_fastestv2"
ANCHORS = {
    16: ((12.64, 19.39), (37.88, 51.48), (55.71, 138.31)),
    32: ((126.91, 78.23), (131.57, 214.55), (279.92, 258.87)),
}


def plain_nms(boxes, scores, options):
    """The rule written plainly: sort, keep the best, drop what it overlaps, repeat."""
    if options.multi_label:
        rows, classes = np.nonzero(scores > options.conf_thres)
    else:
        best = scores.argmax(axis=1)
        rows = np.flatnonzero(scores[np.arange(len(scores)), best] > options.conf_thres)
        classes = best[rows]
    confidence = scores[rows, classes]
    order = np.argsort(-confidence, kind="stable")[: options.max_candidates]
    boxes, classes, confidence = boxes[rows[order]], classes[order], confidence[order]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left, kept = np.arange(len(boxes)), []
    while len(left):
        top, rest = left[0], left[1:]
        kept.append(top)
        width = np.minimum(boxes[top, 2], boxes[rest, 2]) - np.maximum(
            boxes[top, 0], boxes[rest, 0]
        )
        height = np.minimum(boxes[top, 3], boxes[rest, 3]) - np.maximum(
            boxes[top, 1], boxes[rest, 1]
        )
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        with np.errstate(invalid="ignore"):
            iou = overlap / (area[top] + area[rest] - overlap)
        left = rest[
            ~(
                (iou > options.iou_thres)
                & (options.class_agnostic | (classes[rest] == classes[top]))
            )
        ]
    kept = np.array(kept[: options.max_detections], int)
    return np.concatenate(
        [boxes[kept], confidence[kept, None], classes[kept, None].astype(np.float32)], axis=1
    )


def scene(num_boxes, num_classes=80, *, seed=0, crowded=0.4):
    """Boxes and scores as a detector gives them: clusters of nearly equal boxes on 15 objects, and
    a background.
    """
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(0, 640, (num_boxes, 2)), rng.uniform(10, 200, (num_boxes, 2))
    object_centre, object_size = rng.uniform(0, 640, (15, 2)), rng.uniform(30, 250, (15, 2))
    object_class = rng.integers(0, num_classes, 15)
    near, which = np.flatnonzero(rng.random(num_boxes) < crowded), rng.integers(0, 15, num_boxes)
    centre[near] = object_centre[which[near]] + rng.normal(0, 6, (len(near), 2))
    size[near] = object_size[which[near]] * np.exp(rng.normal(0, 0.15, (len(near), 2)))
    logits = rng.normal(-7.5, 1.5, (num_boxes, num_classes))
    logits[near, object_class[which[near]]] += rng.uniform(0, 8, len(near))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    return boxes.astype(np.float32), (1 / (1 + np.exp(-logits))).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def decode(heads):
    """Raw heads of Yolo-FastestV2 at 352 -> boxes (A, 4), scores (A, K); ``heads[stride]`` =
    (reg, obj, cls).
    """
    boxes, scores = [], []
    for stride, (reg, obj, cls) in heads.items():
        height, width = reg.shape[1:]
        reg = sigmoid(reg.reshape(3, 4, height, width).transpose(2, 3, 0, 1))  # (H, W, 3, 4)
        rows, columns = np.mgrid[:height, :width]
        grid = np.stack([columns, rows], axis=-1)[:, :, None]
        centre, size = (
            (reg[..., :2] * 2 - 0.5 + grid) * stride,
            (reg[..., 2:] * 2) ** 2 * np.array(ANCHORS[stride]),
        )
        power = np.exp(cls - cls.max(axis=0))
        share = (power / power.sum(axis=0)).transpose(1, 2, 0)[:, :, None]  # (H, W, 1, K)
        scores.append((share * sigmoid(obj).transpose(1, 2, 0)[..., None]).reshape(-1, len(cls)))
        boxes.append(np.concatenate([centre - size / 2, centre + size / 2], axis=-1).reshape(-1, 4))
    return np.concatenate(boxes).astype(np.float32), np.concatenate(scores).astype(np.float32)


def assert_same_detections(got, wanted, box_tolerance=0.02):
    """Compare rows; the order among nearly equal scores is free, so both are sorted by class and
    place.
    """
    assert got.shape == wanted.shape
    partner = [int(np.abs(got - row).max(axis=1).argmin()) for row in wanted]
    assert sorted(partner) == list(range(len(got)))
    np.testing.assert_allclose(got[partner, :4], wanted[:, :4], rtol=0, atol=box_tolerance)
    np.testing.assert_allclose(got[partner, 4], wanted[:, 4], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(got[partner, 5], wanted[:, 5])


def test_detections_of_the_original(golden_case):
    arrays = golden_case.arrays()
    if not {"eval_decoded", "post_dets"} <= set(arrays):
        pytest.skip(f"{golden_case} holds no complete decode")
    decoded, wanted = arrays["eval_decoded"], arrays["post_dets"]
    half = decoded[..., 2:4] / 2
    boxes = np.concatenate([decoded[..., :2] - half, decoded[..., :2] + half], axis=2)
    got = batched_nms(
        boxes,
        decoded[..., 5:] * decoded[..., 4:5],
        NMSOptions(
            conf_thres=float(arrays["post_conf_thres"]), iou_thres=float(arrays["post_iou_thres"])
        ),
    )
    for image, detections in enumerate(got):
        assert_same_detections(detections, wanted[wanted[:, 0] == image, 1:])
    assert sum(map(len, got)) == len(wanted) > 0


def test_detections_of_the_published_weights(golden):
    arrays = golden.arrays("yolo_fastestv2/real_weights.npz")
    for index, name in enumerate(arrays["images"]):
        heads = {
            stride: [arrays[f"raw_{head}_s{stride}"][index] for head in ("reg", "obj", "cls")]
            for stride in (16, 32)
        }
        boxes, scores = decode(heads)
        for conf in ("0.3", "0.01", "0.001"):
            got = nms(boxes, scores, NMSOptions(conf_thres=float(conf), iou_thres=0.4))
            assert_same_detections(got, arrays[f"{str(name).split('.')[0]}_dets_conf{conf}"])


def test_detections_of_the_simple_yolo(golden):
    """As in the original's validation. The network's output is linear in the sides, so many boxes
    are inverted.
    """
    arrays = golden.arrays("simple_yolo/post_case.npz")
    decoded, wanted = arrays["eval_decoded"], arrays["post_dets"]
    half = decoded[..., 3:5] / 2
    boxes = np.concatenate([decoded[..., 1:3] - half, decoded[..., 1:3] + half], axis=2)
    cut = np.clip(boxes, 0, 192)  # as in the network
    scores = decoded[..., 5:] * decoded[..., :1]
    options = NMSOptions(
        conf_thres=float(arrays["post_conf_thres"]),
        iou_thres=float(arrays["post_iou_thres"]),
        max_detections=100,
    )
    got = batched_nms(cut, scores, options)
    late = batched_nms(boxes, scores, options)
    for image, (detections, cut_late) in enumerate(zip(got, late)):
        assert_same_detections(detections, wanted[wanted[:, 0] == image, 1:], box_tolerance=1e-4)
        assert 0.2 < (detections[:, 2:4] < detections[:, :2]).any(axis=1).mean() < 0.9
        assert not np.array_equal(cut_late[:, 4:], detections[:, 4:])  # other boxes are kept


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_plain_loop(seed, class_agnostic, multi_label):
    boxes, scores = scene(600, 6, seed=seed, crowded=0.7)
    scores = np.round(scores, 2)  # many ties
    boxes = np.round(boxes / 8) * 8  # many IoUs on the threshold, boxes without area
    boxes = boxes.astype(np.float32)
    for conf in (0.0, 0.01, 0.05):
        for limits in (
            {},
            {"max_detections": 7},
            {"max_detections": 10000},
            {"max_candidates": 100},
        ):
            options = NMSOptions(
                conf_thres=conf,
                iou_thres=0.5,
                multi_label=multi_label,
                class_agnostic=class_agnostic,
                **limits,
            )
            np.testing.assert_array_equal(
                nms(boxes, scores, options), plain_nms(boxes, scores, options)
            )


@pytest.mark.parametrize(
    ("num_boxes", "multi_label"), [(1815, False), (1815, True), (8400, False), (8400, True)]
)
def test_crowded_pictures_equal_the_plain_loop(num_boxes, multi_label):
    boxes, scores = scene(num_boxes)
    options = NMSOptions(conf_thres=0.001, iou_thres=0.6, multi_label=multi_label)
    np.testing.assert_array_equal(nms(boxes, scores, options), plain_nms(boxes, scores, options))


def test_by_hand():
    boxes = np.array(
        [[0, 0, 10, 10], [0, 0, 10, 5], [100, 0, 110, 10], [0, 0, 10, 5.1]], np.float32
    )
    scores = np.array([[0.9, 0.1], [0.8, 0.3], [0.2, 0.25], [0.7, 0.0]], np.float32)
    got = nms(boxes, scores, NMSOptions(conf_thres=0.25, iou_thres=0.5))
    # IoU 0.5 exactly stays, 0.51 goes, and a score equal to the threshold does not count.
    np.testing.assert_array_equal(
        got, np.array([[0, 0, 10, 10, 0.9, 0], [0, 0, 10, 5, 0.8, 0]], np.float32)
    )
    got = nms(boxes, scores, NMSOptions(conf_thres=0.2, iou_thres=0.5, multi_label=True))
    assert got[:, 5].tolist() == [0, 0, 1, 1] and got.dtype == np.float32
    assert got[:, 4].tolist() == pytest.approx([0.9, 0.8, 0.3, 0.25])
    assert (
        len(
            nms(
                boxes[:2],
                scores[:2],
                NMSOptions(conf_thres=0.2, iou_thres=0.4, multi_label=True, class_agnostic=True),
            )
        )
        == 1
    )


def test_a_score_equal_to_the_threshold_in_float32_does_not_count():
    for threshold in (0.1, 0.2, 0.3):  # float32(0.1) > 0.1 in float64
        assert (
            len(
                nms(
                    np.ones((1, 4)),
                    np.full((1, 1), threshold, np.float32),
                    NMSOptions(conf_thres=threshold, iou_thres=0.5),
                )
            )
            == 0
        )


@pytest.mark.parametrize("multi_label", [False, True])
def test_numbers_that_are_not_finite_are_dropped(multi_label):
    boxes, scores = scene(50, 3, crowded=0)
    scores += 0.1
    clean = NMSOptions(conf_thres=0.05, iou_thres=0.9, multi_label=multi_label)
    without = nms(boxes[4:], scores[4:], clean)
    for value in (np.nan, np.inf):
        dirty_boxes, dirty = boxes.copy(), scores.copy()
        dirty[:2] = value
        dirty_boxes[2, 1] = dirty_boxes[3, 3] = value
        np.testing.assert_array_equal(nms(dirty_boxes, dirty, clean), without)
        dirty = scores.copy()
        dirty[0, 0] = value  # the other classes of the box still count
        assert np.isfinite(nms(boxes, dirty, clean)).all()
        assert len(nms(boxes[:1], dirty[:1], clean)) == (2 if multi_label else 1)


def test_inverted_boxes_suppress_nothing_and_stay():
    boxes = np.array([[10, 0, 0, 10], [10, 0, 0, 10], [0, 0, 10, 10], [10, 10, 0, 0]], np.float32)
    scores = np.array([[0.9], [0.8], [0.7], [0.6]], np.float32)
    np.testing.assert_array_equal(
        nms(boxes, scores, NMSOptions(conf_thres=0.1, iou_thres=0.1))[:, :4], boxes
    )


def test_the_limit_counts_the_boxes_of_all_classes():
    boxes = np.arange(12, dtype=np.float32)[:, None] * 20 + np.array([0, 0, 10, 10], np.float32)
    scores = np.zeros((12, 2), np.float32)
    scores[np.arange(12), np.arange(12) % 2] = np.linspace(0.9, 0.3, 12)
    boxes[1] = boxes[0] + 1  # another class, so it is not suppressed
    boxes[2] = boxes[0] + 1  # suppressed before the limit counts
    got = nms(boxes, scores, NMSOptions(conf_thres=0.1, iou_thres=0.5, max_detections=5))
    np.testing.assert_array_equal(got[:, :4], boxes[[0, 1, 3, 4, 5]])
    assert got[:, 5].tolist() == [0, 1, 1, 0, 1]


def test_shuffling_the_boxes_shuffles_nothing():
    boxes, scores = scene(400, 5)
    order = np.random.default_rng(1).permutation(len(boxes))
    options = NMSOptions(conf_thres=0.001, iou_thres=0.5, multi_label=True)
    np.testing.assert_array_equal(
        nms(boxes, scores, options),
        nms(boxes[order], scores[order], options),
    )


def test_batches_and_nothing_to_find():
    boxes, scores = scene(100, 4)
    batch = batched_nms(
        np.stack([boxes, boxes]),
        np.stack([scores, scores * 0]),
        NMSOptions(conf_thres=0.01, iou_thres=0.5),
    )
    np.testing.assert_array_equal(
        batch[0], nms(boxes, scores, NMSOptions(conf_thres=0.01, iou_thres=0.5))
    )
    assert batch[1].shape == (0, 6) and batch[1].dtype == np.float32
    for multi_label in (False, True):
        empty = nms(
            np.zeros((0, 4)),
            np.zeros((0, 4)),
            NMSOptions(conf_thres=0.01, iou_thres=0.5, multi_label=multi_label),
        )
        assert empty.shape == (0, 6)
    assert (
        batched_nms(
            np.zeros((0, 9, 4)), np.zeros((0, 9, 2)), NMSOptions(conf_thres=0.01, iou_thres=0.5)
        )
        == []
    )


def test_wrong_input_is_refused():
    boxes, scores = scene(10, 4)
    with pytest.raises(ValueError, match=r"wanted boxes \(A, 4\)"):
        nms(boxes[:5], scores, NMSOptions(conf_thres=0.1, iou_thres=0.5))
    with pytest.raises(ValueError, match=r"wanted boxes \(B, A, 4\)"):
        batched_nms(boxes, scores, NMSOptions(conf_thres=0.1, iou_thres=0.5))
    for wrong in (
        {"conf_thres": -0.1},
        {"iou_thres": 1.5},
        {"conf_thres": float("nan")},
        {"max_detections": 0},
        {"max_candidates": 2.5},
    ):
        with pytest.raises(ValueError, match=f"NMSOptions: {next(iter(wrong))} must be"):
            NMSOptions(**wrong)


def test_options_are_frozen():
    boxes, scores = scene(100, 4)
    options = NMSOptions(0.05, 0.6, max_detections=3, multi_label=True)
    assert len(nms(boxes, scores, options)) == 3
    with pytest.raises(FrozenInstanceError):
        options.conf_thres = 0.5

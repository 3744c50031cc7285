"""VOC's average precision: against the devkit's rule written plainly, by hand, and at its edges."""

import math

import numpy as np
import pytest

from mindyolo_ext.evaluation.voc_map import evaluate_voc

NAMES = ["cat", "dog", "emu"]


def rows(*values, width):
    return np.array(values, np.float64).reshape(-1, width)


def plain_hits(detections, targets, difficult, label):
    """One class by the devkit's loop, pixels counted from 1: (outcome of each counted detection,
    number of objects).
    """
    waiting = sorted(
        (
            (-row[4], image, number, row[:4] + [1, 1, 0, 0])
            for image, its in enumerate(detections)
            for number, row in enumerate(its.astype(np.float64))
            if row[5] == label
        ),
        key=lambda d: d[:3],
    )
    taken, outcomes = set(), []
    for _, image, _, (x1, y1, x2, y2) in waiting:
        most, owner = -math.inf, None
        for number, (its_class, *corners) in enumerate(targets[image].astype(np.float64)):
            left, top, right, bottom = np.array(corners) + [1, 1, 0, 0]
            width, height = min(x2, right) - max(x1, left) + 1, min(y2, bottom) - max(y1, top) + 1
            if its_class != label or width <= 0 or height <= 0:
                continue
            union = (
                (x2 - x1 + 1) * (y2 - y1 + 1)
                + (right - left + 1) * (bottom - top + 1)
                - width * height
            )
            if width * height / union > most:
                most, owner = width * height / union, number
        if most < 0.5:
            outcomes.append(False)
        elif not difficult[image][owner]:
            outcomes.append((image, owner) not in taken)
            taken.add((image, owner))
    return outcomes, sum(int(((t[:, 0] == label) & ~d).sum()) for t, d in zip(targets, difficult))


def plain_scores(outcomes, count):
    """(11-point mean, area) with the recall levels and steps written out; count of objects above
    0.
    """
    curve = [(sum(outcomes[:n]), sum(outcomes[:n]) / n) for n in range(1, len(outcomes) + 1)]
    eleven = [
        max((p for true, p in curve if 10 * true >= level * count), default=0)
        for level in range(11)
    ]
    area = [
        max((p for true, p in curve if true >= step), default=0) for step in range(1, count + 1)
    ]
    return sum(eleven) / 11, sum(area) / count


def scene(seed, images=12):
    """Whole-pixel objects, detections around them with many equal scores, and images without
    either.
    """
    rng = np.random.default_rng(seed)
    detections, targets, difficult = [], [], []
    for image in range(images):
        n, m = (0 if image == 2 else rng.integers(1, 9)), (0 if image == 4 else rng.integers(1, 30))
        corner, size = rng.integers(0, 60, (n, 2)), rng.integers(4, 40, (n, 2))
        boxes = np.concatenate([rng.integers(0, 3, (n, 1)), corner, corner + size], axis=1)
        which = rng.integers(0, max(n, 1), m)
        near = boxes[which, 1:] if n else np.tile([5, 5, 20, 20], (m, 1))
        near = near + rng.integers(-4, 5, (m, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        labels = np.where(rng.random(m) < 0.8, boxes[which, 0] if n else 0, rng.integers(0, 3, m))
        scores = np.round(rng.random(m), 1)
        detections.append(np.concatenate([near, scores[:, None], labels[:, None]], axis=1))
        targets.append(boxes.astype(np.float64))
        difficult.append(rng.random(n) < 0.3)
    return detections, targets, difficult


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("with_difficult", [False, True])
def test_equals_the_plain_rule(seed, with_difficult):
    detections, targets, difficult = scene(seed)
    if not with_difficult:
        difficult = [np.zeros(len(t), bool) for t in targets]
    result = evaluate_voc(detections, targets, NAMES, difficult=difficult)
    wanted = []
    for label, found in enumerate(result.per_class):
        outcomes, count = plain_hits(detections, targets, difficult, label)
        assert (found.num_detections, found.num_ground_truth) == (len(outcomes), count)
        assert 0 < sum(outcomes) < len(outcomes)
        wanted.append(plain_scores(outcomes, count))
        assert (found.ap07, found.ap) == pytest.approx(wanted[-1], abs=1e-12)
    assert (result.ap07, result.ap) == pytest.approx(np.mean(wanted, axis=0), abs=1e-12)
    if not with_difficult:
        assert evaluate_voc(detections, targets, NAMES) == result


def test_both_rules_by_hand():
    targets = [rows([0, 0, 0, 10, 10], [0, 50, 0, 60, 10], [0, 100, 0, 110, 10], width=5)]
    found = rows([0, 0, 10, 10, 0.9, 0], [0, 0, 10, 10, 0.8, 0], [50, 0, 60, 10, 0.7, 0], width=6)
    # hit, the same again, hit; one of three missed
    result = evaluate_voc([found], targets, ["cat"])
    assert result.ap == pytest.approx((1 + 2 / 3) / 3)
    # recalls 0 to 0.3, then 0.4 to 0.6
    assert result.ap07 == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_a_recall_of_three_tenths_is_reached_by_three_of_ten():
    boxes = np.arange(10)[:, None] * 20 + np.array([0, 0, 10, 10])
    targets = np.concatenate([np.zeros((10, 1)), boxes], axis=1)
    found = np.concatenate([boxes, np.linspace(0.9, 0.1, 10)[:, None], np.zeros((10, 1))], axis=1)
    for n in range(11):
        assert evaluate_voc([found[:n]], [targets], ["cat"]).ap07 == pytest.approx(
            (n + 1) / 11 if n else 0
        )


def test_just_half_is_enough_and_the_last_pixel_is_counted_once():
    targets = [rows([0, 0, 0, 10, 10], width=5)]
    for bottom, hit in ((5, 1), (4.99, 0)):
        assert evaluate_voc([rows([0, 0, 10, bottom, 0.9, 0], width=6)], targets, ["cat"]).ap == hit
    low = rows([0, 0, 10, 7, 0.9, 0], width=6)
    assert evaluate_voc([low], targets, ["cat"], iou_thres=0.7).ap == 1
    assert evaluate_voc([low], targets, ["cat"], iou_thres=0.75).ap == 0


def test_a_detection_looks_at_one_object_only():
    """It is matched with the object it overlaps most, so it is a false positive, although a second
    object is close enough.
    """
    targets = [rows([0, 0, 0, 10, 10], [0, 0, 0, 10, 8], width=5)]
    found = rows([0, 0, 10, 10, 0.9, 0], [0, 0, 10, 9.5, 0.8, 0], width=6)
    assert evaluate_voc([found], targets, ["cat"]).ap == 0.5


def test_difficult_objects_are_neither_hits_nor_misses():
    targets = [rows([0, 0, 0, 10, 10], [0, 50, 0, 60, 10], width=5)]
    found = rows(
        [50, 0, 60, 10, 0.95, 0], [50, 0, 60, 10, 0.93, 0], [0, 0, 10, 10, 0.9, 0], width=6
    )
    result = evaluate_voc([found], targets, ["cat"], difficult=[np.array([False, True])])
    assert (result.ap, result.ap07) == (1, 1)
    cat = result.per_class[0]
    assert (cat.num_ground_truth, cat.num_difficult, cat.num_detections) == (1, 1, 1)
    assert evaluate_voc([found], targets, ["cat"]).ap == pytest.approx((1 + 2 / 3) / 2)
    alone = evaluate_voc([found], [targets[0][1:]], ["cat"], difficult=[np.array([True])])
    assert math.isnan(alone.ap) and alone.per_class[0].num_difficult == 1


def test_classes_images_and_scores():
    targets = [rows([0, 0, 0, 10, 10], width=5), rows([1, 0, 0, 10, 10], width=5)]
    found = [
        rows([0, 0, 10, 10, 0.2, 1], [0, 0, 10, 10, 0.3, 0], width=6),
        rows([0, 0, 10, 10, 0.9, 0], [0, 0, 10, 10, 0.9, 1], width=6),
    ]
    # boxes in the right place, but in the wrong image or class
    result = evaluate_voc(found, targets, NAMES)
    assert [c.ap for c in result.per_class[:2]] == [0.5, 1.0]
    assert math.isnan(result.per_class[2].ap) and result.ap == 0.75
    # as texts, because NaN equals nothing
    assert repr(evaluate_voc(found[::-1], targets[::-1], NAMES)) == repr(result)


def test_inverted_boxes_are_false_alarms():
    targets = [rows([0, 0, 0, 10, 10], width=5)]
    found = rows([10, 0, 0, 10, 0.9, 0], [10, 10, 0, 0, 0.8, 0], [0, 0, 10, 10, 0.7, 0], width=6)
    assert evaluate_voc([found], targets, ["cat"]).ap == pytest.approx(1 / 3)


def test_nothing_to_find_or_nothing_found():
    none, one = rows(width=6), rows([0, 0, 10, 10, 0.9, 0], width=6)
    missed = evaluate_voc([none], [rows([0, 0, 0, 10, 10], width=5)], ["cat"])
    assert (missed.ap, missed.ap07) == (0, 0)
    for found, truth in (([none], [rows(width=5)]), ([one], [rows(width=5)]), ([], [])):
        result = evaluate_voc(found, truth, ["cat"])
        assert math.isnan(result.ap) and math.isnan(result.ap07) and result.num_images == len(found)
        assert result.table().splitlines()[-1].split()[-2:] == ["-", "-"]
    assert "mean" in evaluate_voc([], [], []).table()


def test_the_table_names_classes_and_means():
    targets = [rows([0, 0, 0, 10, 10], [1, 30, 0, 40, 10], width=5)]
    text = evaluate_voc([rows([0, 0, 10, 10, 0.9, 0], width=6)], targets, NAMES).table()
    lines = [line.split() for line in text.splitlines()[2:]]
    assert lines == [
        ["cat", "1", "0", "1", "100.00", "100.00"],
        ["dog", "1", "0", "0", "0.00", "0.00"],
        ["emu", "0", "0", "0", "-", "-"],
        ["mean", "2", "0", "1", "50.00", "50.00"],
    ]


def test_wrong_input_is_refused():
    one, box = rows([0, 0, 10, 10, 0.9, 0], width=6), rows([0, 0, 0, 10, 10], width=5)
    with pytest.raises(ValueError, match="1 images of detections, 2 of targets"):
        evaluate_voc([one], [box, box], NAMES)
    with pytest.raises(ValueError, match="2 of difficult"):
        evaluate_voc([one], [box], NAMES, difficult=[np.zeros(1, bool)] * 2)
    with pytest.raises(ValueError, match=r"image 0: wanted targets \(n, 5\).*\(1, 5\) and \(2,\)"):
        evaluate_voc([one], [box], NAMES, difficult=[np.zeros(2, bool)])
    with pytest.raises(ValueError, match=r"image 0: wanted targets \(n, 5\)"):
        evaluate_voc([one], [one], NAMES)
    with pytest.raises(ValueError, match=r"classes 0..3, but 3 class names"):
        evaluate_voc([one], [rows([3, 0, 0, 1, 1], width=5)], NAMES)
    with pytest.raises(ValueError, match="image 1: wanted finite"):
        evaluate_voc([one, rows([0, 0, 1, 1, math.nan, 0], width=6)], [box, box], NAMES)
    with pytest.raises(ValueError, match="iou_thres must be above 0"):
        evaluate_voc([one], [box], NAMES, iou_thres=0.0)

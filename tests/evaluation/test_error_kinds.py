"""Kinds of errors: each one by hand, and invariants of any set."""

import numpy as np
import pytest

from mindyolo_ext.evaluation.coco_map import evaluate_coco
from mindyolo_ext.evaluation.error_kinds import KINDS, best_confidence, break_down


def objects(*rows, crowd=()):
    """Ground truth of one image from rows category, x, y, width, height."""
    return {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {
                "image_id": 1,
                "category_id": row[0],
                "bbox": list(row[1:]),
                "iscrowd": int(n in crowd),
            }
            for n, row in enumerate(rows)
        ],
    }


def detections(*rows):
    """Records from rows category, x, y, width, height, score."""
    return [
        {"image_id": 1, "category_id": row[0], "bbox": list(row[1:5]), "score": row[5]}
        for row in rows
    ]


CAT, DOG = (1, 0, 0, 100, 100), (2, 300, 300, 40, 100)
HITS = [(*CAT, 0.9), (*DOG, 0.8)]


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ((2, 0, 0, 100, 90, 0.99), "classification"),
        ((1, 0, 0, 100, 30, 0.99), "localization"),
        ((2, 0, 0, 100, 30, 0.99), "both"),
        ((1, 0, 0, 100, 90, 0.5), "duplicate"),
        ((1, 600, 0, 100, 100, 0.99), "background"),
    ],
)
def test_each_kind_by_hand(extra, kind):
    found = break_down(evaluate_coco(objects(CAT, DOG), detections(*HITS, extra)).matches)
    everything = dict.fromkeys((*KINDS, "missed"), 0)
    assert found.counts == {**everything, kind: 1} or found.confidence >= extra[5]
    costs = {name for name in KINDS if found.gains[name] > 1e-9}
    assert costs == (set() if kind == "duplicate" else {kind})  # the duplicate comes last


def test_missed_objects_and_mended_errors_by_hand():
    # the dog is found as a cat, the second cat not at all
    truth = objects(CAT, DOG, (1, 500, 0, 10, 10))
    found = break_down(evaluate_coco(truth, detections((*CAT, 0.9), (1, *DOG[1:], 0.8))).matches)
    assert found.ap50 == pytest.approx((51 / 101 + 0) / 2)
    # the cat's false positive is gone, and the dog is found
    assert found.gains["classification"] == pytest.approx(0.5)
    assert found.gains["missed"] == pytest.approx((1 - 51 / 101) / 2)
    assert found.gains["false positives"] == pytest.approx(0)
    # the best F1 is that of the first cat alone
    assert found.confidence == pytest.approx(0.8)
    assert (found.counts["classification"], found.counts["missed"]) == (0, 2)
    small, tall = found.buckets[0], found.buckets[3]
    assert (small.objects, small.found, small.errors["missed"]) == (1, 0, 1)
    assert (tall.objects, tall.found, tall.errors["missed"]) == (1, 0, 1)


def test_of_several_errors_about_an_object_the_best_is_mended():
    loose = [(1, 0, 0, 100, 30, 0.7), (1, 0, 0, 100, 40, 0.9)]
    found = break_down(evaluate_coco(objects(CAT), detections(*loose)).matches)
    assert found.ap50 == 0 and found.gains["localization"] == pytest.approx(1)
    assert found.gains["missed"] != found.gains["missed"] or found.gains["missed"] == 0


def test_crowds_are_neither_objects_nor_errors():
    truth = objects(CAT, (1, 200, 0, 400, 400), crowd=(1,))
    on_crowd = (1, 250, 50, 30, 30, 0.95)
    found = break_down(evaluate_coco(truth, detections((*CAT, 0.9), on_crowd)).matches)
    assert found.ap50 == pytest.approx(1) and not any(found.counts.values())
    assert sum(bucket.objects for bucket in found.buckets[:3]) == 1


@pytest.mark.parametrize("seed", range(4))
def test_on_random_sets(seed):
    rng = np.random.default_rng(seed)
    sides, corners = rng.uniform(5, 150, (30, 2)), rng.uniform(0, 400, (30, 2))
    truth = objects(*np.column_stack([rng.integers(1, 3, 30), corners, sides]).tolist())
    which = rng.integers(0, 30, 120)
    boxes = np.abs(np.concatenate([corners, sides], 1)[which] + rng.normal(0, 6, (120, 4)))
    labels = rng.integers(1, 3, 120)
    found = detections(*np.column_stack([labels, boxes, rng.random(120)]).tolist())
    for records in (found, []):
        result = evaluate_coco(truth, records)
        its = break_down(result.matches)
        assert its.ap50 == pytest.approx(result.ap50, abs=1e-12)
        assert min(its.gains[name] for name in KINDS) >= -0.02  # steps of the 101 recalls
        shown = [r for r in records if r["score"] > its.confidence]
        hits = sum(bucket.found for bucket in its.buckets[:3])
        assert sum(its.counts[name] for name in KINDS) == len(shown) - hits
        assert best_confidence(result.matches) == its.confidence
        assert its.table().count("\n") > 15

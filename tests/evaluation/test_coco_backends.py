"""Both programs for COCO's metrics, and our matches, against one run of pycocotools over
everything.
"""

import importlib.util
import logging

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mindyolo_ext.evaluation import coco_backends
from mindyolo_ext.evaluation.coco_map import evaluate_coco
from mindyolo_ext.evaluation.collect import CocoRecords

CLASSES = 5
HAS_FAST = importlib.util.find_spec("faster_coco_eval") is not None
BACKENDS = ["pycocotools", *(["faster_coco_eval"] if HAS_FAST else [])]

# faster-coco-eval sums in another order: up to 3e-17 measured, on numbers in 0..1
ROUNDING = {"pycocotools": {"rtol": 0, "atol": 0}, "faster_coco_eval": {"rtol": 0, "atol": 1e-15}}


def random_set(seed):
    """Ground truth and detections with crowds, explicit areas, a class without objects and one
    without detections, images without either, equal scores, inverted boxes, and more than 100 boxes
    of a class in an image.
    """
    rng, annotations, detections = np.random.default_rng(seed), [], []
    for image in range(12):
        count = int(rng.integers(0, 12)) if image else 0
        sides = np.exp(rng.uniform(1, 5.5, (count, 2)))
        corners = rng.uniform(0, 300, (count, 2))
        boxes, labels = np.concatenate([corners, corners + sides], 1), rng.integers(0, 4, count)
        for box, side, label in zip(boxes.tolist(), sides.tolist(), labels.tolist()):
            annotation = {"image_id": 100 - image, "category_id": 10 * label + 10}
            annotation |= {"bbox": [*box[:2], *side], "iscrowd": int(rng.random() < 0.15)}
            if rng.random() < 0.5:
                annotation["area"] = side[0] * side[1] * 0.4
            annotations.append(annotation)
        near = np.repeat(np.arange(count), rng.integers(0, 40 if image == 3 else 4, count))
        moved = boxes[near] + rng.normal(0, 0.1, (len(near), 4)) * np.tile(sides[near], 2)
        wrong = rng.random(len(near)) < 0.2
        labels = np.where(wrong, rng.choice([0, 1, 2, 4], len(near)), np.minimum(labels[near], 2))
        moved[::9] = moved[::9][:, [2, 1, 0, 3]]
        scores = np.round(rng.random(len(near)), 1)
        detections.append(np.column_stack([moved, scores, labels]).astype(np.float32))
    if seed == 0:
        detections = [np.zeros((0, 6), np.float32)] * len(detections)
    ids = [100 - image for image in range(12)]
    categories = [{"id": 10 * label + 10, "name": f"class {label}"} for label in range(CLASSES)]
    truth = {"images": [{"id": i} for i in ids], "annotations": annotations}
    return {**truth, "categories": categories}, CocoRecords(
        detections, ids, [10 * label + 10 for label in range(CLASSES)]
    )


def in_one_piece(truth, records):
    """Run pycocotools on everything at once, as in its documentation."""
    indices = []
    for rows in (truth["annotations"], records):
        index = COCO()
        entries = [
            {"area": r["bbox"][2] * r["bbox"][3], "iscrowd": 0, **r, "id": number}
            for number, r in enumerate(rows, 1)
        ]
        index.dataset = {**truth, "annotations": entries}
        index.createIndex()
        indices.append(index)
    whole = COCOeval(*indices, "bbox")
    whole.evaluate()
    whole.accumulate()
    whole.summarize()
    return whole


def matches_of(whole, position):
    """Scores and hits of a category at IoU 0.5 by pycocotools."""
    count = len(whole.params.imgIds)
    begin = position * len(whole.params.areaRng) * count
    found = [one for one in whole.evalImgs[begin : begin + count] if one is not None]
    scores = np.concatenate([np.zeros(0), *(one["dtScores"] for one in found)])
    hits = np.concatenate([np.zeros(0, bool), *(one["dtMatches"][0] > 0 for one in found)])
    ignored = np.concatenate([np.zeros(0, bool), *(one["dtIgnore"][0] > 0 for one in found)])
    order = np.argsort(-scores[~ignored], kind="stable")
    return scores[~ignored][order], hits[~ignored][order]


@pytest.mark.parametrize("together", [1, 60, 10**6])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_number_is_that_of_pycocotools_in_one_piece(backend, seed, together, monkeypatch):
    monkeypatch.setattr(coco_backends, "_TOGETHER", together)
    truth, records = random_set(seed)
    wanted = in_one_piece(truth, records)
    found = evaluate_coco(truth, records, backend=backend)
    np.testing.assert_allclose(list(found.stats.values()), wanted.stats, **ROUNDING[backend])
    precision = wanted.eval["precision"][:, :, :, 0, -1]
    np.testing.assert_allclose(found.precision50, precision[0], **ROUNDING[backend])
    for position, its in enumerate(found.per_class):
        curves = precision[:, :, position]
        ap = [curves.mean(), curves[0].mean()] if (curves > -1).any() else [np.nan, np.nan]
        np.testing.assert_allclose([its.ap, its.ap50], ap, **ROUNDING[backend])
        scores, hits = matches_of(wanted, position)
        np.testing.assert_array_equal(found.scores50[position], scores)
        np.testing.assert_array_equal(found.hits50[position], hits)
    assert seed == 0 or 0.05 < found.ap < 0.95


def test_arrays_and_records_are_the_same_detections():
    truth, records = random_set(3)
    arrays, dictionaries = (evaluate_coco(truth, its) for its in (records, list(records)))
    assert arrays.stats == dictionaries.stats
    assert arrays.class_table() == dictionaries.class_table()
    part = [truth["images"][number]["id"] for number in (3, 4)]
    some, same = (evaluate_coco(truth, d, image_ids=part) for d in (records, list(records)))
    assert some.stats == same.stats and some.num_detections == same.num_detections > 0


def test_auto_takes_the_quick_package_or_says_in_a_line_that_it_cannot(monkeypatch, caplog):
    monkeypatch.setattr(coco_backends, "_is_installed", lambda _name: True)
    with caplog.at_level(logging.INFO, "mindyolo_ext"):
        coco_backends.check_backend("auto")
        assert coco_backends.chosen_backend("auto") == "faster_coco_eval" and not caplog.messages
        monkeypatch.setattr(coco_backends, "_is_installed", lambda name: name == "pycocotools")
        coco_backends.check_backend("auto")
        assert coco_backends.chosen_backend("auto") == "pycocotools"
        coco_backends.check_backend("pycocotools")
    assert len(caplog.messages) == 1 and "pip install faster-coco-eval" in caplog.text


def test_the_best_confidence_is_a_threshold_that_gives_its_numbers():
    truth, records = random_set(2)
    its = evaluate_coco(truth, records).per_class[0]
    kept = [r for r in records if r["score"] > its.confidence]
    again = evaluate_coco(truth, kept)
    hits, count = again.hits50[0], its.num_ground_truth
    assert 0 < its.f1 < 1 and hits.sum() / len(hits) == pytest.approx(its.precision)
    assert hits.sum() / count == pytest.approx(its.recall)
    assert 2 * hits.sum() / (len(hits) + count) == pytest.approx(its.f1)

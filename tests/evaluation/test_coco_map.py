"""COCO metrics: computed by hand, at the edges, and against stored numbers of a real data set;
files of detections.
"""

import copy
import importlib.util
import json
import logging
import math
import os

import numpy as np
import pytest

from mindyolo_ext.evaluation.coco_map import (
    STAT_NAMES,
    evaluate_coco,
    read_detections,
    write_detections,
)

needs_fast = pytest.mark.skipif(
    importlib.util.find_spec("faster_coco_eval") is None, reason="faster-coco-eval is not installed"
)
BACKENDS = ["pycocotools", pytest.param("faster_coco_eval", marks=needs_fast)]
ORIGINAL_NAMES = {
    "AP": "map",
    "AP50": "map_50",
    "AP75": "map_75",
    "AP_small": "map_small",
    "AP_medium": "map_medium",
    "AP_large": "map_large",
    "AR1": "mar_1",
    "AR10": "mar_10",
    "AR100": "mar_100",
    "AR_small": "mar_small",
    "AR_medium": "mar_medium",
    "AR_large": "mar_large",
}


def truth(image_ids=(1, 2)):
    return {
        "images": [{"id": i, "width": 640, "height": 480} for i in image_ids],
        "categories": [
            {"id": 3, "name": "cat"},
            {"id": 7, "name": "dog"},
            {"id": 9, "name": "emu"},
        ],
        "annotations": [
            {"id": 0, "image_id": image_ids[0], "category_id": 3, "bbox": [10, 10, 100, 100]},
            {"id": 1, "image_id": image_ids[0], "category_id": 7, "bbox": [200, 200, 20, 20]},
            {
                "id": 2,
                "image_id": image_ids[1],
                "category_id": 7,
                "bbox": [50, 50, 50, 50],
                "area": 2500,
                "iscrowd": 0,
            },
            {
                "id": 3,
                "image_id": image_ids[1],
                "category_id": 3,
                "bbox": [0, 0, 640, 480],
                "iscrowd": 1,
            },
        ],
    }


def perfect(ground_truth):
    return [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": list(a["bbox"]),
            "score": 0.9,
        }
        for a in ground_truth["annotations"]
        if not a.get("iscrowd")
    ]


@pytest.mark.parametrize("image_ids", [(1, 2), ("left", "right")])
def test_perfect_detections_score_one(image_ids):
    ground_truth = truth(image_ids)
    found = perfect(ground_truth)
    before = copy.deepcopy((ground_truth, found))
    result = evaluate_coco(ground_truth, found)
    assert (ground_truth, found) == before  # the arguments stay unchanged
    assert list(result.stats) == list(STAT_NAMES)
    assert result.ap == pytest.approx(1) and result.ap50 == pytest.approx(1)
    assert (result.num_images, result.num_detections, result.num_ground_truth) == (2, 3, 3)
    assert [(c.name, c.num_ground_truth, c.num_detections) for c in result.per_class] == [
        ("cat", 1, 1),
        ("dog", 2, 2),
        ("emu", 0, 0),
    ]
    assert math.isnan(result.per_class[2].ap)
    assert result.precision50.shape == (len(result.recall), 3)


def test_misses_and_false_alarms_by_hand():
    ground_truth = truth()
    found = perfect(ground_truth)[:2]  # misses one of two dogs
    # inside the crowd
    found.append({"image_id": 2, "category_id": 3, "bbox": [300, 300, 50, 50], "score": 0.95})
    # no dog there
    found.append({"image_id": 1, "category_id": 7, "bbox": [400, 10, 30, 30], "score": 0.99})
    result = evaluate_coco(ground_truth, found)
    cat, dog, _ = result.per_class
    assert cat.ap50 == pytest.approx(1)  # a hit on a crowd region is ignored
    assert dog.ap50 == pytest.approx(0.5 * 51 / 101)  # precision 1/2 up to recall 1/2
    assert result.ap50 == pytest.approx((cat.ap50 + dog.ap50) / 2)
    assert result.stats["AR100"] == pytest.approx(0.75)


def test_no_detections_give_zeros():
    result = evaluate_coco(truth(), [])
    assert result.ap == 0 and result.ap50 == 0 and result.stats["AR100"] == 0
    assert "0 detections" in result.table()
    assert [c.ap for c in result.per_class[:2]] == [0, 0]


def test_a_ground_truth_without_boxes_has_no_score():
    result = evaluate_coco({**truth(), "annotations": []}, [])
    assert set(result.stats.values()) == {-1.0}
    assert "-" in result.table() and "-" in result.class_table()


def test_part_of_the_images():
    ground_truth = truth()
    result = evaluate_coco(ground_truth, perfect(ground_truth), image_ids=[2])
    assert (result.num_images, result.num_detections, result.num_ground_truth) == (1, 1, 1)
    assert result.ap == pytest.approx(1)
    with pytest.raises(ValueError, match=r"image_ids: \[5\] not in the ground truth"):
        evaluate_coco(ground_truth, [], image_ids=[5])


def test_order_of_detections_does_not_matter():
    ground_truth = truth()
    found = perfect(ground_truth)
    found += [
        {**r, "bbox": [r["bbox"][0] + 9, *r["bbox"][1:]], "score": 0.95 - i / 10}
        for i, r in enumerate(found)
    ]
    assert (
        evaluate_coco(ground_truth, found).stats == evaluate_coco(ground_truth, found[::-1]).stats
    )


def test_tables_and_silence(capsys, caplog):
    with caplog.at_level(logging.DEBUG, "mindyolo_ext"):
        result = evaluate_coco(truth(), perfect(truth()))
    assert capsys.readouterr().out == ""
    assert "Average Precision" in caplog.text
    assert "AP50" in result.table() and "100.00" in result.table()
    assert [line.split()[0] for line in result.class_table().splitlines()[2:]] == [
        "cat",
        "dog",
        "emu",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 8}, "detection 1: image_id 8 is not in the ground truth"),
        ({"image_id": "1"}, "detection 1: image_id '1' is not"),
        ({"category_id": 4}, "detection 1: category_id 4 is not"),
        ({"score": float("nan")}, "detection 1: wanted four finite"),
        ({"bbox": [1, 2, 3]}, "detection 1: wanted four finite"),
    ],
)
def test_wrong_records_are_refused(change, message):
    found = perfect(truth())
    found[1].update(change)
    with pytest.raises(ValueError, match=message):
        evaluate_coco(truth(), found)


def test_wrong_ground_truth_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        evaluate_coco(tmp_path / "no.json", [])
    (tmp_path / "part.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(ValueError, match=r"part.json: no section \['categories'\]"):
        evaluate_coco(tmp_path / "part.json", [])
    with pytest.raises(ValueError, match=r"no \['score'\]"):
        evaluate_coco(truth(), [{"image_id": 1, "category_id": 3, "bbox": [1, 1, 1, 1]}])


def test_detections_go_through_a_file(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(truth()))
    path = tmp_path / "new" / "detections.json"
    write_detections(path, perfect(truth()))
    assert read_detections(path) == perfect(truth())
    assert evaluate_coco(tmp_path / "truth.json", read_detections(path)).ap == pytest.approx(1)
    assert os.listdir(path.parent) == ["detections.json"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "detections.json"
    write_detections(path, perfect(truth()))
    with pytest.raises(ValueError):
        write_detections(path, [{**perfect(truth())[0], "score": float("nan")}])

    def fail(_descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_detections(path, [])
    assert read_detections(path) == perfect(truth())
    assert os.listdir(tmp_path) == ["detections.json"]


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(truth()))
    with pytest.raises(ValueError, match="wanted a list of detections, got dict"):
        read_detections(path)
    path.write_text(json.dumps([{"image_id": 1}]))
    with pytest.raises(ValueError, match="record 0: wanted the keys"):
        read_detections(path)


def test_matches_tell_hits_from_false_alarms():
    found = perfect(truth())
    found[1]["score"], found[2]["score"] = 0.4, 0.8  # the two dogs
    # no dog there
    found.append({"image_id": 1, "category_id": 7, "bbox": [400, 10, 30, 30], "score": 0.6})
    # inside the crowd
    found.append({"image_id": 2, "category_id": 3, "bbox": [300, 300, 50, 50], "score": 0.95})
    result = evaluate_coco(truth(), found)
    assert [s.tolist() for s in result.scores50] == [[0.9], [0.8, 0.6, 0.4], []]
    assert [h.tolist() for h in result.hits50] == [[True], [True, False, True], []]


def coco_case(targets, detections, images):
    """Ground truth of rows image, class, x1, y1, x2, y2, crowd; records of rows image, x1, y1,
    x2, y2, score, class.
    """
    annotations = [
        {
            "image_id": int(image),
            "category_id": int(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "iscrowd": int(crowd),
        }
        for image, label, x1, y1, x2, y2, crowd in targets.tolist()
    ]
    found = [
        {
            "image_id": int(image),
            "category_id": int(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for image, x1, y1, x2, y2, score, label in detections.tolist()
    ]
    categories = [{"id": int(k), "name": f"class {k:g}"} for k in np.unique(targets[:, 1])]
    return {
        "images": [{"id": i} for i in range(images)],
        "categories": categories,
        "annotations": annotations,
    }, found


@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_of_the_simple_yolo_metric(golden, backend):
    arrays = golden.arrays("simple_yolo/metric_case.npz")
    targets = np.pad(arrays["targets"], ((0, 0), (0, 1)))  # no crowds
    result = evaluate_coco(
        *coco_case(targets, arrays["detections"], int(arrays["num_images"])), backend=backend
    )
    assert set(result.stats) == set(ORIGINAL_NAMES)
    for name, original in ORIGINAL_NAMES.items():
        assert result.stats[name] == pytest.approx(float(arrays[original]), abs=1e-6), name
    assert [c.category_id for c in result.per_class] == arrays["classes"].tolist()
    np.testing.assert_allclose([c.ap for c in result.per_class], arrays["map_per_class"], atol=1e-6)


@needs_fast
@pytest.mark.parametrize(("seed", "per_image"), [(0, 150), (1, 150), (2, 700)])
def test_both_backends_agree_where_it_is_crowded(seed, per_image):
    """Overlapping objects of all sizes, crowd regions, equal scores, inverted boxes, more than 100
    of a class.
    """
    rng, targets, detections = np.random.default_rng(seed), [], []
    for image in range(4):
        centre, size = rng.uniform(0, 300, (25, 2)), np.exp(rng.uniform(1.5, 5.3, (25, 2)))
        label, boxes = (
            rng.integers(0, 3, 25),
            np.concatenate([centre - size / 2, centre + size / 2], axis=1),
        )
        crowd = rng.random(25) < 0.1
        targets.append(np.column_stack([np.full(25, image), label, boxes, crowd]))
        which = rng.integers(0, 25, per_image)
        near = boxes[which] + rng.normal(0, 0.12, (per_image, 4)) * np.tile(size[which], 2)
        near[::20] = near[::20][:, [2, 1, 0, 3]]
        detections.append(
            np.column_stack(
                [np.full(per_image, image), near, np.round(rng.random(per_image), 2), label[which]]
            )
        )
    case = coco_case(np.concatenate(targets), np.concatenate(detections), 4)
    plain, fast = evaluate_coco(*case), evaluate_coco(*case, backend="faster_coco_eval")
    assert 0.1 < plain.ap < 0.9
    assert fast.stats == pytest.approx(plain.stats, abs=1e-6)
    np.testing.assert_allclose(
        [(c.ap, c.ap50) for c in fast.per_class],
        [(c.ap, c.ap50) for c in plain.per_class],
        atol=1e-6,
    )
    np.testing.assert_allclose(fast.precision50, plain.precision50, atol=1e-6)
    for ours, theirs in zip([*fast.scores50, *fast.hits50], [*plain.scores50, *plain.hits50]):
        np.testing.assert_array_equal(ours, theirs)


@needs_fast
@pytest.mark.parametrize("image_ids", [(1, 2), ("left", "right")])
def test_the_fast_backend_at_the_edges(image_ids, capsys):
    ground_truth = truth(image_ids)
    for found in ([], perfect(ground_truth)):
        for gt in (ground_truth, {**ground_truth, "annotations": []}):
            for wanted in (None, [image_ids[1]]):
                plain = evaluate_coco(gt, found, image_ids=wanted)
                fast = evaluate_coco(gt, found, image_ids=wanted, backend="faster_coco_eval")
                assert fast.stats == pytest.approx(plain.stats) and fast.table() == plain.table()
                assert fast.class_table() == plain.class_table()
    assert capsys.readouterr().out == ""


def test_a_backend_that_is_not_there_is_told(monkeypatch):
    with pytest.raises(
        ValueError, match="backend must be one of auto, faster_coco_eval, pycocotools, got 'fast'"
    ):
        evaluate_coco(truth(), [], backend="fast")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(
        RuntimeError, match="faster_coco_eval is not installed; run `pip install faster-coco-eval`"
    ):
        evaluate_coco(truth(), [], backend="faster_coco_eval")


def test_100_detections_count_per_image_and_class():
    def found(label, wrong):
        """So many detections in the wrong place, then one in the right one."""
        boxes = [[300, 300, 20, 20]] * wrong + [[10, 10, 100, 100]]
        return [
            {"image_id": 1, "category_id": label, "bbox": box, "score": 0.9 - 0.001 * n}
            for n, box in enumerate(boxes)
        ]

    ground_truth = {
        **truth(),
        "annotations": [
            {"image_id": 1, "category_id": label, "bbox": [10, 10, 100, 100]} for label in (3, 7)
        ],
    }
    both = evaluate_coco(ground_truth, found(3, 99) + found(7, 99))
    assert [c.ap50 for c in both.per_class[:2]] == pytest.approx([0.01, 0.01])
    late = evaluate_coco(ground_truth, found(3, 99) + found(7, 100))
    assert [c.ap50 for c in late.per_class[:2]] == pytest.approx([0.01, 0])
    assert late.num_detections == 201 and list(map(len, late.scores50)) == [100, 100, 0]

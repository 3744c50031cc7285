"""COCO metrics: by hand, at the edges, against stored numbers of a real data set; files of detections."""
import copy
import json
import logging
import math
import os

import pytest

from mindyolo_ext.evaluation.coco_map import STAT_NAMES, evaluate_coco, read_detections, write_detections


def truth(image_ids=(1, 2)):
    return {"images": [{"id": i, "width": 640, "height": 480} for i in image_ids],
            "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "emu"}],
            "annotations": [
                {"id": 0, "image_id": image_ids[0], "category_id": 3, "bbox": [10, 10, 100, 100]},
                {"id": 1, "image_id": image_ids[0], "category_id": 7, "bbox": [200, 200, 20, 20]},
                {"id": 2, "image_id": image_ids[1], "category_id": 7, "bbox": [50, 50, 50, 50], "area": 2500,
                 "iscrowd": 0},
                {"id": 3, "image_id": image_ids[1], "category_id": 3, "bbox": [0, 0, 640, 480], "iscrowd": 1}]}


def perfect(ground_truth):
    return [{"image_id": a["image_id"], "category_id": a["category_id"], "bbox": list(a["bbox"]), "score": 0.9}
            for a in ground_truth["annotations"] if not a.get("iscrowd")]


@pytest.mark.parametrize("image_ids", [(1, 2), ("left", "right")])
def test_perfect_detections_score_one(image_ids):
    ground_truth = truth(image_ids)
    found = perfect(ground_truth)
    before = copy.deepcopy((ground_truth, found))
    result = evaluate_coco(ground_truth, found)
    assert (ground_truth, found) == before                       # the arguments stay as they were
    assert list(result.stats) == list(STAT_NAMES)
    assert result.ap == pytest.approx(1) and result.ap50 == pytest.approx(1)
    assert (result.num_images, result.num_detections, result.num_ground_truth) == (2, 3, 3)
    assert [(c.name, c.num_ground_truth, c.num_detections) for c in result.per_class] == [
        ("cat", 1, 1), ("dog", 2, 2), ("emu", 0, 0)]
    assert math.isnan(result.per_class[2].ap)
    assert result.precision50.shape == (len(result.recall), 3)


def test_misses_and_false_alarms_by_hand():
    ground_truth = truth()
    found = perfect(ground_truth)[:2]                            # one of two dogs missed
    found.append({"image_id": 2, "category_id": 3, "bbox": [300, 300, 50, 50], "score": 0.95})   # inside the crowd
    found.append({"image_id": 1, "category_id": 7, "bbox": [400, 10, 30, 30], "score": 0.99})    # no dog there
    result = evaluate_coco(ground_truth, found)
    cat, dog, _ = result.per_class
    assert cat.ap50 == pytest.approx(1)                          # a hit on a crowd region is ignored
    assert dog.ap50 == pytest.approx(0.5 * 51 / 101)             # precision 1/2 up to recall 1/2
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
    found += [{**r, "bbox": [r["bbox"][0] + 9, *r["bbox"][1:]], "score": 0.95 - i / 10} for i, r in enumerate(found)]
    assert evaluate_coco(ground_truth, found).stats == evaluate_coco(ground_truth, found[::-1]).stats


def test_tables_and_silence(capsys, caplog):
    with caplog.at_level(logging.DEBUG, "mindyolo_ext"):
        result = evaluate_coco(truth(), perfect(truth()))
    assert capsys.readouterr().out == ""
    assert "Average Precision" in caplog.text
    assert "AP50" in result.table() and "100.00" in result.table()
    assert [line.split()[0] for line in result.class_table().splitlines()[2:]] == ["cat", "dog", "emu"]


@pytest.mark.parametrize(("change", "message"), [
    ({"image_id": 8}, "detection 1: image_id 8 is not in the ground truth"),
    ({"image_id": "1"}, "detection 1: image_id '1' is not"),
    ({"category_id": 4}, "detection 1: category_id 4 is not"),
    ({"score": float("nan")}, "detection 1: wanted four finite"),
    ({"bbox": [1, 2, 3]}, "detection 1: wanted four finite")])
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
    found[1]["score"], found[2]["score"] = 0.4, 0.8              # the two dogs
    found.append({"image_id": 1, "category_id": 7, "bbox": [400, 10, 30, 30], "score": 0.6})     # no dog there
    found.append({"image_id": 2, "category_id": 3, "bbox": [300, 300, 50, 50], "score": 0.95})   # inside the crowd
    result = evaluate_coco(truth(), found)
    assert [s.tolist() for s in result.scores50] == [[0.9], [0.8, 0.6, 0.4], []]
    assert [h.tolist() for h in result.hits50] == [[True], [True, False, True], []]

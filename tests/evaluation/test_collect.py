"""Boxes in their coordinate frames: network pixels, photo pixels, COCO records."""

import json

import numpy as np
import pytest

from mindyolo_ext.evaluation.collect import CocoRecords, coco_records, detections_to_photo
from mindyolo_ext.input_spec import InputSpec


def test_boxes_go_back_to_the_photo():
    letterbox = InputSpec(size=(320, 320)).place(100, 200)  # scale 1.6, 80 pixels above and below
    detections = np.array([[16, 96, 160, 240, 0.5, 7], [-16, 0, 336, 400, 0.25, 1]], np.float32)
    np.testing.assert_allclose(
        detections_to_photo(detections, letterbox),
        [[10, 10, 100, 100, 0.5, 7], [0, 0, 200, 100, 0.25, 1]],
        atol=1e-4,
    )
    np.testing.assert_allclose(
        detections_to_photo(detections, letterbox, clip=False)[1],
        [-10, -50, 210, 200, 0.25, 1],
        atol=1e-4,
    )
    stretch = InputSpec(size=(352, 352), resize="stretch").place(176, 704)
    np.testing.assert_allclose(
        detections_to_photo(detections[:1], stretch)[0, :4], [32, 48, 320, 120], atol=1e-4
    )
    assert detections_to_photo(np.zeros((0, 6)), stretch).shape == (0, 6)


def test_records_of_many_photos_are_made_on_the_way():
    found = [np.array([[10, 20, 40, 80, 0.5, 1]], np.float32), np.zeros((0, 6), np.float32)]
    records = CocoRecords([*found, np.repeat(found[0], 2, axis=0)], [7, 8, 9], [3, 90])
    assert len(records) == 3 and list(records) == list(records)
    assert [(record["image_id"], record["category_id"]) for record in records] == [
        (7, 90),
        (9, 90),
        (9, 90),
    ]
    with pytest.raises(ValueError, match="longer"):
        list(CocoRecords(found, [7, 8, 9], [3, 90]))


def test_coco_records_are_plain_json():
    detections = np.array([[10, 20, 40, 80, 0.5, 1], [0, 0, 1, 1, 0.25, 0]], np.float32)
    records = coco_records(detections, "street-1", [3, 90])
    assert json.loads(json.dumps(records)) == [
        {"image_id": "street-1", "category_id": 90, "bbox": [10.0, 20.0, 30.0, 60.0], "score": 0.5},
        {"image_id": "street-1", "category_id": 3, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.25},
    ]
    assert coco_records(np.zeros((0, 6)), 1, [3]) == []
    with pytest.raises(ValueError, match="image 5: classes 0..1, but 1 category ids"):
        coco_records(detections, 5, [3])
    with pytest.raises(ValueError, match=r"wanted \(N, 6\)"):
        coco_records(detections[:, :5], 5, [3])

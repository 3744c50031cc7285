"""The metric of Yolo-FastestV2 against its stored results, and its tolerant matching by hand."""

import numpy as np
import pytest

from mindyolo_ext.evaluation.darknet_metric import evaluate_darknet


def rows(*values, width):
    return np.array(values, np.float32).reshape(-1, width)


def per_image(array, count):
    return [array[array[:, 0] == image, 1:] for image in range(count)]


def test_results_of_the_original(golden):
    arrays = golden.arrays("yolo_fastestv2/eval_metric.npz")
    result = evaluate_darknet(per_image(arrays["detections"], 6), per_image(arrays["targets"], 6))
    np.testing.assert_array_equal(np.concatenate(result.true_positives), arrays["tp"])
    for name in ("precision", "recall", "ap", "f1"):
        assert getattr(result, name) == pytest.approx(float(arrays[name]), abs=1e-6), name
    table = [
        [c.label, c.num_targets, c.num_detections, c.precision, c.recall, c.ap]
        for c in result.per_class
    ]
    np.testing.assert_allclose(table, arrays["per_class"], atol=1e-6)


def test_a_box_of_the_wrong_class_counts_if_its_class_occurs_somewhere():
    targets = rows([0, 0, 0, 10, 10], [1, 50, 50, 60, 60], width=5)
    swapped = rows([0, 0, 10, 10, 0.9, 1], [50, 50, 60, 60, 0.8, 0], width=6)
    assert evaluate_darknet([swapped], [targets]).ap == pytest.approx(1)
    absent = rows([0, 0, 10, 10, 0.9, 2], width=6)
    assert evaluate_darknet([absent], [targets]).true_positives[0].tolist() == [False]


def test_iou_counts_the_last_pixel():
    targets = rows([0, 0, 0, 9, 9], width=5)
    half = rows([0, 0, 9, 4, 0.9, 0], width=6)  # 50 of 100 pixels; 0.44 without the last pixel
    assert evaluate_darknet([half], [targets]).recall == 1
    assert evaluate_darknet([half], [targets], iou_thres=0.51).recall == 0


def test_a_target_is_taken_once_and_scores_are_means_over_label_classes():
    targets = rows([0, 0, 0, 10, 10], [3, 50, 50, 60, 60], width=5)
    found = rows([0, 0, 10, 10, 0.9, 0], [0, 0, 10, 10, 0.8, 0], width=6)
    result = evaluate_darknet([found], [targets])
    assert result.true_positives[0].tolist() == [True, False]
    assert [c.label for c in result.per_class] == [0, 3]
    assert (result.precision, result.recall, result.ap) == (0.25, 0.5, 0.5)  # class 3 counts 0
    assert "cat" in result.table(["cat", "a", "b", "dog"]) and "50.00" in result.table()


def test_images_without_boxes():
    nothing, label = rows(width=6), rows([0, 0, 0, 10, 10], width=5)
    result = evaluate_darknet(
        [nothing, rows([0, 0, 5, 5, 0.5, 0], width=6)], [label, rows(width=5)]
    )
    assert (result.recall, result.ap, result.num_images) == (0, 0, 2)
    assert result.true_positives[1].tolist() == [False]
    for empty in (evaluate_darknet([nothing], [rows(width=5)]), evaluate_darknet([], [])):
        assert (empty.precision, empty.recall, empty.ap, empty.f1, empty.per_class) == (
            0,
            0,
            0,
            0,
            [],
        )
        assert "mean" in empty.table()


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="1 images of detections, 2 of targets"):
        evaluate_darknet([rows(width=6)], [rows(width=5)] * 2)
    with pytest.raises(ValueError, match=r"wanted targets \(n, 5\)"):
        evaluate_darknet([rows(width=6)], [rows(width=6)])
    with pytest.raises(ValueError, match=r"wanted \(N, 6\)"):
        evaluate_darknet([rows(width=5)], [rows(width=5)])

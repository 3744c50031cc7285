"""Boxes drawn on images: what is drawn where, and at the edges."""

import numpy as np
import pytest

from mindyolo_ext.visual.colors import OUTLINE, class_color
from mindyolo_ext.visual.detections import draw_detections

GREY = 90


def picture(height=240, width=320):
    return np.full((height, width, 3), GREY, np.uint8)


def box(*values):
    return np.array([values], np.float32)


def test_the_line_has_the_color_of_the_class_and_the_inside_stays():
    image = picture()
    drawn = draw_detections(image, box(40, 60, 200, 200, 0.9, 1), ["cat", "dog"])
    assert (image == GREY).all()  # a copy
    for x, y in ((100, 200), (40, 150), (200, 150)):
        assert tuple(drawn[y, x].tolist()) == class_color(1)
    assert (drawn[201, 50:190] == OUTLINE).all() and (drawn[199, 50:190] == OUTLINE).all()
    assert (drawn[80:190, 50:190] == GREY).all() and (drawn[210:] == GREY).all()
    assert (drawn[40:59, 40:80] != GREY).any()  # the label, above the box


def test_the_label_holds_name_and_score(monkeypatch):
    def label(detections, names, **options):
        return draw_detections(picture(), detections, names, **options)[:109]

    first = label(box(40, 110, 200, 200, 0.9, 0), ["cat"])
    assert (first != label(box(40, 110, 200, 200, 0.8, 0), ["cat"])).any()
    assert (first != label(box(40, 110, 200, 200, 0.9, 0), ["cow"])).any()
    same = [
        label(box(40, 110, 200, 200, score, 0), ["cat"], show_scores=False) for score in (0.9, 0.8)
    ]
    np.testing.assert_array_equal(*same)
    monkeypatch.setattr("mindyolo_ext.visual.letters.font_file", lambda _: "")  # in no font
    unknown = label(box(40, 110, 200, 200, 0.9, 0), ["猫"])
    np.testing.assert_array_equal(unknown, label(box(40, 110, 200, 200, 0.9, 0), ["class 0"]))


def test_labels_of_neighbours_do_not_hide_each_other():
    one, other = box(40, 110, 200, 200, 0.9, 0), box(44, 112, 204, 202, 0.8, 1)
    together = draw_detections(picture(), np.concatenate([other, one]), ["a", "b"])
    alone = draw_detections(picture(), one, ["a", "b"])
    label = np.s_[98:109, 40:70]
    np.testing.assert_array_equal(together[label], alone[label])
    strip = (together == class_color(1)).all(axis=2).sum()
    assert (
        strip
        > (draw_detections(picture(), other, ["a", "b"]) == class_color(1)).all(axis=2).sum() * 0.8
    )


def test_the_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 200, (20, 2))
    rows = np.concatenate(
        [
            corners,
            corners + rng.uniform(5, 100, (20, 2)),
            rng.permutation(20)[:, None] / 20,
            rng.integers(0, 3, (20, 1)),
        ],
        axis=1,
    )
    np.testing.assert_array_equal(
        draw_detections(picture(), rows, "abc"), draw_detections(picture(), rows[::-1], "abc")
    )


@pytest.mark.parametrize("size", [(1, 1), (8, 5), (32, 32), (30, 900), (2000, 3000)])
def test_pictures_of_any_size_and_boxes_beyond_them(size):
    image = picture(*size)
    rows = np.concatenate(
        [box(-1e9, -50, 1e9, 4000, 0.5, 0), box(3, 3, 3, 3, 0.4, 0), box(-9, -9, -5, -5, 0.3, 0)]
    )
    drawn = draw_detections(image, rows, ["a rather long name of a class"])
    assert drawn.shape == image.shape and drawn.dtype == np.uint8 and (drawn != GREY).any()


def test_lines_grow_with_the_picture():
    def thickness(side):
        drawn = draw_detections(
            picture(side, side), box(side / 2, side / 2, side - 9, side - 9, 0.5, 0), ["x"]
        )
        return int((drawn[side * 3 // 4, : side * 3 // 4] != GREY).any(axis=1).sum())

    assert thickness(200) == 3 and thickness(2000) >= 9  # a pixel of outline on either side


def test_no_detections_and_a_picture_that_is_a_view():
    np.testing.assert_array_equal(draw_detections(picture(), np.zeros((0, 6)), []), picture())
    view = picture()[:, ::-1]
    assert draw_detections(view, box(10, 10, 50, 50, 0.5, 0), ["x"]).flags["C_CONTIGUOUS"]


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="wanted a uint8 image"):
        draw_detections(picture().astype(np.float32), box(0, 0, 1, 1, 1, 0), ["x"])
    with pytest.raises(ValueError, match="wanted finite detections"):
        draw_detections(picture(), box(0, 0, 1, 1, 1), ["x"])
    with pytest.raises(ValueError, match="wanted finite detections"):
        draw_detections(picture(), box(0, 0, np.nan, 1, 1, 0), ["x"])
    with pytest.raises(ValueError, match=r"classes 2\.\.2, but 1 names"):
        draw_detections(picture(), box(0, 0, 1, 1, 1, 2), ["x"])

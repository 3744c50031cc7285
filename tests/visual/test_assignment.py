"""Pictures of a label assignment: fills, outlines and marks in their places, and the numbers beside
them.
"""

from dataclasses import replace

import numpy as np
import pytest

from mindyolo_ext.data.image_file import read_image
from mindyolo_ext.priors import grid_priors
from mindyolo_ext.visual import assignment
from mindyolo_ext.visual.assignment import AssignedPicture, draw_assignment
from mindyolo_ext.visual.colors import class_color

SIDE = 128
ANCHORS = [[(20, 30)], [(60, 60)]]
PANEL, GAP, TITLE = assignment._PANEL, assignment._GAP, assignment._TITLE


def picture(boxes, matched, *, anchors=ANCHORS, labels=None, names=("cat", "dog")):
    """A gray image; ``matched`` are pairs (box, prediction); every predicted box is its cell."""
    priors = grid_priors(SIDE, SIDE, (16, 32), anchors)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    matches = np.zeros((len(boxes), len(priors)), bool)
    for box, prediction in matched:
        matches[box, prediction] = True
    labels = np.zeros(len(boxes), int) if labels is None else np.array(labels)
    return AssignedPicture(
        "a.jpg",
        np.full((SIDE, SIDE, 3), 120, np.uint8),
        boxes,
        labels,
        names,
        priors,
        matches,
        priors.cells(),
    )


def panel(sheet, number, columns=2):
    """The pixels of a panel: 0 is the overview, then the levels, then the list."""
    row, column = divmod(number, columns)
    left, top = GAP + column * (PANEL + GAP), TITLE + row * (PANEL + TITLE + GAP)
    return sheet[top : top + PANEL, left : left + PANEL]


def share(pixels, color, tolerance=60):
    """Share of the pixels that are near a color, blue, green, red."""
    return float((np.abs(pixels.astype(int) - color).max(2) < tolerance).mean())


def cell(sheet, level, row, column):
    """The inside of a cell on a level's panel."""
    side = PANEL * (16, 32)[level] / SIDE
    edge = [
        round(v)
        for v in (row * side + 3, (row + 1) * side - 3, column * side + 3, (column + 1) * side - 3)
    ]
    return panel(sheet, 1 + level)[edge[0] : edge[1], edge[2] : edge[3]]


def mixed(color, ground=60):
    """The color of a filled cell, through which 0.4 of the image shows."""
    return 0.6 * np.array(color) + 0.4 * ground


def test_numbers_of_a_picture_by_hand():
    drawn = picture(
        [(0, 0, 16, 16), (40, 40, 100, 104), (100, 0, 128, 20)],
        [(0, 0), (0, 1), (1, 64 + 5)],
        labels=[1, 0, 0],
    )
    np.testing.assert_array_equal(drawn.counts, [[2, 0], [0, 1], [0, 0]])
    overlap = 24 * 24 / (60 * 64 + 32 * 32 - 24 * 24)  # with the cell 32..64 of stride 32
    np.testing.assert_allclose(
        drawn.best_overlaps(),
        [[1, 1], [overlap, drawn.overlaps[1].max()], [0, drawn.overlaps[2].max()]],
    )
    assert drawn.best_overlaps()[2, 1] == pytest.approx(28 * 20 / 32**2)  # a cell around the box
    assert drawn.header()[:6] == ["box", "class", "size, px", "stride 16", "stride 32", "all"]
    assert len(drawn.header()) == len(drawn.rows()[0])
    assert drawn.rows()[0] == [1, "dog", "16 x 16", 2, 0, 2, "1.00", "1.00"]
    assert drawn.rows()[2][:7] == [3, "cat", "28 x 20", 0, 0, 0, "-"]


def test_centres_have_a_dot_and_anchors_a_sign_each():
    box = [(4, 36, 60, 60)]  # its center lies in row 3, column 2 of stride 16
    one, other = (
        draw_assignment(
            picture(box, [(0, 3 * 16 + 4 + k)], anchors=[[(20, 30), (40, 10)], [(60, 60)]])
        )
        for k in (0, 1)
    )
    side = PANEL / SIDE
    middle = panel(one, 1)[
        round(48 * side) - 2 : round(48 * side) + 3, round(32 * side) - 2 : round(32 * side) + 3
    ]
    assert share(middle, class_color(0), 20) == 1
    cells = [cell(sheet, 0, 3, 2).astype(int) for sheet in (one, other)]
    assert (np.abs(cells[0] - cells[1]).max(2) > 60).mean() > 0.01  # another mark in another place


def test_matched_cells_have_the_colour_of_their_box_and_no_other_has():
    sheet = draw_assignment(
        picture([(4, 36, 60, 60), (70, 70, 124, 120)], [(0, 2 * 8 + 1), (1, 64 + 2 * 4 + 3)])
    )
    assert share(cell(sheet, 0, 2, 1), mixed(class_color(0)), 25) > 0.7
    assert share(cell(sheet, 1, 2, 3), mixed(class_color(1)), 25) > 0.7
    for row in range(8):
        for column in range(8):
            filled = share(cell(sheet, 0, row, column), mixed(class_color(0)), 25) > 0.5
            assert filled == ((row, column) == (2, 1)), (row, column)
    # the same place on the other level
    assert share(cell(sheet, 1, 1, 0), mixed(class_color(0)), 25) < 0.2


def test_a_cell_of_two_boxes_has_a_strip_for_each():
    sheet = draw_assignment(
        picture([(0, 0, 128, 128), (0, 0, 128, 120)], [(0, 64 + 5), (1, 64 + 5)])
    )
    inside = cell(sheet, 1, 1, 1)
    half = inside.shape[1] // 2
    for side, color in ((inside[:, 5 : half - 5], 0), (inside[:, half + 5 : -5], 1)):
        assert share(side, mixed(class_color(color)), 25) > 0.7


@pytest.mark.parametrize(("anchors", "width", "height"), [(ANCHORS, 20, 30), ((), 16, 16)])
def test_thin_lines_are_the_anchors_or_the_predicted_boxes(anchors, width, height):
    """On the level's panel, a line in the box's color crosses the middle of the left and the upper
    side.
    """
    drawn = picture([(90, 90, 120, 120)], [(0, 3 * 8 + 3)], anchors=anchors)
    pixels, scale, middle = panel(draw_assignment(drawn), 1), PANEL / SIDE, 3.5 * 16
    color = np.array(class_color(0))
    for x, y in ((middle - width / 2, middle + 3), (middle + 3, middle - height / 2)):
        left, top = round(x * scale), round(y * scale)
        near = pixels[top - 3 : top + 4, left - 3 : left + 4].reshape(-1, 3).astype(int)
        assert np.abs(near - color).sum(1).min() < 120, (x, y)
    nothing = pixels[round((middle - 40) * scale) : round((middle - 30) * scale)]
    assert share(nothing, color) < 0.01


def red(pixels):
    return share(pixels, (0, 0, 224), 25)


def test_a_box_without_predictions_is_dashed_and_red():
    boxes, own = [(10, 60, 60, 110), (70, 60, 120, 110)], [(0, 4 * 8 + 2), (1, 4 * 8 + 5)]
    both, one = (draw_assignment(picture(boxes, own[:count])) for count in (2, 1))
    assert red(both) == 0 and red(panel(one, 0)) > 0.002  # the label
    assert red(one[:TITLE]) > 0.002 and red(panel(one, 3)) > 5e-4  # title and list

    def side(sheet):
        """Share of the right side of the second box that has its color."""
        x, top, bottom = (round(v * PANEL / SIDE) for v in (120, 75, 105))
        line = (
            np.abs(panel(sheet, 0)[top:bottom, x - 1 : x + 2].astype(int) - class_color(1)).max(2)
            < 60
        )
        return line.any(1).mean()

    assert side(both) > 0.98 and 0.3 < side(one) < 0.8


def test_crowded_levels_show_the_best_shape_of_each_box_only():
    many = [(box, prediction) for box in (0, 1) for prediction in range(40)]
    overlaps = np.random.default_rng(0).random((2, 64))
    matches = np.zeros((2, 64), bool)
    matches[tuple(np.array(many).T)] = True
    best = overlaps[:, :40].argmax(1)
    assert assignment._outlined(matches, overlaps) == [(0, best[0]), (1, best[1])]
    matches[1] = False
    assert assignment._outlined(matches, overlaps) == [(0, prediction) for prediction in range(40)]


@pytest.mark.parametrize("count", [1, 13, 50, 120])
def test_any_number_of_boxes_fits(count):
    rng = np.random.default_rng(count)
    corners = rng.uniform(0, 100, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(4, 28, (count, 2))], 1)
    drawn = picture(boxes, [(box, int(rng.integers(80))) for box in range(count)])
    sheet = draw_assignment(drawn)
    assert sheet.shape == draw_assignment(picture(boxes[:1], [(0, 3)])).shape
    listed = (panel(sheet, 3) < 250).any(2)
    assert listed[:, :30].any(1).mean() > min(count, 40) / 80  # squares of the colors
    below = TITLE + 2 * PANEL + TITLE + GAP
    assert (sheet[below : below + 6, GAP + PANEL + 3 :] > 250).all() and (
        sheet[:, -GAP + 2 :] > 250
    ).all()


def test_long_lists_end_with_the_number_of_the_rest():
    lines = assignment._list_lines(picture([(0, 0, 20, 20)] * 30, [(0, 0)]), 20)
    assert len(lines) == 20 and lines[-1].split() == ["...", "and", "12", "more"]
    assert len(assignment._list_lines(picture([(0, 0, 20, 20)] * 30, []), 31)) == 31


def test_shapes_of_sheets_follow_picture_and_levels(tmp_path):
    drawn = picture([(0, 0, 60, 60)], [(0, 3)])
    sheet = draw_assignment(drawn, tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), sheet)
    wide = replace(
        drawn,
        image=np.zeros((64, SIDE, 3), np.uint8),
        priors=grid_priors(64, SIDE, (8, 16, 32)),
        matches=np.zeros((1, 168), bool),
        predicted=np.zeros((168, 4)),
    )
    height, width, _ = draw_assignment(wide).shape
    assert width > sheet.shape[1] and height < sheet.shape[0]  # three columns, panels half as high


def test_names_that_the_font_lacks_or_that_look_like_formulas_are_written():
    plain, other, formula = (
        panel(draw_assignment(picture([(9, 60, 60, 110)], [(0, 3)], names=[name])), 0)
        for name in ("class 0", "猫", "$x_$")
    )
    np.testing.assert_array_equal(plain, other)
    assert (formula != plain).any()


def test_what_does_not_fit_is_refused():
    good = picture([(0, 0, 20, 20)], [(0, 0)])
    with pytest.raises(ValueError, match="a.jpg: wanted at least one box"):
        replace(
            good, boxes=np.zeros((0, 4)), labels=np.zeros(0, int), matches=np.zeros((0, 80), bool)
        )
    with pytest.raises(ValueError, match=r"'matches': \(1, 80\).*got .*'matches': \(1, 79\)"):
        replace(good, matches=np.zeros((1, 79), bool))
    with pytest.raises(ValueError, match=r"classes 2\.\.2, but 2 names"):
        replace(good, labels=np.array([2]))

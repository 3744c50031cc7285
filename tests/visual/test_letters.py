"""Text on images in any script for which this machine has a font."""

import logging
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from mindyolo_ext.visual import letters
from mindyolo_ext.visual.detections import draw_detections
from mindyolo_ext.visual.letters import Text, font_file, printable

CYRILLIC = "кошка"  # matplotlib brings a font that has it


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Clear the cache, so that no test sees the fonts that another one found."""
    for cached in (letters.font_file, letters._say_once):
        cached.cache_clear()
    yield
    for cached in (letters.font_file, letters._say_once):
        cached.cache_clear()


def canvas() -> np.ndarray:
    return np.full((40, 200, 3), 90, np.uint8)


def test_ascii_is_written_as_opencv_does():
    text = Text("cat 0.90", 11.0, room=190)
    drawn, wanted = canvas(), canvas()
    text.draw(drawn, 4, 5, (255, 255, 255))
    spot = 4, 5 + text.height
    cv2.putText(wanted, "cat 0.90", spot, 0, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    np.testing.assert_array_equal(drawn, wanted)


def test_other_letters_stay_in_their_place():
    text = Text(CYRILLIC, 15.0, room=190)
    drawn = canvas()
    text.draw(drawn, 10, 8, (0, 0, 255))
    inside = drawn[8 : 8 + text.height, 10 : 10 + text.width].copy()
    drawn[8 : 8 + text.height, 10 : 10 + text.width] = 90
    assert (drawn == 90).all()
    assert (inside == (0, 0, 255)).all(axis=2).any(), "no pixel has the full color"
    assert 8 <= text.height <= 25 and text.width > 2 * text.height
    for side in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]):
        assert (side != 90).any(), "the frame is larger than the text"


def test_text_is_made_small_enough_for_its_room():
    for name in (CYRILLIC * 5, "cat" * 30):
        wide, narrow = Text(name, 20.0, room=10_000), Text(name, 20.0, room=100)
        assert narrow.width <= 105 < wide.width


def test_text_beyond_the_border_is_cut():
    text = Text(CYRILLIC, 15.0, room=190)
    drawn = canvas()
    text.draw(drawn, 180, 30, (0, 0, 255))
    assert (drawn[30:, 180:] != 90).any() and (drawn[:30] == 90).all()


def test_script_without_a_font(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(letters, "_letters_of", lambda _: frozenset(map(ord, "abc")))
    with caplog.at_level(logging.WARNING):
        assert [printable(name, 7) for name in ("猫", "狗", "cat", "b")] == [
            "class 7",
            "class 7",
            "cat",
            "b",
        ]
    assert caplog.text.count("no installed font has") == 1
    assert font_file("abc") and not font_file("abcd")


def test_name_with_control_characters_is_not_written():
    assert printable("a\x1b[31m", 3) == printable("кош\nка", 3) == "class 3"


def test_label_in_other_letters():
    image = np.full((240, 320, 3), 90, np.uint8)
    found = np.array([[40, 110, 200, 200, 0.9, 0]], np.float32)
    one, other = (draw_detections(image, found, [name])[:109] for name in (CYRILLIC, "class 0"))
    assert (one != other).any() and (one != 90).any()

"""Untrusted text in errors and tables."""

import pytest

from mindyolo_ext.errors import CheckpointError, MissingFileError, UserError, printable, shown


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("größe 人", "größe 人"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\u202eb\x85\ud800", "a\\u202eb\\x85\\ud800"),
        ("a\nb\tc", "a\\nb\\tc"),
    ],
)
def test_control_characters_are_written_out(text, wanted):
    assert printable(text) == wanted
    assert shown(text) == wanted
    assert printable("a\nb\r", keep="\n") == "a\nb\\r"


@pytest.mark.parametrize("kind", [UserError, CheckpointError, MissingFileError])
def test_errors_never_steer_a_terminal(kind):
    assert str(kind("x\x1b]0;title\x07.pth: two\nlines")) == "x\\x1b]0;title\\x07.pth: two\nlines"


def test_what_is_shown_is_short():
    assert shown("x" * 100, 10) == "x" * 10 + "..."
    assert shown(10**5000) == "a whole number of 16610 bits"
    assert shown(5) == "5"
    assert len(shown(list(range(1_000_000)))) < 100
    nested: list = []
    for _ in range(60):
        nested = [nested, nested]
    assert len(shown(nested)) < 100

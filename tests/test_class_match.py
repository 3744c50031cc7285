"""Comparison of two lists of class names: the same classes, the same in another order, or different
ones.
"""

import pytest

from mindyolo_ext.class_match import Relation, are_known, listed, match_classes, place_of
from mindyolo_ext.class_names import COCO_NAMES, default_names

# COCO's own spelling, as in instances_val2017.json
SPELLED = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}


@pytest.mark.parametrize(
    "first, second, relation, order",
    [
        (["cat", "dog"], ["cat", "dog"], Relation.SAME, (0, 1)),
        (["cat", "dog"], ["Cat ", " dog"], Relation.RESPELLED, (0, 1)),
        (["traffic light"], ["Traffic_Light"], Relation.RESPELLED, (0,)),
        (["café"], ["cafe\u0301"], Relation.RESPELLED, (0,)),  # as in file names of macOS
        (["cat", "dog"], ["dog", "cat"], Relation.REORDERED, (1, 0)),
        (["a", "b", "c"], ["C", "A", "B"], Relation.REORDERED, (1, 2, 0)),
        (["cat", "dog"], ["cat", "cow"], Relation.DIFFERENT, ()),
        (["cat", "dog"], ["cat"], Relation.DIFFERENT, ()),
        ([], ["cat"], Relation.UNKNOWN, ()),
        (default_names(2), ["cat", "dog"], Relation.UNKNOWN, ()),
        (["cat", "dog"], ["0", "1"], Relation.UNKNOWN, ()),
        (["class0", "class1"], ["class0", "class1"], Relation.SAME, (0, 1)),
        (["cat", "cat"], ["cat", "cat"], Relation.SAME, (0, 1)),
        (["0", "cat"], ["cat", "0"], Relation.REORDERED, (1, 0)),  # one real name is enough
    ],
)
def test_relation(first, second, relation, order):
    match = match_classes(first, second)
    assert (match.relation, match.order) == (relation, order)


def test_cocos_two_spellings_are_the_same_classes():
    own = [SPELLED.get(name, name) for name in COCO_NAMES]
    assert match_classes(COCO_NAMES, own).relation is Relation.RESPELLED
    assert match_classes(own, COCO_NAMES[::-1]).relation is Relation.REORDERED


def test_a_spelling_that_tells_two_classes_apart_counts():
    assert match_classes(["sofa", "couch"], ["sofa", "couch"]).relation is Relation.SAME
    assert match_classes(["sofa", "couch"], ["couch", "sofa"]).order == (1, 0)
    assert match_classes(["a", "A"], ["A", "a"]).relation is Relation.REORDERED


def test_a_name_that_comes_twice_is_no_permutation():
    assert match_classes(["cat", "cat"], ["cat", "dog"]).relation is Relation.DIFFERENT
    assert match_classes(["cat", "cat"], ["cat"]).relation is Relation.DIFFERENT


def test_difference_names_both_sides():
    match = match_classes(["cat", "dog"], ["dog", "cow", "hen"])
    assert match.difference("a.ckpt", "data.val") == (
        "only a.ckpt has cat; only data.val has cow, hen"
    )
    assert match_classes(["cat"], ["cat"]).difference("x", "y") == ""


def test_names_in_messages_are_harmless():
    text = listed(["\x1b[31mred", "x" * 500, *"abcdefghij"])
    assert "\x1b" not in text and "\\x1b[31mred" in text
    assert len(text) < 150 and text.endswith("and 4 more")


def test_known():
    assert are_known(["cat"]) and are_known(default_names(80))
    assert not are_known([]) and not are_known(["class0", "Class 1", "2", "class_3"])


def test_the_largest_lists_take_no_time() -> None:
    names = [f"a{index}" for index in range(32_768)]  # comparing all pairs would be a billion
    assert match_classes(names, names[::-1]).order == tuple(range(32_768))[::-1]


def test_the_place_of_one_class():
    names = ["TV", "tv", "potted plant", "motorcycle"]
    assert place_of("tv", names) == 1 and place_of("TV", names) == 0
    assert place_of("Tv", names) is None  # two names mean it
    assert place_of("pottedplant", names) == 2 and place_of("motorbike", names) == 3
    assert place_of("plant", names) is None

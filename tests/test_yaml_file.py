"""Untrusted YAML."""

import pytest

from mindyolo_ext.errors import ConfigError, DataError
from mindyolo_ext.yaml_file import MAX_BYTES, load_yaml, parse_yaml

LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(9)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i + 1}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 10)}]}}\n" for i in range(9)
)


def test_words_stay_texts() -> None:
    assert load_yaml("[yes, No, on, OFF, y, true, False, 1]", "f") == [
        *("yes", "No", "on", "OFF", "y"),
        *(True, False, 1),
    ]
    written = ["yes", "null", "~", "1.50", "007", "true", "2024-01-01", "0x10"]
    assert load_yaml(f"[{', '.join(written)}]", "f", as_text=True) == written
    assert load_yaml("", "f") is None and load_yaml("# nothing", "f", as_text=True) is None


def test_aliases_and_merges_within_reason() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]"
    assert load_yaml(text, "f") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": [{"x": 1, "y": 2}] * 2,
    }
    value, node = parse_yaml("a:\n  b: 1", "f")
    assert value == {"a": {"b": 1}} and node is not None
    assert node.value[0][1].start_mark.line == 1


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, r"f.yaml:6: .*more than 80,000 values, aliases written out"),
        (MERGES, r"f.yaml:6: .*more than 80,000 values, aliases written out"),
        ("a: &a [*a]", r"f.yaml:1: .*alias \*a before the end of its anchor"),
        ("a: *b", r"f.yaml:1: .*alias \*b before"),
        ("x: 1\n" + "[" * 1000, "f.yaml:2: "),
        ("[" * 1000, "f.yaml:1: .*nested more than 50 deep"),
        ("{" * 1000, "f.yaml:1: .*nested more than 50 deep"),
        ("- " * 1000, "f.yaml:1: .*nested more than 50 deep"),
        ("a: 1\nb: 2\na: 3", "f.yaml:3: .*duplicate key 'a'"),
        ("? [1]\n: 2", "f.yaml:1: .*unhashable"),
        ('a: "', "f.yaml:1: .*end of stream"),
        ("a\n--- b", "f.yaml:2: .*another document"),
        ("\x01", "f.yaml:?1?: wanted YAML"),
        ("x" * (MAX_BYTES + 1), "f.yaml: wanted YAML of at most"),
        ("a: !!timestamp x", "f.yaml:1: .*a plain value, got the tag"),
        ("a\udcff: b", "f.yaml: wanted YAML"),
        ('a: !!python/object/apply:os.system ["echo"]', "f.yaml:1: .*a plain value, got the tag"),
    ],
)
def test_refused(text: str, message: str, as_text: bool) -> None:
    with pytest.raises(DataError, match=message):
        load_yaml(text, "f.yaml", as_text=as_text)


@pytest.mark.parametrize("text", ["a: " + "9" * 5000, "a: 2024-13-45", "a: 0x_"])
def test_numbers_and_dates_that_there_are_none_of(text: str) -> None:
    with pytest.raises(ConfigError, match="f.yaml:2: "):
        load_yaml(f"# head\n{text}", "f.yaml", error=ConfigError)

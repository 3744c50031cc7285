"""MindYOLO's command lines: every flag is accepted, translated or answered."""

import logging

import pytest
from helpers import Command
from launching import ROOT
from mindyolo_flags import VERBS

from mindyolo_ext.cli.mindyolo import FLAGS, apply_mindyolo
from mindyolo_ext.cli.parser import parser_for
from mindyolo_ext.config.read import parse_override
from mindyolo_ext.errors import UsageError

pytestmark = pytest.mark.usefixtures("quiet_logging")
ROWS = [(verb, *row) for verb, rows in VERBS.items() for row in rows]
TRAINED = [row[1:] for row in ROWS if row[0] == "train" and "=" in row[3] and ": " not in row[3]]


def parsed(verb: str, *arguments: str):
    """Options of a command line, with the arguments that the verb requires."""
    needed = {"train": (), "test": (), "predict": (), "export": ()}[verb]
    if verb != "train" and "--weight" not in arguments:
        needed = ("--weight", "w.ckpt")
    words = [verb, *needed, *arguments]
    return parser_for(words).parse_args(words)


def test_no_row_is_missing_and_none_is_too_many():
    for verb, rows in VERBS.items():
        names = [row[0] for row in rows]
        answered = {flag.name for flag in FLAGS if verb in flag.verbs}
        assert len(names) == len(set(names))
        assert answered <= set(names), f"{verb}: {answered - set(names)}"


def test_the_page_names_every_flag():
    page = (ROOT / "docs" / "from_mindyolo.md").read_text(encoding="utf-8")
    assert [row[1] for row in ROWS if f"`--{row[1]}" not in page] == []
    for flag in FLAGS:
        assert flag.sentence in page or flag.name == "auto_accumulate", flag.name


@pytest.mark.parametrize(
    ("verb", "flag", "value", "fate"), ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS]
)
def test_what_becomes_of_a_flag(
    caplog: pytest.LogCaptureFixture, verb: str, flag: str, value: str, fate: str
):
    caplog.set_level(logging.INFO)
    options = parsed(verb, f"--{flag}", value)
    kind, _, words = fate.partition(": ")
    if kind == "error":
        with pytest.raises(UsageError, match=rf"^--{flag} {value}: ") as caught:
            apply_mindyolo(options)
        assert words in str(caught.value) and "\n" not in str(caught.value)
        return
    settings = apply_mindyolo(options)
    notes = [record.getMessage() for record in caplog.records]
    if kind == "note":
        assert settings == [] and len(notes) == 1
        assert notes[0].startswith(f"--{flag} ") and words in notes[0]
    elif kind == "option":
        name, _, made = words.partition("=")
        assert str(vars(options)[name]) == made and settings == []
    elif kind == "own":
        assert vars(options)[flag] is not None and settings == []
    elif f"mindyolo_{flag}" in vars(options):
        assert settings == [kind]


@pytest.mark.parametrize(("flag", "value", "fate"), TRAINED)
def test_a_setting_reaches_the_training(
    command: Command, runs: list, flag: str, value: str, fate: str
):
    status, output = command("train", "--model", "yolox-nano", f"--{flag}", value)
    assert status == 0, output
    wanted, found = parse_override(fate), runs.pop()[0]
    while isinstance(wanted, dict):
        (name, wanted), *none = wanted.items()
        assert not none
        found = vars(found)[name]
    assert found == wanted


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.usual], ids=lambda f: f.name)
def test_usual_values_are_taken_in_silence(caplog: pytest.LogCaptureFixture, flag):
    caplog.set_level(logging.INFO)
    for verb in flag.verbs:
        for value in flag.usual:
            assert apply_mindyolo(parsed(verb, f"--{flag.name}", str(value))) == []
    assert not caplog.records


def test_one_thing_is_not_said_twice():
    with pytest.raises(UsageError, match="--image_path: means the same as the list of images"):
        apply_mindyolo(parsed("predict", "a.jpg", "--image_path", "b.jpg"))
    with pytest.raises(
        UsageError, match="--file_format: means the same as --format; leave one out"
    ):
        apply_mindyolo(parsed("export", "--format", "onnx", "--file_format", "ONNX"))
    with pytest.raises(SystemExit):
        parsed("export", "--file_format", "OM")


def test_predict_takes_its_images_with_a_flag_too(command: Command):
    for given in (["none.jpg"], ["--source", "none.jpg"], ["none.jpg", "--source", "no.jpg"]):
        status, output = command("predict", *given, "--weight", "w.ckpt")
        assert status == 1 and "none.jpg: no image or video there" in output


def test_predict_wants_images(command: Command):
    status, output = command("predict", "--weight", "w.ckpt")
    assert status == 1 and "wanted images, videos or folders" in output

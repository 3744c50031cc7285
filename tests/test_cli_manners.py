"""Help with defaults, case-insensitive words, flags of settings, and commands that need no recipe
file.
"""

import argparse
import os
import re
from pathlib import Path

import pytest
import yaml
from helpers import Command

from mindyolo_ext.cli.arguments import number_or_word, true_or_false
from mindyolo_ext.cli.manners import meant
from mindyolo_ext.cli.options import layers
from mindyolo_ext.cli.parser import VERBS, parser_for
from mindyolo_ext.cli.recipe import given
from mindyolo_ext.config import Config, load_config, override
from mindyolo_ext.config.describe import find_settings
from mindyolo_ext.config.read import parse_override
from mindyolo_ext.errors import UsageError

pytestmark = pytest.mark.usefixtures("quiet_logging")


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of one verb."""
    main = parser_for([verb])
    subs = next(a for a in main._actions if isinstance(a, argparse._SubParsersAction))
    return subs.choices[verb]


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_argument_has_help_with_its_default(verb: str):
    parser = parser_of(verb)
    formatter = parser._get_formatter()
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        name = "/".join(action.option_strings) or action.dest
        assert action.help, f"{verb} {name} has no help"
        shown = formatter._expand_help(action)
        if action.option_strings and not action.required and action.dest != "help":
            assert "default" in shown, f"{verb} {name} does not show its default"
            assert "None" not in shown


def test_flags_of_a_recipe_show_the_setting_and_its_default():
    epochs = next(a for a in parser_of("train")._actions if a.dest == "epochs")
    assert epochs.help == (
        "Passes over the training images (train.epochs; default: the recipe's, else 300)"
    )


def test_other_words_for_options():
    own = ["--weight", "--config", "--set", "--conf_thres"]
    assert meant("--ckpt", own) == ", did you mean --weight?"
    assert meant("--conf", own) == ", did you mean --conf_thres?"
    assert meant("--momentum", own) == ", did you mean --set train.optimizer.momentum=VALUE?"
    assert meant("--momentum", own[:2]) == ""
    two = meant("--per_batch_size", own)
    assert two == ", did you mean --set with one of train.per_batch_size, eval.per_batch_size?"


@pytest.mark.parametrize("typed", ["cpu", "Cpu", "CPU"])
def test_devices_in_any_case_of_letters(command: Command, runs: list, typed: str):
    arguments = ("--model", "yolox-nano", "--device_target", typed)
    assert command("train", *arguments)[0] == 0
    assert runs.pop()[1]["device_target"] == "CPU"


def test_a_model_stands_for_its_recipe(command: Command, runs: list):
    status, output = command("train", "--model", "yolox_nano", "--epochs", 3)
    assert status == 0, output
    config, started = runs.pop()
    assert config == load_config("yolox-nano", ["train.epochs=3"])
    assert started["save_dir"] == Path("runs/yolox-nano")


def test_a_recipe_by_name_names_its_run(
    command: Command, runs: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert command("train", "-c", "yolox/yolox-s.yaml", "--config", "ascend")[0] == 0
    config, started = runs.pop()
    assert config == load_config("yolox-s", overlays=["ascend"])
    assert started["save_dir"] == Path("runs/yolox-s") and os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "wanted --config RECIPE .* or --model NAME"),
        (("--model", "yolox-nani"), "--model yolox-nani: no such model, did you mean"),
        (("--model", "yolox-s", "--config", "yolox-s"), "leave out --config"),
        (("--config", "yolox-q"), r"config yolox-q: no such file, did you mean yolox/yolox-[a-z]+"),
        (("--config", "base"), "matches dynamicdet/base and gold_yolo/base"),
    ],
)
def test_what_is_said_without_a_recipe(
    command: Command, runs: list, arguments: tuple[str, ...], message: str
):
    status, output = command("train", *arguments)
    assert status == 1 and not runs

    assert re.search(message, output), output


def test_models_are_listed_with_costs_results_and_weights(command: Command):
    status, output = command("models")
    assert status == 0
    row = next(line.split() for line in output.splitlines() if line.startswith("yolox_s "))
    assert row == ["yolox_s", "640x640", "8,968,255", "26.8", "40.5", "AP", "val"]
    assert "releases/download/0.1.1rc0/yolox_darknet.pth" in output
    assert "112.4..181.7   51.4..53.5  AP val" in output
    assert "simple_yolo_resnet18   none published" in output
    assert "24.1" in command("models", "yolox")[1]
    assert "did you mean yolox?" in command("models", "yolo")[1]


def test_recipes_are_listed(command: Command):
    status, output = command("recipes")
    assert status == 0
    assert "YOLOX-Nano on COCO, 416 x 416" in output
    assert "for a second --config, or __BASE__: ascend, coco" in output
    status, output = command("recipes", "yolox")
    assert "yolox-nano-bccd" in output and "gold_yolo" not in output
    status, output = command("recipe", "--model", "yolox-tiny")
    assert status == 0 and "name: yolox_tiny" in output


# verb with a recipe -> the words that it cannot do without
NEEDED = {
    "train": (),
    "test": ("--weight", "w.ckpt"),
    "compare": ("a.json", "b.json"),
    "reproduce": ("yolox_nano", "--weights", __file__),
    "benchmark": ("--weight", "w.ckpt", "--runtimes", "onnxruntime"),
    "anchors": (),
    "thresholds": ("--weight", "w.ckpt"),
    "check-data": (),
    "split": (),
    "assign": (),
}


def words_of_settings(verb: str) -> dict[str, list[str]]:
    """By setting, the words that give each flag of ``add_setting`` another value than the usual."""
    parser = parser_of(verb)
    keys = parser.get_default("setting_keys")
    words = {int: "3", number_or_word: "3", float: "0.375", true_or_false: "True", layers: "neck"}
    found = {}
    for action in parser._actions:
        if action.dest in keys:
            key = keys[action.dest]
            usual = find_settings(key)[0].default
            word = action.choices[-1] if action.choices else words.get(action.type, "7: a #[b] c")
            word = {"true": "False"}.get(usual, word)
            word = {"train.precision_mode": "force_fp32"}.get(key, word)
            found[key] = [action.option_strings[0], word]
    return found


@pytest.mark.parametrize("verb", NEEDED)
def test_every_flag_of_a_setting_reaches_the_recipe(verb: str, command: Command, monkeypatch):
    texts = []

    def load_config(path, overrides=(), **_):  # noqa: ARG001
        texts[:] = overrides
        if overrides:
            raise UsageError("read")
        return Config()

    monkeypatch.setattr("mindyolo_ext.config.load_config", load_config)
    flags = words_of_settings(verb)
    words = [word for pair in flags.values() for word in pair]
    recipe = ("--config", "r.yaml")
    assert "error: read" in command(verb, *NEEDED[verb], *recipe, *words)[1]
    assert len(flags) > 2
    for key, (flag, word) in flags.items():
        (text,) = [text for text in texts if text.startswith(f"{key}=")]
        value = yaml.safe_load(text.partition("=")[2])
        assert str(value[0] if isinstance(value, list) else value) == word, flag


def test_every_verb_with_a_recipe_is_tried():
    assert list(NEEDED) == [
        verb.name
        for verb in VERBS
        if any(action.dest == "config" for action in parser_of(verb.name)._actions)
        and parser_of(verb.name).get_default("setting_keys")
    ]


def test_a_value_stays_what_was_typed():
    """Lists, paths and texts that YAML would read as something else."""
    for key, words, wanted in (
        ("data.classes", ["--classes", "a: b", "2", "#c"], ["a: b", 2, "#c"]),
        ("train.freeze", ["--freeze", "[0, 4]"], [0, 4]),
        ("train.weight", ["--weight", "[1].ckpt"], "[1].ckpt"),
        ("data.root", ["--data_root", "2026"], "2026"),
        ("data.workers", ["--workers", "auto"], "auto"),
    ):
        (text,) = given(parser_for(["train"]).parse_args(["train", *words]))
        section, _, name = key.partition(".")
        assert parse_override(text) == {section: {name: wanted}}
        override(Config(), [text])
    assert given(argparse.Namespace(setting_keys={"x": "data.root"}, x=Path("a b"))) == [
        'data.root="a b"'
    ]

"""Flags that choose a part of the data, frozen layers, images per update, rectangles and views."""

import pytest
from helpers import Command

pytestmark = pytest.mark.usefixtures("quiet_logging")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--freeze", "3"], [0, 1, 2]),
        (["--freeze", "0", "4"], [0, 4]),
        (["--freeze", "[0, 4]"], [0, 4]),
        (["--freeze", "[7]"], [0, 1, 2, 3, 4, 5, 6]),
        (["--freeze", "0,4"], [0, 4]),
        (["--freeze", "012"], [0, 1, 2]),
        (["--freeze", "backbone", "*.alpha"], ["backbone", "*.alpha"]),
        (["--freeze", "['backbone.', 24]"], ["backbone.", 24]),
        (["--freeze", "[]"], []),
        (["--freeze", "[hb]*.bn.*"], ["[hb]*.bn.*"]),
    ],
)
def test_forms_of_freeze(command: Command, runs: list, words: list, wanted: list):
    status, output = command("train", "--model", "yolox-nano", *words)
    assert status == 0, output
    assert runs.pop()[0].train.freeze == wanted


def test_parts_of_the_data(command: Command, runs: list):
    words = ("--classes", "traffic light", "2", "it's", "--single_cls", "--fraction", "0.25")
    status, output = command("train", "--model", "yolox-nano", *words)
    assert status == 0, output
    data = runs.pop()[0].data
    assert data.classes == ["traffic light", 2, "it's"]
    assert data.single_cls is True and data.fraction == 0.25
    status, output = command("train", "--model", "yolox-nano", "--single_cls", "False", "--rect")
    assert status == 0, output
    config = runs.pop()[0]
    assert config.data.single_cls is False
    assert config.train.rectangular is True and config.train.multi_scale == []


def test_images_per_update(command: Command, runs: list):
    for words, batch, note in (
        (["--nbs", "128"], 128, ""),
        (["--nbs", "128", "--auto_accumulate", "True"], 128, "becomes train.optimizer.nominal"),
        (["--auto_accumulate", "True"], 64, "becomes train.optimizer.nominal"),
        (["--nbs", "128", "--auto_accumulate", "False"], 0, "--nbs 128: has no effect with"),
        ([], 0, ""),
    ):
        status, output = command("train", "--model", "yolox-nano", *words)
        assert status == 0, output
        assert runs.pop()[0].train.optimizer.nominal_batch == batch
        assert note in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fraction", "0"], "data.fraction wanted a share above 0, got 0"),
        (["--fraction", "2"], "data.fraction wanted a number from 0 to 1, got 2"),
        (
            ["--classes", "0", "--set", "data.classes=[-1]"],
            "data.classes wanted at least 0, got -1",
        ),
        (
            ["--rect", "True", "--set", "train.multi_scale=[320, 640]"],
            "train.rectangular wanted false with multi_scale [320, 640], got true",
        ),
    ],
)
def test_values_that_cannot_be(command: Command, words: list, message: str):
    status, output = command("train", "--model", "yolox-nano", *words)
    assert status == 1 and message in output
